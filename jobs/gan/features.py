"""Features of images for quality metrics: from five random networks, or from the user's InceptionV3.

Features of networks trained on ImageNet are specific to natural images. Naeem et al., "Reliable fidelity and diversity
metrics for generative models", ICML 2020 (https://arxiv.org/abs/2002.09797), section 4, show that randomly initialized
networks are suitable if images are unlike those of ImageNet. Five of them are used, and the metrics are averaged over
them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from jobs.common.errors import UserError, first_line

RANDOM_NETWORKS = 5
# Images are always processed in batches of this size, with padding: the summation order of a convolution may depend on
# its shape, and the features of an image must not depend on the other images of a batch.
BATCH = 32
INCEPTION_BATCH = 8
FILTER = 3  # side of a random network's convolution kernels
LAST_SIDE = 4  # pixels of its last feature maps, at least
INCEPTION_SIZE = 299
KEY = int.from_bytes(b"mrigan")


@dataclass(frozen=True)
class Features:
    """Feature extractors from uint8 [n, size, size] to float64 [n, dimensions], one for each network.

    `name` is 'random' or 'inceptionv3', `digest` the SHA-256 of the weights. `standardized`: features must be scaled to
    mean 0 and variance 1 over the training images, because the scales of random features are arbitrary.
    """

    name: str
    digest: str
    standardized: bool
    networks: tuple[Callable[[np.ndarray], np.ndarray], ...]


def random_networks(image_size: int, count: int = RANDOM_NETWORKS) -> Features:
    """Return `count` fixed random networks for images of `image_size` pixels (at least 8).

    Convolution, ReLU and average pooling halve the image until its side is below 8 pixels. The features are the means
    of each feature map after every halving (fine texture to shape), for the last maps those of the four quarters.
    """
    weights = [_random_weights(image_size, network) for network in range(count)]
    sha = hashlib.sha256()
    for kernel in (kernel for kernels in weights for kernel in kernels):
        sha.update(np.ascontiguousarray(kernel, "<f4").tobytes())
    networks = tuple(_batched(_random_network(kernels), BATCH, image_size) for kernels in weights)
    return Features("random", sha.hexdigest(), True, networks)


def _random_weights(image_size: int, network: int) -> list[np.ndarray]:
    """Return the kernels, float32 [3, 3, in, out]: He's variance, and each output's weights sum to zero.

    With ordinary weights, brightness dominates: a blur of 0.5 px, a checkerboard of +-10 gray levels and noise left the
    metrics of real MRI slices of 64 px unchanged. With sums of zero, all three change the metrics.
    """
    kernels: list[np.ndarray] = []
    channels, size = 1, image_size
    while size >= 2 * LAST_SIDE:
        # Wide maps get few channels, so that large images cost little more than small ones.
        outputs = min(128, 2048 // size)
        shape = (FILTER, FILTER, channels, outputs)
        # The raw bits of Philox are the same in every version of NumPy; its distributions need not be.
        raw = np.random.Philox(key=[KEY, network], counter=[0, 0, 0, len(kernels)]).random_raw(int(np.prod(shape)))
        uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
        kernel = uniform.reshape(shape) * np.sqrt(6 / (FILTER * FILTER * channels))
        kernels.append((kernel - kernel.mean(axis=(0, 1, 2))).astype(np.float32))
        channels, size = outputs, size // 2
    return kernels


def _random_network(kernels: list[np.ndarray]) -> Callable[[tf.Tensor], tf.Tensor]:
    def network(images: tf.Tensor) -> tf.Tensor:
        x = images[..., tf.newaxis] / 127.5 - 1
        found = []
        for kernel in kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
            x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
            found.append(tf.reduce_mean(x, (1, 2)))
        half = x.shape[1] // 2
        quarters = tf.nn.avg_pool2d(x, half, half, "VALID")[:, :2, :2]
        return tf.concat([*found[:-1], tf.reshape(quarters, (BATCH, 4 * quarters.shape[-1]))], axis=1)

    return network


def inception(path: str, digest: str) -> Features:
    """Return the pooled features of keras.applications' InceptionV3 with the weights in the file `path`.

    The file is the network's without its top, as Keras publishes it (.h5) or saves it (.weights.h5). Images are
    resized to 299 px and repeated as RGB. FIDs are near, but not equal, to those of the 2015 network of the papers.
    Raises UserError if the file does not fit.
    """
    model = keras.applications.InceptionV3(
        include_top=False, weights=None, pooling="avg", input_shape=(INCEPTION_SIZE, INCEPTION_SIZE, 3)
    )
    try:
        model.load_weights(path)
    # Keras and h5py raise many kinds of exceptions for a file that does not fit.
    except Exception as error:
        raise UserError(
            f"--feature-weights {path} does not fit: it must be a Keras .h5 file of InceptionV3 without top "
            f"({first_line(error)})"
        ) from error

    def network(images: tf.Tensor) -> tf.Tensor:
        x = tf.image.resize(images[..., tf.newaxis], (INCEPTION_SIZE, INCEPTION_SIZE), antialias=True)
        return model(tf.repeat(x, 3, axis=-1) / 127.5 - 1, training=False)

    return Features("inceptionv3", digest, False, (_batched(network, INCEPTION_BATCH, None),))


def _batched(
    network: Callable[[tf.Tensor], tf.Tensor], size: int, image_size: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Return `network` (float32 [size, s, s] to [size, dimensions]) for any number of uint8 images."""
    signature = tf.TensorSpec([size, image_size, image_size], tf.float32)
    compiled = tf.function(network, input_signature=[signature], autograph=False)

    def extract(images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), size):
            batch = images[start : start + size].astype(np.float32)
            padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0)))
            found.append(compiled(tf.constant(padded)).numpy()[: len(batch)])
        return np.concatenate(found).astype(np.float64)

    return extract
