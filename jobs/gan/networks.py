"""The DCGAN's two networks, one definition for 32, 64, 128 and 256 pixels, and the generator as a file.

Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import json
from dataclasses import dataclass

import keras
import numpy as np

from jobs.common import tensors
from jobs.common.errors import UserError
from jobs.common.seeds import derive
from jobs.gan import IMAGE_SIZES
from jobs.gan.anchors import Anchors
from jobs.gan.dropout import Dropout

SMALLEST = 4
KERNEL = 4
SLOPE = 0.2
# Keras' default of 0.99 would let the statistics lag hundreds of steps behind the weights.
BATCH_NORM_MOMENTUM = 0.9
DROPOUT = 0.3  # as in https://www.tensorflow.org/tutorials/generative/dcgan
EMBEDDING = 32
STYLE_DEVIATION = 0.05  # of the kernels that make gains and biases of a style
PATCHES = 8  # per side: the discriminator has a logit for each part of an image


@dataclass(frozen=True)
class GanConfig:
    """The configuration of the networks; stored with the generator's weights.

    `image_size` is one of IMAGE_SIZES (pixels), `width` the channels next to the image, `latent` the length of the
    latent vector, `labels` the classes drawn: one, or several for a class-conditional GAN. `anchors` is the number of
    training images that have latents of their own, or 0.
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
    """Return a generator of [latents, labels]: float32 [n, latent] standard normal and int32 [n] class index.

    It gives images, float32 [n, size, size, 1] in [-1, 1]. `labels` changes nothing unless the GAN is conditional.
    With anchors the latents decide a mixture of them (see Anchors), whose style sets the gains and biases of all
    but the first feature maps, and a last convolution of 3 x 3 smooths out the lattice that enlargement leaves.
    `precision` is that of the arithmetic; the weights are float32.
    """
    policy = _policy(precision)

    def normal(name: str, deviation: float = 0.02) -> keras.initializers.Initializer:
        return keras.initializers.RandomNormal(stddev=deviation, seed=derive(seed, "generator", name))

    def styled(x, style, name: str):
        channels = x.shape[-1]
        for kind, start, combine in (("gain", "ones", keras.layers.Multiply), ("bias", "zeros", keras.layers.Add)):
            values = keras.layers.Dense(
                channels,
                kernel_initializer=normal(f"{kind}-{name}", STYLE_DEVIATION),
                bias_initializer=start,
                dtype=policy,
                name=f"{kind}-{name}",
            )(style)
            values = keras.layers.Reshape((1, 1, channels), dtype=policy, name=f"{kind}s-{name}")(values)
            x = combine(dtype=policy, name=f"{kind}ed-{name}")([x, values])
        return x

    def activate(x, name: str, style=None):
        x = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, center=style is None, scale=style is None, dtype=policy, name=f"norm-{name}"
        )(x)
        if style is not None:
            x = styled(x, style, name)
        return keras.layers.LeakyReLU(SLOPE, dtype=policy, name=f"activation-{name}")(x)

    latents = keras.Input((config.latent,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    layout, style = latents, None
    if config.anchors:
        mixtures = Anchors(config.anchors, derive(seed, "generator", "anchors"), name="anchors")([latents, labels])
        layout, style = mixtures[:, 0], mixtures[:, 1]
    if config.conditional:
        embedding = keras.layers.Embedding(
            len(config.labels), EMBEDDING, embeddings_initializer=normal("labels"), dtype=policy, name="embedding"
        )(labels)
        layout = keras.layers.Concatenate(dtype=policy, name="condition")([layout, embedding])
        if style is not None:
            style = keras.layers.Concatenate(dtype=policy, name="style-condition")([style, embedding])
    resolution = SMALLEST
    channels = config.channels(resolution)
    x = keras.layers.Dense(
        resolution * resolution * channels,
        use_bias=False,
        kernel_initializer=normal("project"),
        dtype=policy,
        name="project",
    )(layout)
    x = keras.layers.Reshape((resolution, resolution, channels), dtype=policy, name="reshape")(x)
    x = activate(x, str(resolution))
    drawn = config.width if config.anchors else 1
    while resolution < config.image_size:
        resolution *= 2
        last = resolution == config.image_size
        x = keras.layers.Conv2DTranspose(
            drawn if last else config.channels(resolution),
            KERNEL,
            strides=2,
            padding="same",
            use_bias=last,
            kernel_initializer=normal(str(resolution)),
            dtype=policy,
            name=f"up-{resolution}",
        )(x)
        if not last:
            x = activate(x, str(resolution), style)
    if config.anchors:
        x = keras.layers.LeakyReLU(SLOPE, dtype=policy, name="activation-last")(x)
        initializer = keras.initializers.HeNormal(seed=derive(seed, "generator", "last"))
        x = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer=initializer, dtype=policy, name="last")(x)
    images = keras.layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model([latents, labels], images, name="generator")


def build_discriminator(
    config: GanConfig,
    *,
    patches: bool,
    dropout: bool = False,
    seed: int = 0,
    precision: str = "float32",
) -> keras.Model:
    """Return a discriminator of [images, labels]: float32 [n, size, size, 1] and int32 [n].

    It gives logits, float32: above 0 for what is taken as real. With `patches` they are [n, PATCHES, PATCHES], each of
    the part of the image around it (Isola et al., "Image-to-image translation with conditional adversarial networks",
    CVPR 2017, https://arxiv.org/abs/1611.07004), else [n, 1, 1]. With `dropout` (plain DCGAN) dropout follows every
    activation, and a third input, int32 [2], is the seed of the masks. A conditional one adds the inner product of
    features and class embedding (Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018,
    https://arxiv.org/abs/1802.05637).
    """
    policy = _policy(precision)
    convolution = keras.layers.Conv2D

    def normal(name: str) -> keras.initializers.Initializer:
        # Where nothing normalizes the feature maps, kernels as small as the paper's would let them fade away.
        if name != "labels":
            return keras.initializers.HeNormal(seed=derive(seed, "discriminator", name))
        return keras.initializers.RandomNormal(stddev=0.02, seed=derive(seed, "discriminator", name))

    images = keras.Input((config.image_size, config.image_size, 1), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    masks = keras.Input(batch_shape=(2,), dtype="int32", name="masks")

    def activate(x, name: str):
        x = keras.layers.LeakyReLU(SLOPE, dtype=policy, name=f"activation-{name}")(x)
        return Dropout(DROPOUT, dtype=policy, name=f"dropout-{name}")(x, masks) if dropout else x

    x = images
    resolution = config.image_size
    while resolution > (PATCHES if patches else SMALLEST):
        resolution //= 2
        x = convolution(
            config.channels(resolution),
            KERNEL,
            strides=2,
            padding="same",
            kernel_initializer=normal(str(resolution)),
            dtype=policy,
            name=f"down-{resolution}",
        )(x)
        x = activate(x, str(resolution))
    channels = config.channels(resolution)
    if patches:
        x = convolution(
            channels, 3, padding="same", kernel_initializer=normal("patches"), dtype=policy, name="patches"
        )(x)
        x = activate(x, "patches")
    score = convolution(1, 1 if patches else SMALLEST, kernel_initializer=normal("score"), dtype=policy, name="score")(
        x
    )
    logits = keras.layers.Reshape(score.shape[1:3], dtype="float32", name="logits")(score)
    if config.conditional:
        embedding = keras.layers.Embedding(
            len(config.labels), channels, embeddings_initializer=normal("labels"), dtype="float32", name="embedding"
        )
        if not patches:
            x = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name="pool")(x)
        match = keras.layers.Dot(axes=(3, 1), dtype="float32", name="match")([x, embedding(labels)])
        logits = keras.layers.Add(dtype="float32", name="conditional-logits")([logits, match])
    return keras.Model([images, labels, masks] if dropout else [images, labels], logits, name="discriminator")


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
    """Return the generator as safetensors: its weights and moving statistics, and its configuration."""
    meta = {
        "kind": "generator",
        "image_size": str(config.image_size),
        "width": str(config.width),
        "latent": str(config.latent),
        "labels": json.dumps(config.labels),
        "anchors": str(config.anchors),
    }
    return tensors.to_bytes(tensors.model_arrays(generator), meta)


def load_generator(data: bytes) -> tuple[keras.Model, GanConfig]:
    """Return the generator and its configuration from what `save_generator` gave.

    Raises MachineError if the file is damaged, UserError if it is no generator.
    """
    arrays, meta = tensors.from_bytes(data, "the generator")
    if meta.get("kind") != "generator":
        raise UserError("the file is not a generator: use generator.safetensors of train-gan")
    size, width, latent, anchors = (int(meta[name]) for name in ("image_size", "width", "latent", "anchors"))
    config = GanConfig(size, width, latent, tuple(json.loads(meta["labels"])), anchors)
    generator = build_generator(config)
    tensors.load_model_arrays(generator, arrays)
    return generator, config


def _policy(precision: str) -> keras.DTypePolicy:
    return keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
