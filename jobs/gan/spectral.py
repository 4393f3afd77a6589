"""Spectral normalization: convolutions whose kernels have norm one.

Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.
https://arxiv.org/abs/1802.05957
"""

import keras
import numpy as np
import tensorflow as tf


class SpectralConv2D(keras.layers.Conv2D):
    """A convolution whose kernel, as a matrix [height x width x in, out], has one as largest singular value.

    `right` approximates the singular vector on the side of the outputs; gradients flow through the singular value but
    not through its vectors.
    """

    def build(self, input_shape) -> None:
        """Create the kernel and the vector of the power iteration."""
        super().build(input_shape)
        # Any start that is not orthogonal to the singular vector will do.
        self.right = self.add_weight(
            shape=(self.filters, 1), initializer="ones", trainable=False, autocast=False, name="right"
        )
        self.right.assign(self.right / np.sqrt(self.filters))

    def convolution_op(self, inputs, kernel):
        """Convolve with the normalized kernel."""
        matrix = tf.cast(tf.reshape(kernel, (-1, self.filters)), tf.float32)
        product = tf.matmul(matrix, self.right)
        left = tf.stop_gradient(tf.math.l2_normalize(product))
        norm = tf.reduce_sum(left * product)
        return super().convolution_op(inputs, kernel * tf.cast(1 / norm, kernel.dtype))

    def iterate(self) -> None:
        """Bring `right` nearer to the singular vector by one power iteration."""
        matrix = tf.reshape(self.kernel, (-1, self.filters))
        left = tf.math.l2_normalize(tf.matmul(matrix, self.right))
        self.right.assign(tf.math.l2_normalize(tf.matmul(matrix, left, transpose_a=True)))


def power_iteration(discriminator: keras.Model) -> None:
    """Update the singular vectors of every spectrally normalized layer: once per training step."""
    for layer in discriminator.layers:
        if isinstance(layer, SpectralConv2D):
            layer.iterate()
