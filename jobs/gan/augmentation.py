"""Differentiable augmentation of what the discriminator sees, real and generated alike.

Zhao et al., "Differentiable augmentation for data-efficient GAN training", NeurIPS 2020.
https://arxiv.org/abs/2006.10738: of its policies brightness and translation, and mirroring, for a head seen from above
or from the front has no side. Stronger changes (contrast, cutout) leave so little of a small image that the
discriminator takes the mean of all heads for real.
"""

import tensorflow as tf

BRIGHTNESS = 0.2
TRANSLATION = 1 / 8
BACKGROUND = -1.0


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return `images` (float32 [n, size, size, 1] in [-1, 1]), each changed in its own way.

    `seed` (int32 [2]) alone decides how. Gradients flow through.
    """
    seeds = tf.unstack(tf.random.split(seed, 3))
    return _mirror_and_translate(_brightness(images, seeds[0]), seeds[1], seeds[2])


def _brightness(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shift = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed, -BRIGHTNESS, BRIGHTNESS)
    return images + shift


def _mirror_and_translate(images: tf.Tensor, mirror_seed: tf.Tensor, shift_seed: tf.Tensor) -> tf.Tensor:
    """Mirror half of the images left to right and shift all, background coming in.

    Each row and column of the result is picked by a one-hot vector: two matrix products, whose gradient is
    deterministic on every device (that of a gather is a scatter).
    """
    count, size = tf.shape(images)[0], images.shape[1]
    reach = round(size * TRANSLATION)
    shifts = tf.random.stateless_uniform((count, 2, 1), shift_seed, -reach, reach + 1, tf.int32)
    sources = tf.range(size) + shifts
    mirrored = tf.random.stateless_uniform((count, 1), mirror_seed) < 0.5
    rows = tf.one_hot(sources[:, 0], size)
    columns = tf.one_hot(tf.where(mirrored, size - 1 - sources[:, 1], sources[:, 1]), size)
    # One-hot of an index outside is a row of zeros: the background must be zero while the product is taken.
    lifted = images[..., 0] - BACKGROUND
    return (rows @ lifted @ tf.linalg.matrix_transpose(columns))[..., None] + BACKGROUND
