"""Several DCGANs in one process: each is trained as if alone, and a step has few more operations than that of one."""

import numpy as np
import pytest
import tensorflow as tf

from bench.speed import stacked
from jobs.common import hardware
from jobs.settings import ExecutionSettings
from tests.test_operations import FREE, operations

SIZE, WIDTH, LATENT, BATCH, GANS, STEPS = 32, 4, 8, 6, 3, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (STEPS, GANS, BATCH, SIZE, SIZE, 1), dtype=np.uint8)
LATENTS = RNG.standard_normal((STEPS, GANS, BATCH, LATENT), np.float32)


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


def trained(gans: slice) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the losses of each step, and all weights after the last one."""
    stack = stacked.Stack(range(GANS)[gans], SIZE, WIDTH, LATENT)
    take = stacked.train_step(stack)
    steps = zip(IMAGES[:, gans], LATENTS[:, gans], np.arange(1, STEPS + 1, dtype=np.float32), strict=True)
    losses = [take(images, latents, tf.constant(step)).numpy() for images, latents, step in steps]
    return losses, [one.numpy() for one in (*stack.generator, *stack.discriminator)]


def test_a_gan_is_trained_among_others_as_alone() -> None:
    losses, weights = trained(slice(None))
    for number in range(GANS):
        own_losses, own_weights = trained(slice(number, number + 1))
        for all_of_them, own in zip(losses, own_losses, strict=True):
            np.testing.assert_allclose(all_of_them[:, number], own[:, 0], rtol=1e-4)
        for all_of_them, own in zip(weights, own_weights, strict=True):
            np.testing.assert_allclose(all_of_them[number], own[0], atol=1e-5)
    assert np.std(losses[-1], axis=1).min() > 0


def test_the_discriminator_is_that_of_ordinary_convolutions() -> None:
    stack = stacked.Stack([5], SIZE, WIDTH, LATENT)
    images = tf.cast(IMAGES[0, :1], tf.float32) / 127.5 - 1
    maps = images[0]
    for kernel in stack.down:
        maps = tf.nn.leaky_relu(tf.nn.conv2d(maps, kernel[0], 2, "SAME"), 0.2)
    expected = tf.nn.conv2d(maps, stack.score[0], 1, "VALID")[:, 0, 0, 0]
    np.testing.assert_allclose(stack.logits(images)[0], expected, rtol=1e-4, atol=1e-7)


def test_a_step_of_eight_has_few_more_operations_than_one_of_one() -> None:
    counts = []
    for several in (1, 8):
        take = stacked.train_step(stacked.Stack(range(several), SIZE, WIDTH, LATENT))
        images, latents = (
            np.zeros((several, *IMAGES.shape[2:]), np.uint8),
            np.zeros((several, BATCH, LATENT), np.float32),
        )
        found = operations(lambda take=take, of=(images, latents): take(*of, tf.constant(1.0)))
        counts.append(sum(count for name, count in found.items() if name not in FREE))
    assert counts[0] > 200
    assert counts[1] <= 1.1 * counts[0]
