"""Batch normalization by TensorFlow's fused kernel."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mrigan")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer for images [n, height, width, channels], computed by one operation.

    Keras composes it of some fifteen operations forward and more backward, which takes longer to trace and to run. The
    variables and the results are those of Keras, except for rounding.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        """Return `inputs` normalized: by the batch's statistics in training, otherwise by the moving ones."""
        learning = bool(training) and self.trainable
        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.ones([channels]) if self.gamma is None else tf.convert_to_tensor(self.gamma),
            offset=tf.zeros([channels]) if self.beta is None else tf.convert_to_tensor(self.beta),
            mean=[] if learning else tf.convert_to_tensor(self.moving_mean),
            variance=[] if learning else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            # The kernel divides by one less than the number of values, Keras by their number.
            count = tf.cast(tf.size(inputs) // channels, tf.float32)
            biased = variance * ((count - 1.0) / count)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, biased)):
                moving.assign(moving.value * self.momentum + batch * (1.0 - self.momentum))
        return outputs
