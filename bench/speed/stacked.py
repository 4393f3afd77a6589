"""A trial: several plain DCGANs of one shape, such as those of all folds, trained in one process.

Their weights are stacked along a first axis, and a convolution is a product of patches and stacked kernels. So a step
of all GANs has about as many operations as a step of one: at 64 px a GPU takes longer to start an operation than to
compute it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from bench.speed.gan import IMAGES, Work
from bench.speed.images import discs
from jobs.common import hardware
from jobs.common.adam import apply_adam
from jobs.gan import training
from jobs.gan.networks import KERNEL, SLOPE, SMALLEST, GanConfig
from jobs.settings import ExecutionSettings

RATE, EPSILON, DEVIATION = 2e-4, 1e-7, 0.02
Weights = list[tf.Variable]


class Stack:
    """The weights of GANs, one for each of `seeds`, float32 with a first axis of GANs; see `images` and `logits`."""

    def __init__(self, seeds: Sequence[int], image_size: int, width: int, latent: int) -> None:
        self.count = len(seeds)
        config = GanConfig(image_size, width, latent, ("one",))
        sides = [SMALLEST * 2**number for number in range((image_size // SMALLEST).bit_length() - 1)]
        channels = [config.channels(side) for side in sides]
        streams = [np.random.default_rng(seed) for seed in seeds]

        def normal(*shape: int) -> tf.Variable:
            values = [stream.normal(0, DEVIATION, shape) for stream in streams]
            return tf.Variable(np.stack(values).astype(np.float32))

        def constant(value: float, several: int) -> tf.Variable:
            return tf.Variable(tf.fill((self.count, 1, 1, 1, several), float(value)))

        self.project = normal(latent, SMALLEST**2 * channels[0])
        self.norms = [(constant(1, several), constant(0, several)) for several in channels]
        # Four kernels of 3 x 3 draw the four pixels of the next resolution that a pixel becomes.
        self.up = [normal(3, 3, before, 4 * after) for before, after in zip(channels, [*channels[1:], 1], strict=True)]
        down = [1, *reversed(channels)]
        self.down = [normal(KERNEL, KERNEL, before, after) for before, after in pairwise(down)]
        self.biases = [constant(0, after) for after in down[1:]]
        self.score = normal(SMALLEST, SMALLEST, channels[0], 1)

    @property
    def generator(self) -> Weights:
        """The weights of the generators."""
        return [self.project, *(part for norm in self.norms for part in norm), *self.up]

    @property
    def discriminator(self) -> Weights:
        """The weights of the discriminators."""
        return [*self.down, *self.biases, self.score]

    def images(self, latents: tf.Tensor) -> tf.Tensor:
        """Return the images of latents: float32 [GANs, n, latent] -> [GANs, n, size, size, 1] in [-1, 1]."""
        several = latents.shape[1]
        maps = tf.reshape(latents @ self.project, (self.count, several, SMALLEST, SMALLEST, -1))
        for (gain, bias), kernel in zip(self.norms, self.up, strict=True):
            mean, variance = tf.nn.moments(maps, (1, 2, 3), keepdims=True)
            maps = tf.nn.leaky_relu(tf.nn.batch_normalization(maps, mean, variance, bias, gain, 1e-3), SLOPE)
            wide = _convolve(maps, kernel, 1, "SAME")
            maps = _unstacked(tf.nn.depth_to_space(_flat(wide), 2), self.count)
        return tf.tanh(maps)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Return a logit for each image: float32 [GANs, n, size, size, 1] -> [GANs, n]."""
        maps = images
        for kernel, bias in zip(self.down, self.biases, strict=True):
            maps = tf.nn.leaky_relu(_convolve(maps, kernel, 2, "SAME") + bias, SLOPE)
        return tf.reshape(_convolve(maps, self.score, 1, "VALID"), images.shape[:2])


def _flat(maps: tf.Tensor) -> tf.Tensor:
    return tf.reshape(maps, (-1, *maps.shape[2:]))


def _unstacked(maps: tf.Tensor, count: int) -> tf.Tensor:
    return tf.reshape(maps, (count, -1, *maps.shape[1:]))


def _convolve(maps: tf.Tensor, kernels: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """Convolve float32 [GANs, n, h, w, c] with kernels [GANs, k, k, c, features] of their own."""
    count, several, *_ = maps.shape
    side, features = kernels.shape[1], kernels.shape[-1]
    patches = tf.image.extract_patches(_flat(maps), (1, side, side, 1), (1, stride, stride, 1), (1, 1, 1, 1), padding)
    rows = tf.reshape(patches, (count, -1, patches.shape[-1]))
    found = rows @ tf.reshape(kernels, (count, -1, features))
    return tf.reshape(found, (count, several, *patches.shape[1:3], features))


def train_step(stack: Stack) -> Any:
    """Return a traced function: images uint8 [GANs, batch, size, size, 1], latents float32 [GANs, batch, latent] and
    the step's number, float32 from 1 -> losses of generators and discriminators, float32 [2, GANs]."""
    moments = {
        id(one): [tf.Variable(tf.zeros_like(one)) for _ in range(2)] for one in (*stack.generator, *stack.discriminator)
    }

    def descend(weights: Weights, tape: tf.GradientTape, losses: tf.Tensor, step: tf.Tensor) -> None:
        # The gradient is that of the sum: a weight meets the loss of its own GAN only.
        for one, gradient in zip(weights, tape.gradient(losses, weights), strict=True):
            how: dict[str, Any] = {"rate": RATE, "count": step, "betas": (training.BETA_1, 0.999), "epsilon": EPSILON}
            first, second = moments[id(one)]
            apply_adam(one, first, second, gradient, **how)

    def mean(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.softplus(values), axis=1)

    @tf.function(autograph=False)
    def take(images: tf.Tensor, latents: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        real = tf.cast(images, tf.float32) / 127.5 - 1
        with tf.GradientTape() as generator_tape:
            fake = stack.images(latents)
            with generator_tape.stop_recording():
                with tf.GradientTape() as tape:
                    discriminator_losses = mean(-stack.logits(real)) + mean(stack.logits(fake))
                descend(stack.discriminator, tape, discriminator_losses, step)
            generator_losses = mean(-stack.logits(fake))
        descend(stack.generator, generator_tape, generator_losses, step)
        return tf.stack([generator_losses, discriminator_losses])

    return take


def steps(count: int, image_size: int, width: int, batch: int, latent: int) -> Work:
    """Return a function that trains n steps in all, of `count` GANs together, without dropout."""
    hardware.configure(ExecutionSettings(threads=0))
    stack = Stack(range(count), image_size, width, latent)
    take = train_step(stack)
    images, rng = discs(IMAGES, image_size)[..., None], np.random.default_rng(0)
    taken = 0

    def work(several: int) -> None:
        nonlocal taken
        end = taken + max(1, several // count)
        while taken < end:
            taken += 1
            chosen = rng.integers(0, IMAGES, (count, batch))
            latents = rng.standard_normal((count, batch, latent), np.float32)
            losses = take(images[chosen], latents, tf.constant(taken, tf.float32))
        losses.numpy()

    return work, {}
