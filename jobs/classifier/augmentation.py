"""Random changes that leave a head's label as it is: small affine moves, mirroring, and another exposure."""

import math

import tensorflow as tf

ROTATION = math.radians(15)
SCALE = 0.15  # relative
SHIFT = 0.08  # of the image's side
CONTRAST = 0.2  # relative
BRIGHTNESS = 0.1  # of the full range
GAMMA = 1.4  # exponents between 1 / GAMMA and GAMMA


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changed images; the same images and seed give the same result.

    Args:
        images: float32 [n, s, s] in [0, 1]; what comes in from beyond the border is black.
        seed: int [2], for instance run's seed and step.

    Returns:
        float32 [n, s, s] in [0, 1].
    """
    count = tf.shape(images)[0]
    draws = tf.random.stateless_uniform([8, count], seed, -1.0, 1.0)
    angle, scale, shift_x, shift_y = ROTATION * draws[0], 1.0 + SCALE * draws[1], SHIFT * draws[2], SHIFT * draws[3]
    moved = _affine(images, angle, scale, shift_x, shift_y, tf.where(draws[4] < 0.0, -1.0, 1.0))
    gamma = (GAMMA ** draws[5])[:, tf.newaxis, tf.newaxis]
    contrast = (1.0 + CONTRAST * draws[6])[:, tf.newaxis, tf.newaxis]
    brightness = (BRIGHTNESS * draws[7])[:, tf.newaxis, tf.newaxis]
    exposed = tf.pow(moved, gamma)
    middle = tf.reduce_mean(exposed, axis=[1, 2], keepdims=True)
    return tf.clip_by_value((exposed - middle) * contrast + middle + brightness, 0.0, 1.0)


def _affine(
    images: tf.Tensor, angle: tf.Tensor, scale: tf.Tensor, shift_x: tf.Tensor, shift_y: tf.Tensor, mirror: tf.Tensor
) -> tf.Tensor:
    """Each image turned about its middle, scaled, moved, and mirrored left to right where `mirror` is -1; bilinear."""
    size = tf.shape(images)[1]
    side = tf.cast(size, tf.float32)
    middle = (side - 1.0) / 2.0
    # The rows map a pixel of the output to its place in the input.
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    a0, a1, b0, b1 = cosine * mirror, -sine * mirror, sine, cosine
    a2 = middle - (a0 + a1) * middle + shift_x * side
    b2 = middle - (b0 + b1) * middle + shift_y * side
    zero = tf.zeros_like(angle)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., tf.newaxis],
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1),
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[..., 0]
