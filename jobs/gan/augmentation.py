"""Differentiable augmentation of the discriminator's input, for real and generated images.

Zhao et al., "Differentiable augmentation for data-efficient GAN training", NeurIPS 2020.
https://arxiv.org/abs/2006.10738: the policies brightness and translation, and also mirroring, because axial and coronal
images of a head are nearly symmetric. Stronger changes (contrast, cutout) remove so much of a small image that the
discriminator classifies the mean of all heads as real.
"""

import tensorflow as tf

BRIGHTNESS_SHIFT = 0.2
TRANSLATION = 1 / 8
BACKGROUND = -1.0


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return `images` (float32 [n, size, size, 1] in [-1, 1]), each changed in its own way.

    The changes depend only on `seed` (int32 [2]). The operation is differentiable.
    """
    seeds = tf.unstack(tf.random.split(seed, 3))
    shape = (tf.shape(images)[0], 1, 1, 1)
    shift = tf.random.stateless_uniform(shape, seeds[0], -BRIGHTNESS_SHIFT, BRIGHTNESS_SHIFT)
    return _mirror_and_translate(images + shift, seeds[1], seeds[2])


def _mirror_and_translate(images: tf.Tensor, mirror_seed: tf.Tensor, shift_seed: tf.Tensor) -> tf.Tensor:
    """Mirror half of the images left to right and shift all images, with background beyond the border.

    Each row and column of the result is selected by a one-hot vector. The gradient of these two matrix products is
    deterministic on every device, unlike that of a gather (a scatter).
    """
    count, size = tf.shape(images)[0], images.shape[1]
    reach = round(size * TRANSLATION)
    shifts = tf.random.stateless_uniform((count, 2, 1), shift_seed, -reach, reach + 1, tf.int32)
    sources = tf.range(size) + shifts
    mirrored = tf.random.stateless_uniform((count, 1), mirror_seed) < 0.5
    rows = tf.one_hot(sources[:, 0], size)
    columns = tf.one_hot(tf.where(mirrored, size - 1 - sources[:, 1], sources[:, 1]), size)
    # The one-hot vector of an index outside the image is zero, so that the background must be zero in the product.
    lifted = images[..., 0] - BACKGROUND
    return (rows @ lifted @ tf.linalg.matrix_transpose(columns))[..., None] + BACKGROUND
