"""The DCGAN's two networks, one definition for 32, 64, 128 and 256 pixels, and the generator as a file.

Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import keras
import numpy as np
from keras import layers

from jobs.common import shapes, tensors
from jobs.common.convolution import Conv2D, Conv2DTranspose
from jobs.common.errors import MachineError, UserError
from jobs.common.normalization import FusedBatchNormalization
from jobs.common.seeds import derive
from jobs.gan import IMAGE_SIZES
from jobs.gan.anchors import Anchors
from jobs.gan.dropout import Dropout

GENERATOR = "generator.safetensors"  # file of a trained generator, an output of train-gan
SMALLEST = 4
KERNEL = 4
SLOPE = 0.2
# Keras' default of 0.99 would let the statistics lag hundreds of steps behind the weights.
BATCH_NORM_MOMENTUM = 0.9
DROPOUT = 0.3  # as in https://www.tensorflow.org/tutorials/generative/dcgan
EMBEDDING = 32
STYLE_DEVIATION = 0.05  # of the kernels that make gains and biases of a style
PATCHES = 8  # per side: parts of an image with a logit of their own


@dataclass(frozen=True)
class GanConfig:
    """The configuration of the networks; stored with the generator's weights.

    `image_size` is one of IMAGE_SIZES (pixels), `width` the channels next to the image, `latent` the length of the
    latent vector, `labels` the classes: one, or several for a class-conditional GAN. `anchors` is the number of
    training images that have their own latents, or 0.
    """

    image_size: int
    width: int
    latent: int
    labels: tuple[str, ...]
    anchors: int = 0

    def __post_init__(self) -> None:
        if self.image_size not in IMAGE_SIZES:
            raise UserError(f"a GAN supports images of {IMAGE_SIZES} pixels, not of {self.image_size}")

    @property
    def conditional(self) -> bool:
        """Whether the class is an input of both networks."""
        return len(self.labels) > 1

    def channels(self, resolution: int) -> int:
        """Return the channels of the feature map of `resolution` pixels: doubled as it halves, up to 8 x width."""
        return min(8, self.image_size // 2 // resolution) * self.width


def build_generator(config: GanConfig, *, seed: int = 0, precision: str = "float32") -> keras.Model:
    """Return a generator of [latents, labels]: float32 [n, latent], standard normal, and int32 [n], class index.

    The outputs are images, float32 [n, size, size, 1] in [-1, 1]. `labels` is used only by a conditional GAN. With
    anchors, the latents select a mixture of anchors (see Anchors). Its style sets the gains and biases of all feature
    maps except the first, and a last convolution of 3 x 3 removes the checkerboard pattern of transposed convolutions.
    `precision` is that of the arithmetic; the weights are float32.
    """
    layer = _layer_maker(precision)

    def normal(name: str, deviation: float = 0.02) -> keras.initializers.Initializer:
        return keras.initializers.RandomNormal(stddev=deviation, seed=derive(seed, "generator", name))

    def styled(x, style, name: str):
        channels = x.shape[-1]
        for kind, start, combine in (("gain", "ones", layers.Multiply), ("bias", "zeros", layers.Add)):
            kernel = normal(f"{kind}-{name}", STYLE_DEVIATION)
            dense = layer(layers.Dense, f"{kind}-{name}", channels, kernel_initializer=kernel, bias_initializer=start)
            values = layer(layers.Reshape, f"{kind}s-{name}", (1, 1, channels))(dense(style))
            x = layer(combine, f"{kind}ed-{name}")([x, values])
        return x

    def activate(x, name: str, style=None):
        own = style is None
        x = layer(FusedBatchNormalization, f"norm-{name}", momentum=BATCH_NORM_MOMENTUM, center=own, scale=own)(x)
        return layer(layers.LeakyReLU, f"activation-{name}", SLOPE)(x if own else styled(x, style, name))

    latents = keras.Input((config.latent,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    layout, style = latents, None
    if config.anchors:
        mixtures = Anchors(config.anchors, derive(seed, "generator", "anchors"), name="anchors")([latents, labels])
        layout, style = mixtures[:, 0], mixtures[:, 1]
    if config.conditional:
        embedding = layer(
            layers.Embedding, "embedding", len(config.labels), EMBEDDING, embeddings_initializer=normal("labels")
        )(labels)
        layout = layer(layers.Concatenate, "condition")([layout, embedding])
        if style is not None:
            style = layer(layers.Concatenate, "style-condition")([style, embedding])
    resolution = SMALLEST
    shape = (resolution, resolution, config.channels(resolution))
    x = layer(layers.Dense, "project", math.prod(shape), use_bias=False, kernel_initializer=normal("project"))(layout)
    x = activate(layer(layers.Reshape, "reshape", shape)(x), str(resolution))
    drawn = config.width if config.anchors else 1
    while resolution < config.image_size:
        resolution *= 2
        last = resolution == config.image_size
        x = layer(
            Conv2DTranspose,
            f"up-{resolution}",
            drawn if last else config.channels(resolution),
            KERNEL,
            strides=2,
            padding="same",
            use_bias=last,
            kernel_initializer=normal(str(resolution)),
        )(x)
        if not last:
            x = activate(x, str(resolution), style)
    if config.anchors:
        x = layer(layers.LeakyReLU, "activation-last", SLOPE)(x)
        initializer = keras.initializers.HeNormal(seed=derive(seed, "generator", "last"))
        x = layer(Conv2D, "last", 1, 3, padding="same", kernel_initializer=initializer)(x)
    images = layer(layers.Activation, "images", "tanh", dtype="float32")(x)
    return keras.Model([latents, labels], images, name="generator")


def build_discriminator(
    config: GanConfig, *, patches: bool, dropout: bool = False, seed: int = 0, precision: str = "float32"
) -> keras.Model:
    """Return a discriminator of [images, labels]: float32 [n, size, size, 1] and int32 [n].

    The outputs are logits, float32, above 0 for images judged real. With `patches` they are [n, PATCHES, PATCHES], each
    for one part of the image (Isola et al., "Image-to-image translation with conditional adversarial networks",
    CVPR 2017, https://arxiv.org/abs/1611.07004), else [n, 1, 1]. With `dropout` (plain DCGAN) dropout follows every
    activation, and a third input, int32 [2], is the seed of the masks. A conditional discriminator adds the inner
    product of features and class embedding (Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018,
    https://arxiv.org/abs/1802.05637).
    """
    layer = _layer_maker(precision)

    def initializer(name: str) -> keras.initializers.Initializer:
        # Nothing normalizes the feature maps, so that kernels as small as the paper's would make them vanish.
        return keras.initializers.HeNormal(seed=derive(seed, "discriminator", name))

    def convolve(x, name: str, *arguments, seed_of: str = "", **options):
        kernel = initializer(seed_of or name)
        return layer(Conv2D, name, *arguments, kernel_initializer=kernel, **options)(x)

    images = keras.Input((config.image_size, config.image_size, 1), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    masks = keras.Input(batch_shape=(2,), dtype="int32", name="masks")

    def activate(x, name: str):
        x = layer(layers.LeakyReLU, f"activation-{name}", SLOPE)(x)
        return layer(Dropout, f"dropout-{name}", DROPOUT)(x, masks) if dropout else x

    x = images
    resolution = config.image_size
    while resolution > (PATCHES if patches else SMALLEST):
        resolution //= 2
        name = str(resolution)
        x = convolve(x, f"down-{name}", config.channels(resolution), KERNEL, strides=2, padding="same", seed_of=name)
        x = activate(x, name)
    channels = config.channels(resolution)
    if patches:
        x = activate(convolve(x, "patches", channels, 3, padding="same"), "patches")
    score = convolve(x, "score", 1, 1 if patches else SMALLEST)
    logits = layer(layers.Reshape, "logits", score.shape[1:3], dtype="float32")(score)
    if config.conditional:
        normal = keras.initializers.RandomNormal(stddev=0.02, seed=derive(seed, "discriminator", "labels"))
        embedding = layers.Embedding(
            len(config.labels), channels, embeddings_initializer=normal, dtype="float32", name="embedding"
        )
        if not patches:
            x = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name="pool")(x)
        match = layers.Dot(axes=(3, 1), dtype="float32", name="match")([x, embedding(labels)])
        logits = layers.Add(dtype="float32", name="conditional-logits")([logits, match])
    return keras.Model([images, labels, masks] if dropout else [images, labels], logits, name="discriminator")


def sample(generator: keras.Model, latents: np.ndarray, labels: int | np.ndarray = 0) -> np.ndarray:
    """Return images float32 [n, size, size, 1] in [-1, 1] of `latents` float32 [n, latent], in inference mode.

    `labels` is one class index for all or int [n]; it is used only by a conditional generator.
    """
    labels = np.broadcast_to(np.asarray(labels, np.int32), len(latents))
    return np.asarray(generator([latents.astype(np.float32), labels], training=False))


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Return images in [-1, 1] as uint8 of the same shape: -1 is 0, 1 is 255."""
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def save_generator(generator: keras.Model, config: GanConfig) -> bytes:
    """Return the generator as safetensors: its weights and moving statistics, and its configuration."""
    meta = {name: json.dumps(value) for name, value in asdict(config).items()} | {"kind": "generator"}
    return tensors.to_bytes(tensors.model_arrays(generator), meta)


def load_generator(data: bytes) -> tuple[keras.Model, GanConfig]:
    """Return the generator and its configuration from the bytes of `save_generator`.

    Raises MachineError if the file is damaged, UserError if it is not a generator.
    """
    arrays, meta = tensors.from_bytes(data, "the generator")
    if meta.get("kind") != "generator":
        raise UserError(f"the file is not a generator: use {GENERATOR} of train-gan")
    try:
        stored = {field.name: json.loads(meta[field.name]) for field in fields(GanConfig)}
        config = GanConfig(**shapes.checked(shapes.Generator, stored) | {"labels": tuple(stored["labels"])})
    except (KeyError, ValueError, RecursionError) as error:
        raise MachineError(f"the generator is damaged ({error}): delete it and run again") from error
    generator = build_generator(config)
    tensors.load_model_arrays(generator, arrays)
    return generator, config


def _layer_maker(precision: str) -> Callable[..., keras.layers.Layer]:
    """Return a function that makes a layer from its class, name and arguments, for arithmetic of this precision."""
    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")

    def layer(kind: type[keras.layers.Layer], name: str, *arguments: Any, **options: Any) -> keras.layers.Layer:
        return kind(*arguments, **{"dtype": policy, "name": name} | options)

    return layer
