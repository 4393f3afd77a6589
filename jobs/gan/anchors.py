"""What a generator is given to draw: mixtures of the training images' latents, of which each has two.

The layout is what the generator enlarges; the style sets the gains and biases of the feature maps on the way (Karras,
Laine & Aila, "A style-based generator architecture for generative adversarial networks", CVPR 2019,
https://arxiv.org/abs/1812.04948, whose mixing of styles this is).
"""

import keras
import numpy as np
import tensorflow as tf

from jobs.common.seeds import derive

# Layouts are blends of this many, and a score weighs exp(SHARPNESS x score). Fewer or sharper, images come nearer to
# single training images; the other way they come to resemble their mean. Measured in docs/quality.md.
BLENDED = 2
SHARPNESS = 1.0
SPREAD = 0.1  # share of the random vector that is added to both


class Anchors(keras.layers.Layer):
    """Mixtures of anchors, the latents that each draw one training image: float32 [n, 2, latent] of [latents, labels].

    `latents` is float32 [n, latent], standard normal, `labels` int32 [n]. Random projections of a latent give each
    anchor of its class two scores. The softmax of the BLENDED highest of the first kind weighs the anchors' layouts;
    the style is that of the anchor with the highest score of the second kind. A part of the latent is added to both.
    Layouts and styles lie on the sphere of radius sqrt(latent), where almost all of a normal distribution is. So no
    training image is lost, and none is drawn again.

    Bojanowski et al., "Optimizing the latent space of generative networks", ICML 2018,
    https://arxiv.org/abs/1707.05776 (latents learned by reconstruction).
    """

    def __init__(self, count: int, seed: int, **options) -> None:
        super().__init__(**{"dtype": "float32"} | options)
        self.count = count
        self.seed = seed

    def build(self, input_shape) -> None:
        """Create the anchors (random until they are learned), their classes and the projection."""
        latent = input_shape[0][-1]
        for name, shape in (("anchors", (self.count, 2, latent)), ("projection", (latent, 2 * self.count))):
            initializer = keras.initializers.RandomNormal(stddev=1.0, seed=derive(self.seed, name))
            # Not for the optimizer of the generator: training moves them by a rule of their own.
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
        """Return what it takes to make the layer again."""
        return super().get_config() | {"count": self.count, "seed": self.seed}


def sphere(latents: tf.Tensor) -> tf.Tensor:
    """Return latents [..., d], each brought to the length sqrt(d)."""
    latents = tf.convert_to_tensor(latents)
    return tf.math.l2_normalize(latents, axis=-1) * latents.shape[-1] ** 0.5


def decoder(generator: keras.Model) -> keras.Model:
    """Return the part of a generator with anchors that draws: of [mixtures, labels], sharing all weights."""
    return keras.Model([generator.get_layer("anchors").output, generator.inputs[1]], generator.outputs[0])
