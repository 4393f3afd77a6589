"""Keras' convolutions, with the gradients of kernels as products of matrices where that is faster.

With bfloat16 on a processor, oneDNN takes 2 to 15 times as long for the gradient of a kernel of 1 x 1, or of one with
many features and few pixels, as MatMul takes for the same product (docs/speed.md).
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# The product needs a copy of each pixel for each place of the kernel: this pays with 1/FEW as many features as pixels.
FEW = 4
Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@keras.saving.register_keras_serializable("mrigan")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer: the same variables, the same output, and the same gradients except for rounding."""

    def convolution_op(self, inputs: tf.Tensor, kernel: keras.Variable) -> tf.Tensor:
        """Return the convolution of `inputs`, float [n, height, width, channels], without bias."""
        how: dict[str, Any] = {"strides": [1, *self.strides, 1], "padding": self.padding.upper()}

        @tf.custom_gradient
        def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
            def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                sizes = tf.shape(images)
                back = tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=upstream, **how)
                return back, _of_kernel(images, upstream, kernel.shape, **how)

            return tf.raw_ops.Conv2D(input=images, filter=kernel, **how), gradients

        return convolve(inputs, tf.convert_to_tensor(kernel))


@keras.saving.register_keras_serializable("mrigan")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras' layer with padding "same": the same variables and output, the same gradients except for rounding."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the transposed convolution of `inputs`, float [n, height, width, channels], with the bias if any."""
        how: dict[str, Any] = {"strides": [1, *self.strides, 1], "padding": "SAME"}
        height, width = (side * stride for side, stride in zip(inputs.shape[1:3], self.strides, strict=True))
        sizes = tf.stack([tf.shape(inputs)[0], height, width, self.filters])

        @tf.custom_gradient
        def convolve(features: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
            def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                back = tf.raw_ops.Conv2D(input=upstream, filter=kernel, **how)
                return back, _of_kernel(upstream, features, kernel.shape, **how)

            drawn = tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=features, **how)
            return drawn, gradients

        outputs = convolve(inputs, tf.convert_to_tensor(self.kernel))
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias)) if self.use_bias else outputs


def _of_kernel(
    images: tf.Tensor, features: tf.Tensor, shape: tf.TensorShape, strides: list[int], padding: str
) -> tf.Tensor:
    """Return the gradient of a kernel [k, k, channels, features] that maps `images` to `features`."""
    *patch, channels, several = shape
    pointwise = patch == [1, 1] and strides == [1, 1, 1, 1]
    pixels = features.shape[:3].num_elements()
    few = pixels is not None and pixels <= FEW * several
    if images.dtype != tf.bfloat16 or not (pointwise or few) or tf.config.list_physical_devices("GPU"):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=images, filter_sizes=shape.as_list(), out_backprop=features, strides=strides, padding=padding
        )
    if not pointwise:
        images = tf.image.extract_patches(images, [1, *patch, 1], strides, [1, 1, 1, 1], padding)
    patches = tf.reshape(images, [-1, math.prod(patch) * channels])
    product = tf.matmul(patches, tf.reshape(features, [-1, several]), transpose_a=True)
    return tf.reshape(product, shape)
