"""The networks of keras.applications, adapted to small gray images, and their serialization."""

import contextlib
import copy
import functools
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from jobs.classifier.augmentation import views
from jobs.common import shapes, tensors
from jobs.common.convolution import Conv2D
from jobs.common.errors import MachineError, UserError, first_line
from jobs.common.normalization import FusedBatchNormalization
from jobs.common.seeds import derive

# Keras builds MobileNetV2 with a BatchNorm momentum of 0.999: after a few hundred steps the moving statistics are still
# mostly their initial zeros and ones, and inference is near chance whatever was learned.
BATCHNORM_MOMENTUM = 0.9

HEAD = "logits"
TOGETHER = 8  # images of up to 64 px whose views are one pass through a network; fewer of larger ones


class Kind(NamedTuple):
    """A network of keras.applications, and how it is trained.

    Attributes:
        application: the module of keras.applications.
        build: the function of the module that builds the network.
        branch_ends: endings of the names of layers whose weights start at zero.
        depthwise: whether it consists of depthwise convolutions (see jobs.common.hardware.configure).
        phantom_learning_rate: peak learning rate of the pretraining on phantoms.
        phantom_augmentation: strength of the augmentation with phantoms, from 0 to 1. Phantoms vary much: with full
            augmentation a network needs several times the steps. Classifiers that start from pretrained weights keep
            this strength (docs/quality.md).
    """

    application: ModuleType
    build: str
    branch_ends: tuple[str, ...]
    depthwise: bool
    phantom_learning_rate: float
    phantom_augmentation: float


# The last layers of ResNet152V2's 50 residual branches start at zero, so that each block is the identity at first: as
# Keras makes it, it learns far more slowly (Goyal et al., "Accurate, large minibatch SGD", 2017,
# https://arxiv.org/abs/1706.02677; De & Smith, "Batch normalization biases residual blocks towards the identity
# function in deep networks", NeurIPS 2020, https://arxiv.org/abs/2002.10444).
NETWORKS: dict[str, Kind] = {
    "mobilenetv2": Kind(keras.applications.mobilenet_v2, "MobileNetV2", (), True, 0.003, 1.0),
    "resnet152v2": Kind(keras.applications.resnet_v2, "ResNet152V2", ("_3_conv",), False, 0.001, 0.3),
}


@dataclass(frozen=True)
class Architecture:
    """The properties needed to rebuild a classifier from its weights.

    Attributes:
        network: a key of NETWORKS.
        labels: class names, in the order of the logits.
        image_size: side of the square gray images, pixels.
    """

    network: str
    labels: tuple[str, ...]
    image_size: int


def build(architecture: Architecture, weights: str = "none", precision: str = "float32", seed: int = 0) -> keras.Model:
    """A network of keras.applications with a new head of logits.

    Args:
        weights: `none`; `imagenet`, which Keras downloads; or a Keras weights file for the network without its top (.h5
            or .weights.h5).
        precision: `float32`, or `bfloat16` for the computation; weights and logits are float32 in both.
        seed: the seed of all random weights.

    Returns:
        A model from float [n, image_size, image_size, 3] in [-1, 1] (see `network_input`) to float32 logits
        [n, labels].

    Raises:
        UserError: unknown network, or a weights file that does not exist or does not fit.
        MachineError: the ImageNet weights cannot be downloaded.
    """
    if architecture.network not in NETWORKS:
        raise UserError(f"network {architecture.network!r} is unknown: use one of {', '.join(sorted(NETWORKS))}")
    shape = (architecture.image_size, architecture.image_size, 3)
    config = _edited(_stock_config(architecture.network, shape), architecture, precision, seed)
    backbone = keras.Model.from_config(config)
    if weights != "none":
        backbone.set_weights(_stock(architecture.network, shape, weights).get_weights())
    features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(backbone.output)
    initializer = keras.initializers.GlorotUniform(derive(seed, HEAD))
    head = keras.layers.Dense(len(architecture.labels), kernel_initializer=initializer, dtype="float32", name=HEAD)
    logits = head(features)
    return keras.Model(backbone.input, logits, name=architecture.network)


@functools.lru_cache
def _stock_config(network: str, shape: tuple[int, int, int]) -> dict:
    """The Keras configuration of a network, cached because building the network takes seconds."""
    return _stock(network, shape, "none").get_config()


def _edited(config: dict, architecture: Architecture, precision: str, seed: int) -> dict:
    """A network's Keras configuration, changed in input, momentum, initial weights, precision and seed."""
    config = copy.deepcopy(config)
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    for layer in config["layers"]:
        settings = layer["config"]
        if layer["class_name"] != "InputLayer":
            settings["dtype"] = policy
        # A recorded input shape would contradict the new input; layers find theirs when they are called.
        layer.pop("build_config", None)
        for name in ("kernel_initializer", "depthwise_initializer"):
            # Not with a global seed, which would make TensorFlow discard all optimized functions.
            if settings.get(name):
                settings[name]["config"]["seed"] = derive(seed, settings["name"], name)
        if layer["class_name"] == "BatchNormalization":
            settings["momentum"] = BATCHNORM_MOMENTUM
            layer |= keras.saving.serialize_keras_object(FusedBatchNormalization(**settings))
        if settings["name"].endswith(NETWORKS[architecture.network].branch_ends):
            settings["kernel_initializer"] = keras.initializers.serialize(keras.initializers.Zeros())
        if layer["class_name"] == "Conv2D":
            layer |= keras.saving.serialize_keras_object(Conv2D(**settings))
    return config


def _stock(network: str, shape: tuple[int, int, int], weights: str) -> keras.Model:
    """The network as keras.applications makes it, without its top, with its weights."""
    kind = NETWORKS[network]
    build = getattr(kind.application, kind.build)
    if weights == "imagenet":
        try:
            # Keras draws a progress bar of the download on standard output.
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                # The weights for 224 pixels fit all sizes: no layer depends on the image's size.
                warnings.simplefilter("ignore")
                return build(include_top=False, input_shape=shape, weights="imagenet")
        except Exception as error:
            raise MachineError(
                f"the ImageNet weights of {network} cannot be downloaded ({first_line(error)}): use a machine with "
                "access to storage.googleapis.com, or give their file with --classifier-weights PATH"
            ) from error
    model = build(include_top=False, input_shape=shape, weights=None)
    if weights != "none":
        if not Path(weights).is_file():
            raise UserError(f"classifier weights {weights!r}: no such file (use none, imagenet, or a .h5 file)")
        try:
            model.load_weights(weights)
        except Exception as error:
            raise UserError(
                f"classifier weights {weights!r} do not fit {network}: a Keras .h5 or .weights.h5 file of the network "
                f"without its top is needed ({first_line(error)})"
            ) from error
    return model


def initial_weights(architecture: Architecture, weights: str, seed: int) -> dict[str, np.ndarray]:
    """Every variable of a new network, bit-identical for the same seed. Raises the errors of `build`."""
    return tensors.model_arrays(build(architecture, weights, seed=seed))


def with_backbone_of(data: bytes, initial: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`initial` weights (see `initial_weights`), all but those of the head replaced by a stored classifier's.

    Raises ValueError if that is another network, MachineError if the bytes are damaged.
    """
    arrays, _ = tensors.from_bytes(data)
    # By position, since Keras numbers the names of layers by the layers built before.
    pairs = zip(sorted(initial), sorted(arrays), strict=True)
    return {
        name: initial[name] if HEAD in name else arrays[stored].astype(initial[name].dtype) for name, stored in pairs
    }


def network_input(gray: tf.Tensor) -> tf.Tensor:
    """Gray float [n, s, s] in [0, 1] as all networks expect it: [n, s, s, 3] in [-1, 1]."""
    return tf.repeat((gray * 2.0 - 1.0)[..., tf.newaxis], 3, axis=-1)


@functools.lru_cache(maxsize=1)
def predictor(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """`predict` for one model, traced once; it always uses the model's current weights."""
    size, classes = model.input_shape[1], model.output_shape[-1]
    # Always of the same shape, because the summation order of a matrix product may depend on its shape, and the
    # probabilities of an image must not depend on the other images of a batch.
    together = max(1, TOGETHER * 64**2 // max(64, size) ** 2)

    @tf.function(input_signature=[tf.TensorSpec([together, size, size], tf.uint8)], autograph=False)
    def infer(images: tf.Tensor) -> tf.Tensor:
        seen = views(tf.cast(images, tf.float32) / 255.0)
        logits = tf.reshape(model(network_input(seen), training=False), [together, -1, classes])
        return tf.reduce_mean(logits, axis=1)

    def run(images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != (size, size):
            raise UserError(
                f"the classifier needs uint8 images of {size} x {size}, not {images.dtype} {images.shape[1:]}"
            )
        return _probabilities(infer, images, together, classes)

    return run


@functools.lru_cache(maxsize=1)
def one_view_predictor(model: keras.Model, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """A faster function like `predict` for loss curves: only the unchanged view, and `batch` images per pass.

    Traced once; it always uses the model's current weights.
    """
    size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec([batch, size, size], tf.uint8)], autograph=False)
    def infer(images: tf.Tensor) -> tf.Tensor:
        return model(network_input(tf.cast(images, tf.float32) / 255.0), training=False)

    def run(images: np.ndarray) -> np.ndarray:
        return _probabilities(infer, images, batch, model.output_shape[-1])

    return run


def _probabilities(
    infer: Callable[[np.ndarray], tf.Tensor], images: np.ndarray, together: int, classes: int
) -> np.ndarray:
    """The softmax, float64 [n, classes], of the logits of n images by a function of `together` images."""
    # Another shape would be traced again.
    filled = np.concatenate([images, np.zeros((-len(images) % together, *images.shape[1:]), np.uint8)])
    logits = [infer(filled[first : first + together]).numpy() for first in range(0, len(filled), together)]
    rows = np.array(logits, np.float64).reshape(-1, classes)[: len(images)]
    powers = np.exp(rows - rows.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Class probabilities, bit-identical for an image alone and in a batch.

    They are those of the mean logits of an image's views (see jobs.classifier.augmentation).

    Args:
        images: uint8 [n, image_size, image_size].

    Returns:
        float64 [n, classes]; rows sum to 1.

    Raises:
        UserError: images of another size or type.
    """
    return predictor(model)(images)


def save_classifier(model: keras.Model, architecture: Architecture) -> bytes:
    """A classifier as safetensors, with the architecture in the metadata."""
    return tensors.to_bytes(
        tensors.model_arrays(model), {"architecture": json.dumps(asdict(architecture), sort_keys=True)}
    )


def in_half_precision(data: bytes) -> bytes:
    """Return a stored classifier with all weights rounded to float16. Raises MachineError if the bytes are damaged."""
    arrays, meta = tensors.from_bytes(data)
    return tensors.to_bytes({name: value.astype(np.float16) for name, value in arrays.items()}, meta)


def load_classifier(data: bytes) -> tuple[keras.Model, Architecture]:
    """The classifier that `save_classifier` stored.

    Raises:
        UserError: the bytes are not a classifier, or the weights do not fit its architecture.
    """
    arrays, meta = tensors.from_bytes(data)
    try:
        fields = shapes.checked(shapes.Classifier, json.loads(meta["architecture"]))
        architecture = Architecture(**{**fields, "labels": tuple(fields["labels"])})
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError("this file is not a classifier of mrigan: the description of the network is missing") from error
    model = build(architecture)
    tensors.load_model_arrays(model, arrays)
    return model, architecture


def parameter_count(model: keras.Model) -> int:
    """The number of trainable weights."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
