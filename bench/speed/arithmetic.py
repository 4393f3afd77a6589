"""The floating-point operations that a method needs, and those that a machine does at best."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from jobs.common import hardware
from jobs.settings import ExecutionSettings


def flops(model: keras.Model) -> int:
    """Return the operations of one image's way through the convolutions and matrix products of a network."""
    return sum(2 * math.prod(layer.kernel.shape) * _places(layer) for layer in model.layers if hasattr(layer, "kernel"))


def _places(layer: keras.layers.Layer) -> int:
    """Return how often a layer's kernel is applied."""
    if isinstance(layer, keras.layers.Dense):
        return 1
    transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    return math.prod((layer.input if transposed else layer.output).shape[1:3])


def roof(precision: str, size: int) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Return a function that computes n products of square matrices of `size`, on all cores or the GPU."""
    hw = hardware.configure(ExecutionSettings(threads=0))
    matrix = tf.cast(tf.random.stateless_uniform((size, size), (0, 1)), precision)

    def work(products: int) -> None:
        for _ in range(products):
            product = tf.linalg.matmul(matrix, matrix)
        product[0, 0].numpy()

    return work, {"flops": 2 * size**3, "kind": hw.kind, "device": hw.device}
