"""Augmentation: random changes that preserve the label, for training (affine transforms, exposure, noise, a covered
patch, mixup), and fixed views for test-time augmentation.

The random changes are strong: with about two hundred images, a classifier memorizes all of them within a few hundred
steps under milder changes.
"""

import math
from itertools import product

import tensorflow as tf

ROTATION = math.radians(30)
SCALE = 0.25  # sides are scaled by a factor of up to exp(SCALE), or its inverse
STRETCH = 0.15  # the same for the ratio of the sides
SHEAR = 0.15
SHIFT = 0.12  # of the image's side
CONTRAST = 0.4  # relative
BRIGHTNESS = 0.2  # of the full range
GAMMA = 1.8  # exponents between 1 / GAMMA and GAMMA
NOISE = 0.03  # maximum standard deviation, of the full range; half of the images get no noise
COVER = 0.35  # maximum side of a covered square, relative to the image's side
MIX = 0.3  # maximum weight of the partner in a blend of two images
# The views of an image for classification: each angle [radians] with each scale, unchanged and mirrored.
VIEWS = tuple(product((-0.2, 0.0, 0.2), (0.9, 1.0, 1.1), (1.0, -1.0)))


def augment(images: tf.Tensor, seed: tf.Tensor, strength: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Changed images; the same images, seed and strength give the same result.

    Args:
        images: float32 [n, s, s] in [0, 1]; pixels from outside the image are black.
        seed: int [2], for instance the run's seed and the step.
        strength: float32, 0 to 1, of all changes but mirroring; at 0 there are none.

    Returns:
        float32 [n, s, s] in [0, 1].
    """
    seeds = tf.unstack(tf.random.split(seed, 2))
    draws = tf.random.stateless_uniform([14, tf.shape(images)[0]], seeds[0], -1.0, 1.0)
    side, across, down, extent = tf.unstack(draws[:4])
    changes = tf.unstack(strength * draws[4:])
    angle, scale, stretch, shear, shift_x, shift_y, gamma, contrast, brightness, noise = changes
    moved = _affine(
        images,
        ROTATION * angle,
        tf.exp(SCALE * scale + STRETCH * stretch),
        tf.exp(SCALE * scale - STRETCH * stretch),
        SHEAR * shear,
        SHIFT * shift_x,
        SHIFT * shift_y,
        tf.where(side < 0.0, -1.0, 1.0),
    )
    exposed = tf.pow(moved, _each(GAMMA**gamma))
    middle = tf.reduce_mean(exposed, axis=[1, 2], keepdims=True)
    exposed = (exposed - middle) * _each(1.0 + CONTRAST * contrast) + middle + _each(BRIGHTNESS * brightness)
    exposed += tf.random.stateless_normal(tf.shape(exposed), seeds[1]) * _each(NOISE * tf.nn.relu(noise))
    return _cover(tf.clip_by_value(exposed, 0.0, 1.0), across, down, strength * (extent + 1.0) / 2.0)


def views(images: tf.Tensor) -> tf.Tensor:
    """Images slightly rotated, scaled and mirrored, image by image: float32 [n, s, s] -> [n * len(VIEWS), s, s].

    The mean prediction over the views has less variance than that of a single view (test-time augmentation, as with
    the crops and mirror images of Krizhevsky et al., "ImageNet classification with deep convolutional neural networks",
    NeurIPS 2012).
    """
    each = tf.tile(tf.constant(VIEWS, tf.float32), (tf.shape(images)[0], 1))
    angles, scales, mirrors = tf.unstack(each, axis=1)
    zeros = tf.zeros_like(angles)
    repeated = tf.repeat(images, len(VIEWS), axis=0)
    return _affine(repeated, angles, scales, scales, zeros, zeros, zeros, mirrors)


def mix(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, strength: float = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend each image, and its target, with another one of the batch.

    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, https://arxiv.org/abs/1710.09412; one weight
    for the batch, uniform between 0 and MIX.

    Args:
        images: float32 [n, s, s]; targets: float32 [n, classes]; seed: int [2].
        strength: 0 to 1, a factor of MIX.

    Returns:
        The same shapes.
    """
    seeds = tf.unstack(tf.random.split(seed, 2))
    weight = tf.random.stateless_uniform([], seeds[0], 0.0, strength * MIX)
    partner = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(images)[0]), seeds[1])
    return (
        (1.0 - weight) * images + weight * tf.gather(images, partner),
        (1.0 - weight) * targets + weight * tf.gather(targets, partner),
    )


def _each(values: tf.Tensor) -> tf.Tensor:
    """One value for each image, with a shape that broadcasts over its pixels."""
    return values[:, tf.newaxis, tf.newaxis]


def _affine(
    images: tf.Tensor,
    angle: tf.Tensor,
    scale_x: tf.Tensor,
    scale_y: tf.Tensor,
    shear: tf.Tensor,
    shift_x: tf.Tensor,
    shift_y: tf.Tensor,
    mirror: tf.Tensor,
) -> tf.Tensor:
    """Each image rotated about its center, sheared, scaled, shifted, and mirrored left to right at -1; bilinear."""
    size = tf.shape(images)[1]
    side = tf.cast(size, tf.float32)
    middle = (side - 1.0) / 2.0
    # The rows map a pixel of the output to its place in the input.
    cosine, sine = tf.cos(angle), tf.sin(angle)
    a0, a1 = cosine * mirror / scale_x, (cosine * shear - sine) / scale_y
    b0, b1 = sine * mirror / scale_x, (sine * shear + cosine) / scale_y
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


def _cover(images: tf.Tensor, across: tf.Tensor, down: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Each image with a square in its mean gray, centred at (across, down) in [-1, 1]; `extent` is 0 to 1."""
    side = tf.cast(tf.shape(images)[1], tf.float32)
    place = tf.range(side)
    reach = COVER * side / 2.0 * extent
    inside = [tf.abs(place - (at[:, tf.newaxis] + 1.0) / 2.0 * side) < reach[:, tf.newaxis] for at in (down, across)]
    square = inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis, :]
    return tf.where(square, tf.reduce_mean(images, axis=[1, 2], keepdims=True), images)
