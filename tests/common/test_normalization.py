"""The fused batch normalization against that of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from jobs.common import hardware
from jobs.common.normalization import FusedBatchNormalization
from jobs.settings import ExecutionSettings


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_layer_is_that_of_keras(training: bool, affine: bool) -> None:
    rng = np.random.default_rng(0)
    images, weights = (tf.constant(rng.normal(1.0, 2.0, (3, 5, 4, 6)), tf.float32) for _ in range(2))
    values = [rng.uniform(0.5, 1.5, 6) for _ in range(4 if affine else 2)]
    results = []
    for kind in (FusedBatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.7, epsilon=1e-3, center=affine, scale=affine)
        layer.build(images.shape)
        layer.set_weights(values)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
            loss = tf.reduce_sum(outputs * weights)
        results.append([outputs, *tape.gradient(loss, [images, *layer.trainable_weights]), *layer.get_weights()])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_bfloat16_is_normalized_with_statistics_in_float32() -> None:
    images = tf.cast(np.random.default_rng(0).normal(1.0, 2.0, (3, 5, 4, 6)), tf.bfloat16)
    layer = FusedBatchNormalization(dtype="mixed_bfloat16", momentum=0.0)
    outputs = layer(images, training=True)
    assert outputs.dtype == tf.bfloat16
    mean, variance = np.mean(tf.cast(images, tf.float32), (0, 1, 2)), np.var(tf.cast(images, tf.float32), (0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
