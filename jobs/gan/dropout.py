"""Dropout with masks from a seed that is an argument of every call, so that there is no random state between steps.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
https://jmlr.org/papers/v15/srivastava14a.html
"""

import keras
import tensorflow as tf

from jobs.common.seeds import derive


class Dropout(keras.layers.Layer):
    """Sets a share `rate` of the features to zero in training and scales up the others; does nothing in inference.

    Layers of one network share a seed; the mask also depends on the layer's name.
    """

    def __init__(self, rate: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, features, seed, training=False):
        """Return `features`, float [n, ...], of the same shape; `seed`, int32 [2], decides the mask."""
        if not training:
            return features
        count, own = tf.size(features), tf.random.fold_in(seed, derive(0, self.name))
        # Two draws from each random number of 32 bits, which take most of the time.
        pairs = tf.random.stateless_uniform([(count + 1) // 2], own, minval=None, maxval=None, dtype=tf.int32)
        draws = tf.reshape(tf.reshape(tf.bitcast(pairs, tf.uint16), [-1])[:count], tf.shape(features))
        return tf.where(draws < round(self.rate * 2**16), tf.zeros_like(features), features / (1 - self.rate))

    def compute_output_shape(self, features_shape, seed_shape):
        """Return the shape of the features."""
        return features_shape
