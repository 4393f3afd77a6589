"""The convolutions and their gradients against those of Keras."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from jobs.common import convolution, hardware
from jobs.settings import ExecutionSettings

# A kernel of one pixel; few pixels and many features, dense and strided; many pixels and few features.
SHAPES = {
    "one pixel": ((3, 6, 6, 5), {"filters": 4, "kernel_size": 1}),
    "one pixel, strided": ((2, 4, 4, 5), {"filters": 16, "kernel_size": 1, "strides": 2}),
    "few pixels": ((2, 2, 2, 3), {"filters": 16, "kernel_size": 3, "padding": "same"}),
    "few pixels, strided": ((2, 4, 6, 3), {"filters": 16, "kernel_size": 4, "strides": 2, "padding": "same"}),
    "one place": ((4, 4, 4, 3), {"filters": 2, "kernel_size": 4}),
    "many pixels": ((3, 8, 8, 5), {"filters": 4, "kernel_size": 3}),
}
KINDS = {
    (convolution.Conv2D, keras.layers.Conv2D): SHAPES,
    (convolution.Conv2DTranspose, keras.layers.Conv2DTranspose): {
        "few pixels": ((2, 2, 3, 32), {"filters": 3, "kernel_size": 4, "strides": 2, "padding": "same"}),
        "many pixels": ((3, 8, 8, 5), {"filters": 4, "kernel_size": 4, "strides": 2, "padding": "same"}),
    },
}
CASES = [
    pytest.param(*kinds, *case, id=f"{kinds[1].__name__}: {name}")
    for kinds, cases in KINDS.items()
    for name, case in cases.items()
]


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


def gradients(layer: keras.layers.Layer, inputs: tf.Tensor, weights: tf.Tensor, values: list) -> list[np.ndarray]:
    """Return the outputs, their gradients, and those of the gradients' squares at the inputs, as a GAN's penalty."""
    layer.build(inputs.shape)
    layer.set_weights(values)

    @tf.function(autograph=False)
    def results() -> list[tf.Tensor]:
        with tf.GradientTape() as outer:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(inputs)
                outputs = layer(inputs)
                loss = tf.reduce_sum(outputs * tf.cast(weights, outputs.dtype))
            at_inputs = tape.gradient(loss, inputs)
            penalty = tf.reduce_sum(tf.square(at_inputs))
        kernel, bias = (variable.value for variable in layer.trainable_weights)
        return [outputs, at_inputs, *tape.gradient(loss, [kernel, bias]), outer.gradient(penalty, kernel)]

    return [tf.cast(value, tf.float32).numpy() for value in results()]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("ours", "theirs", "shape", "options"), CASES)
def test_outputs_and_gradients_are_those_of_keras(
    ours: Callable, theirs: Callable, shape: tuple[int, ...], options: dict, policy: str
) -> None:
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.standard_normal(shape), tf.float32)
    first = theirs(**options)
    weights = tf.constant(rng.standard_normal(first(inputs).shape), tf.float32)
    values = [rng.standard_normal(value.shape) for value in first.get_weights()]
    pair = [gradients(kind(**options, dtype=policy), inputs, weights, values) for kind in (ours, theirs)]
    for mine, exact in zip(*pair, strict=True):
        np.testing.assert_allclose(mine, exact, atol=(0.01 if "bfloat16" in policy else 1e-5) * np.abs(exact).max())


@pytest.mark.parametrize("name", SHAPES)
def test_a_kernel_with_few_pixels_gets_its_gradient_from_a_product(name: str) -> None:
    shape, options = SHAPES[name]
    layer = convolution.Conv2D(**options, dtype="mixed_bfloat16")
    inputs = tf.zeros(shape)
    layer.build(shape)

    @tf.function(autograph=False)
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs))
        return tape.gradient(loss, layer.kernel.value)

    operations = {one.type for one in gradient.get_concrete_function().graph.get_operations()}
    assert ("Conv2DBackpropFilter" in operations) == (name == "many pixels")
