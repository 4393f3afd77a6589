"""Draws synthetic images by number with a stored generator."""

import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jobs.common import keys, metrics
from jobs.common.errors import UserError
from jobs.common.seeds import derive
from jobs.common.step import read_manifest
from jobs.common.storage import Storage, in_parallel
from jobs.gan import bending, networks
from jobs.gan.networks import GanConfig

# Images are always generated in whole blocks of this size, even if only part of a block is needed: the summation order
# of a matrix product may depend on its shape, and an image must not depend on the other images of its batch.
BLOCK = 32
AT_ONCE = 4  # blocks: some are drawn while others are bent, and the caller encodes


def generators(storage: Storage, run: str, fold: int | str, label: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield prefix and manifest of the finished generators of a class: its own, then the class-conditional one."""
    for place in (label, keys.CLASS_CONDITIONAL):
        prefix = keys.gan(run, fold, place)
        manifest = read_manifest(storage, prefix)
        if manifest:
            yield prefix, manifest


def find_generator(storage: Storage, run: str, fold: int | str, label: str) -> tuple[str, dict[str, Any]]:
    """Return prefix and manifest of the first of these generators. Raises UserError if there is none."""
    for found in generators(storage, run, fold, label):
        return found
    raise UserError(f"no finished generator in {keys.gan(run, fold, label)}: run train-gan first")


def draw_images(
    generator: keras.Model, config: GanConfig, label: str, numbers: range, *, seed: int, bend: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, image) for each of the consecutive `numbers`; an image is uint8 [size, size].

    An image depends on the generator, the class `label`, `seed`, `bend` (share of the side, 0 to 0.1) and its number
    alone.
    """
    index = config.labels.index(label)
    # Layer by layer, Python takes twice the time of the layers.
    forward = tf.function(lambda *given: generator(given, training=False), autograph=False)
    one_at_a_time = threading.Lock()

    def block(start: int) -> list[tuple[int, np.ndarray]]:
        within = range(start, start + BLOCK)
        given = latents(seed, within, config.latent), np.full(BLOCK, index, np.int32)
        with one_at_a_time, metrics.gpu_use():
            drawn = forward(*given).numpy()
        images = zip(within, networks.to_uint8(drawn[..., 0]), strict=True)
        return [(number, bent(number, image)) for number, image in images if number in numbers]

    def bent(number: int, image: np.ndarray) -> np.ndarray:
        if not bend:
            return image
        normal = _stream(seed, "bends", number).standard_normal((2, bending.NODES, bending.NODES))
        return bending.bend(image, bend * normal)

    for images in in_parallel(block, range(numbers.start // BLOCK * BLOCK, numbers.stop, BLOCK), "compute", AT_ONCE):
        yield from images


def latents(seed: int, numbers: range, length: int) -> np.ndarray:
    """Return float32 [len(numbers), length], standard normal; a row depends on `seed` and its number alone."""
    return np.stack([_stream(seed, "latents", number).standard_normal(length, np.float32) for number in numbers])


def _stream(seed: int, purpose: str, number: int) -> np.random.Generator:
    """Return the random number generator of one image."""
    # The highest word of the counter is the image's number, so that the streams do not overlap.
    return np.random.Generator(np.random.Philox(key=derive(seed, purpose), counter=[0, 0, 0, number]))
