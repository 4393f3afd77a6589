"""The input of a generator: mixtures of the latents of training images. Each training image has two latents.

The layout is the input that the generator upsamples. The style sets the gains and biases of the feature maps (Karras,
Laine & Aila, "A style-based generator architecture for generative adversarial networks", CVPR 2019,
https://arxiv.org/abs/1812.04948, whose mixing of styles this is).
"""

import keras
import numpy as np
import tensorflow as tf

from jobs.common.seeds import derive

# Number of layouts in a blend; the weight of a layout is exp(SHARPNESS x score). With a smaller number or a higher
# SHARPNESS, generated images resemble single training images more; in the opposite case, they resemble the mean of the
# training images. See docs/quality.md for measurements.
BLENDED = 2
SHARPNESS = 1.0
SPREAD = 0.1  # share of the random vector that is added to layout and style


class Anchors(keras.layers.Layer):
    """Mixtures of anchors, the latents that each draw one training image: float32 [n, 2, latent] of [latents, labels].

    `latents` is float32 [n, latent], standard normal, `labels` int32 [n]. Random projections of a latent give each
    anchor of its class two scores. The weights of the layouts are the softmax of the BLENDED highest first scores; the
    style is that of the anchor with the highest second score. A part of the latent is added to both. Layouts and styles
    lie on the sphere of radius sqrt(latent), near almost all samples of a normal distribution. In this way every
    training image contributes, and no training image is reproduced.

    Bojanowski et al., "Optimizing the latent space of generative networks", ICML 2018,
    https://arxiv.org/abs/1707.05776 (latents learned by reconstruction).
    """

    def __init__(self, count: int, seed: int, **options) -> None:
        super().__init__(**{"dtype": "float32"} | options)
        self.count = count
        self.seed = seed

    def build(self, input_shape) -> None:
        """Create the anchors (initially random), their classes and the projection."""
        latent = input_shape[0][-1]
        for name, shape in (("anchors", (self.count, 2, latent)), ("projection", (latent, 2 * self.count))):
            initializer = keras.initializers.RandomNormal(stddev=1.0, seed=derive(self.seed, name))
            # Not trained by the optimizer of the generator: the anchors have a separate update rule.
            weight = self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name)
            setattr(self, name, weight)
        self.classes = self.add_weight(shape=(self.count,), initializer="zeros", trainable=False, name="classes")

    def call(self, inputs):
        """Mix the anchors of each latent's class."""
        latents, labels = inputs
        random = sphere(latents)
        scores = tf.matmul(random, self.projection) / self.projection.shape[0] ** 0.5
        own = tf.cast(labels, tf.float32)[:, None] == self.classes[None]
        for_layout, for_style = (tf.where(own, kind, -np.inf) for kind in tf.split(scores, 2, axis=1))
        least = tf.math.top_k(for_layout, min(BLENDED, self.count)).values[:, -1:]
        weights = tf.nn.softmax(SHARPNESS * tf.where(for_layout >= least, for_layout, -np.inf))
        chosen = tf.one_hot(tf.argmax(for_style, axis=1), self.count)
        anchors = sphere(self.anchors)
        mixtures = tf.stack([weights @ anchors[:, 0], chosen @ anchors[:, 1]], axis=1)
        return sphere(mixtures + SPREAD * random[:, None])

    def compute_output_shape(self, input_shape):
        """Return the shape of the mixtures."""
        return (input_shape[0][0], 2, input_shape[0][1])

    def get_config(self):
        """Return the configuration of the layer."""
        return super().get_config() | {"count": self.count, "seed": self.seed}


def sphere(latents: tf.Tensor) -> tf.Tensor:
    """Return latents [..., d], each scaled to the length sqrt(d)."""
    latents = tf.convert_to_tensor(latents)
    return tf.math.l2_normalize(latents, axis=-1) * latents.shape[-1] ** 0.5


def decoder(generator: keras.Model) -> keras.Model:
    """Return the part of a generator with anchors after the mixing: a model of [mixtures, labels], weights shared."""
    return keras.Model([generator.get_layer("anchors").output, generator.inputs[1]], generator.outputs[0])
