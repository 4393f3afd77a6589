"""The DCGAN's two networks, one definition for 32, 64, 128 and 256 pixels, and the generator as a file.

Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import json
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from jobs.common import tensors
from jobs.common.errors import UserError
from jobs.common.seeds import derive
from jobs.gan import IMAGE_SIZES

SMALLEST = 4
KERNEL = 4
SLOPE = 0.2
DROPOUT = 0.2
# Keras' default of 0.99 would let the statistics lag hundreds of steps behind the weights.
BATCH_NORM_MOMENTUM = 0.9
EMBEDDING = 32
# Blends of anchors: of how many, how much a score weighs, and the share of the random vector that is added. Fewer,
# sharper or narrower, images come nearer to single training images; the other way they come to resemble their mean.
# Measured in docs/quality.md.
BLENDED = 3
SHARPNESS = 0.5
SPREAD = 0.3


@dataclass(frozen=True)
class GanConfig:
    """What shapes the networks; stored beside the generator's weights.

    `image_size` is one of IMAGE_SIZES (pixels), `width` the channels next to the image, `latent` the length of the
    latent vector, `labels` the classes drawn: one, or several for a class-conditional GAN. `anchors` is the number of
    training images that have a latent of their own, or 0.
    """

    image_size: int
    width: int
    latent: int
    labels: tuple[str, ...]
    anchors: int = 0

    def __post_init__(self) -> None:
        if self.image_size not in IMAGE_SIZES:
            raise UserError(f"a GAN draws images of {IMAGE_SIZES} pixels, not of {self.image_size}")

    @property
    def conditional(self) -> bool:
        """Whether the class is an input of both networks."""
        return len(self.labels) > 1

    def channels(self, resolution: int) -> int:
        """Return the channels of the feature map of `resolution` pixels: doubled as it halves, up to 8 x width."""
        return min(8, self.image_size // 2 // resolution) * self.width


def build_generator(config: GanConfig, *, seed: int = 0, precision: str = "float32") -> keras.Model:
    """Return a generator of [latents, labels]: float32 [n, latent] standard normal and int32 [n] class index.

    It gives images, float32 [n, size, size, 1] in [-1, 1]. `labels` changes nothing unless the GAN is conditional.
    With anchors the latents are first blended (see Anchors). `precision` is that of the arithmetic; the weights are
    float32.
    """
    policy = _policy(precision)

    def normal(name: str) -> keras.initializers.Initializer:
        return keras.initializers.RandomNormal(stddev=0.02, seed=derive(seed, "generator", name))

    def activate(x, name: str):
        x = keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, dtype=policy, name=f"norm-{name}")(x)
        return keras.layers.LeakyReLU(SLOPE, dtype=policy, name=f"activation-{name}")(x)

    latents = keras.Input((config.latent,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    x = latents
    if config.anchors:
        x = Anchors(config.anchors, derive(seed, "generator", "anchors"), name="anchors")([latents, labels])
    if config.conditional:
        embedding = keras.layers.Embedding(
            len(config.labels), EMBEDDING, embeddings_initializer=normal("labels"), dtype=policy, name="embedding"
        )
        x = keras.layers.Concatenate(dtype=policy, name="condition")([x, embedding(labels)])
    resolution = SMALLEST
    channels = config.channels(resolution)
    x = keras.layers.Dense(
        resolution * resolution * channels,
        use_bias=False,
        kernel_initializer=normal("project"),
        dtype=policy,
        name="project",
    )(x)
    x = keras.layers.Reshape((resolution, resolution, channels), dtype=policy, name="reshape")(x)
    x = activate(x, str(resolution))
    while resolution < config.image_size:
        resolution *= 2
        last = resolution == config.image_size
        x = keras.layers.Conv2DTranspose(
            1 if last else config.channels(resolution),
            KERNEL,
            strides=2,
            padding="same",
            use_bias=last,
            kernel_initializer=normal(str(resolution)),
            dtype=policy,
            name=f"up-{resolution}",
        )(x)
        if not last:
            x = activate(x, str(resolution))
    images = keras.layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model([latents, labels], images, name="generator")


def decoder(generator: keras.Model) -> keras.Model:
    """Return the part of a generator with anchors that draws blends: of [blends, labels], sharing all weights."""
    return keras.Model([generator.get_layer("anchors").output, generator.inputs[1]], generator.outputs[0])


class Anchors(keras.layers.Layer):
    """Blends of anchors, latents that each draw one training image: float32 [n, latent] of [latents, labels].

    A latent's scores, one for each anchor of its class, are random projections. The softmax of the BLENDED highest
    scores weighs their anchors, and a part of the latent is added. Anchors and blends lie on the sphere of radius
    sqrt(latent), where almost all of a normal distribution is. So what is drawn lies between training images, and none
    of them is lost.

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
        for name, shape in (("anchors", (self.count, latent)), ("projection", (latent, self.count))):
            initializer = keras.initializers.RandomNormal(stddev=1.0, seed=derive(self.seed, name))
            # Not for the optimizer of the generator: training moves them by a rule of their own.
            weight = self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name)
            setattr(self, name, weight)
        self.classes = self.add_weight(shape=(self.count,), initializer="zeros", trainable=False, name="classes")

    def call(self, inputs):
        """Blend the anchors of each latent's class."""
        latents, labels = inputs
        scores = SHARPNESS * tf.matmul(sphere(latents), self.projection) / self.projection.shape[0] ** 0.5
        own = tf.cast(labels, tf.float32)[:, None] == self.classes[None]
        scores = tf.where(own, scores, -np.inf)
        least = tf.math.top_k(scores, min(BLENDED, self.count)).values[:, -1:]
        weights = tf.nn.softmax(tf.where(scores >= least, scores, -np.inf))
        return sphere(tf.matmul(weights, sphere(self.anchors)) + SPREAD * sphere(latents))

    def compute_output_shape(self, input_shape):
        """Return the shape of the latents."""
        return input_shape[0]

    def get_config(self):
        """Return what it takes to make the layer again."""
        return super().get_config() | {"count": self.count, "seed": self.seed}


def sphere(latents: tf.Tensor) -> tf.Tensor:
    """Return latents [n, d], each brought to the length sqrt(d)."""
    latents = tf.convert_to_tensor(latents)
    return tf.math.l2_normalize(latents, axis=1) * latents.shape[1] ** 0.5


def build_discriminator(
    config: GanConfig,
    *,
    spectral_normalization: bool,
    batch_normalization: bool = False,
    seed: int = 0,
    precision: str = "float32",
) -> keras.Model:
    """Return a discriminator of [images, labels, seed]: float32 [n, size, size, 1], int32 [n] and int32 [2].

    It gives logits, float32 [n]: above 0 for an image taken as real. `seed` alone decides what dropout drops.
    With `spectral_normalization` its kernels have norm one, and `power_iteration` keeps the norms current. With
    `batch_normalization` batch norm follows every convolution but the first and the last (plain DCGAN). A conditional
    one adds the inner product of features and class embedding (Miyato & Koyama, "cGANs
    with projection discriminator", ICLR 2018, https://arxiv.org/abs/1802.05637).
    """
    policy = _policy(precision)
    convolution = SpectralConv2D if spectral_normalization else keras.layers.Conv2D

    def normal(name: str) -> keras.initializers.Initializer:
        # Where nothing normalizes the feature maps, kernels as small as the paper's would let them fade away.
        if not batch_normalization and not spectral_normalization and name != "labels":
            return keras.initializers.HeNormal(seed=derive(seed, "discriminator", name))
        return keras.initializers.RandomNormal(stddev=0.02, seed=derive(seed, "discriminator", name))

    images = keras.Input((config.image_size, config.image_size, 1), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    dropout_seed = keras.Input(batch_shape=(2,), dtype="int32", name="seed")
    x = images
    resolution = config.image_size
    while resolution > SMALLEST:
        resolution //= 2
        first = resolution == config.image_size // 2
        batch_norm = not first and batch_normalization
        x = convolution(
            config.channels(resolution),
            KERNEL,
            strides=2,
            padding="same",
            use_bias=not batch_norm,
            kernel_initializer=normal(str(resolution)),
            dtype=policy,
            name=f"down-{resolution}",
        )(x)
        if batch_norm:
            x = keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, dtype=policy, name=f"norm-{resolution}")(
                x
            )
        x = keras.layers.LeakyReLU(SLOPE, dtype=policy, name=f"activation-{resolution}")(x)
        x = SeededDropout(DROPOUT, dtype=policy, name=f"dropout-{resolution}")([x, dropout_seed])
    score = convolution(1, SMALLEST, kernel_initializer=normal("score"), dtype=policy, name="score")(x)
    logits = keras.layers.Reshape((), dtype="float32", name="logits")(score)
    if config.conditional:
        embedding = keras.layers.Embedding(
            len(config.labels),
            config.channels(SMALLEST),
            embeddings_initializer=normal("labels"),
            dtype="float32",
            name="embedding",
        )
        pooled = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        match = keras.layers.Dot(axes=1, dtype="float32", name="match")([pooled, embedding(labels)])
        match = keras.layers.Reshape((), dtype="float32", name="match-logits")(match)
        logits = keras.layers.Add(dtype="float32", name="conditional-logits")([logits, match])
    return keras.Model([images, labels, dropout_seed], logits, name="discriminator")


class SpectralConv2D(keras.layers.Conv2D):
    """A convolution whose kernel, as a matrix [height x width x in, out], has one as largest singular value.

    Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.
    https://arxiv.org/abs/1802.05957. `right` approximates the singular vector on the side of the outputs; gradients
    flow through the singular value but not through its vectors.
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


class SeededDropout(keras.layers.Layer):
    """Dropout of [x, seed] whose mask follows from `seed` (int32 [2]) and the layer's name alone."""

    def __init__(self, rate: float, **options) -> None:
        super().__init__(**options)
        self.rate = rate
        self.salt = derive(0, self.name)

    def call(self, inputs, training: bool = False):
        """Drop each value with probability `rate` when training, and scale up the rest."""
        x, seed = inputs
        if not training:
            return x
        seed = tf.random.fold_in(seed, self.salt)
        kept = tf.random.stateless_uniform(tf.shape(x), seed) >= self.rate
        return tf.where(kept, x / tf.cast(1 - self.rate, x.dtype), tf.zeros((), x.dtype))

    def compute_output_shape(self, input_shape):
        """Return the shape of x."""
        return input_shape[0]


def sample(generator: keras.Model, latents: np.ndarray, labels: int | np.ndarray = 0) -> np.ndarray:
    """Return images float32 [n, size, size, 1] in [-1, 1] of `latents` float32 [n, latent], in inference mode.

    `labels` is one class index for all or int [n]; it changes nothing unless the generator is conditional.
    """
    labels = np.broadcast_to(np.asarray(labels, np.int32), len(latents))
    return np.asarray(generator([latents.astype(np.float32), labels], training=False))


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Return images in [-1, 1] as uint8 of the same shape: -1 is 0, 1 is 255."""
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def save_generator(generator: keras.Model, config: GanConfig) -> bytes:
    """Return the generator as safetensors: its weights and moving statistics, and what shapes it."""
    meta = {
        "kind": "generator",
        "image_size": str(config.image_size),
        "width": str(config.width),
        "latent": str(config.latent),
        "labels": json.dumps(config.labels),
        "anchors": str(config.anchors),
    }
    return tensors.to_bytes(tensors.model_arrays(generator), meta)


def load_generator(data: bytes, *, precision: str = "float32") -> tuple[keras.Model, GanConfig]:
    """Return the generator and its configuration from what `save_generator` gave.

    Raises MachineError if the file is damaged, UserError if it is no generator.
    """
    arrays, meta = tensors.from_bytes(data, "the generator")
    if meta.get("kind") != "generator":
        raise UserError("the file holds no generator: name the generator.safetensors that train-gan wrote")
    size, width, latent, anchors = (int(meta[name]) for name in ("image_size", "width", "latent", "anchors"))
    config = GanConfig(size, width, latent, tuple(json.loads(meta["labels"])), anchors)
    generator = build_generator(config, precision=precision)
    tensors.load_model_arrays(generator, arrays)
    return generator, config


def _policy(precision: str) -> keras.DTypePolicy:
    return keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
