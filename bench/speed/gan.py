"""The GAN's sides: training steps, drawing as `generate` does it, and the generator alone."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from bench.speed.arithmetic import flops
from bench.speed.images import discs
from jobs.common import hardware, keys, png, shards
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.gan import drawing, networks, training
from jobs.settings import ExecutionSettings, GanSettings, SyntheticSettings

IMAGES = 256
Work = tuple[Callable[[int], None], dict[str, Any]]


def steps(image_size: int, width: int, batch: int, latent: int, recipe: bool) -> Work:
    """Return a function that trains n steps as train-gan does: with all stabilizers (`recipe`), or the plain DCGAN."""
    hw = hardware.configure(ExecutionSettings(threads=0))
    config = networks.GanConfig(image_size, width, latent, ("one",), IMAGES if recipe else 0)
    names = ("augmentation", "gradient_penalty", "moving_average", "patches", "relativistic")
    options = training.Options(
        seed=0,
        steps=100_000,
        batch=batch,
        learning_rate=GanSettings(gan_stabilizers="all" if recipe else "none").gan_learning_rate,
        precision=hw.precision,
        xla=hw.xla,
        **dict.fromkeys(names, recipe),
    )
    images, classes = discs(IMAGES, image_size)[..., None], np.zeros(IMAGES, np.int32)
    state = training.new_state(config, options, classes)
    train = training.train_function(state, config, options)
    taken = 0

    def work(count: int) -> None:
        nonlocal taken
        end = taken + count
        while taken < end:
            stop = min(taken + training.steps_per_call(image_size), end)
            chosen = training.batches(options.seed, IMAGES, batch, taken, stop)
            losses = train(images[chosen], classes[chosen], np.int32(chosen), tf.constant(taken, tf.int64))
            taken = stop
        losses.numpy()

    # Generator: forward, and backward at twice the cost. Discriminator: this for real and for drawn images, and for the
    # generator's loss forward, and backward to the images alone.
    needed = batch * (3 * flops(state.generator) + 8 * flops(state.discriminator))
    return work, {"flops": needed, "precision": hw.precision}


def generated(image_size: int, width: int) -> Work:
    """Return a function that draws n images and stores them as generate does, without judging them."""
    hardware.configure(ExecutionSettings(threads=0))
    generator, config = _generator(image_size, width)
    bend = SyntheticSettings().synthetic_bend

    def files(count: int) -> Iterator[tuple[str, bytes]]:
        for number, image in drawing.draw_images(generator, config, "one", range(count), seed=0, bend=bend):
            yield keys.synthetic_image(number), png.encode(image)

    def work(count: int) -> None:
        with tempfile.TemporaryDirectory(prefix="mrigan-") as folder:
            step = Step(open_storage(folder), "synthetic", job="bench", settings={}, inputs={})
            shards.write(step, "images", files(count))

    return work, {}


def forward(image_size: int, width: int) -> Work:
    """Return a function that computes n images from ready latents, in batches of the same size."""
    hardware.configure(ExecutionSettings(threads=0))
    generator, config = _generator(image_size, width)
    draw = tf.function(lambda latents, labels: generator([latents, labels], training=False), autograph=False)
    latents = tf.random.stateless_normal((drawing.BLOCK, config.latent), (0, 1))
    labels = tf.zeros(drawing.BLOCK, tf.int32)

    def work(count: int) -> None:
        for _ in range(count // drawing.BLOCK):
            draw(latents, labels).numpy()

    return work, {}


def _generator(image_size: int, width: int) -> tuple[Any, networks.GanConfig]:
    """Return a generator of the recipe, untrained. It runs in float32, as in generate."""
    config = networks.GanConfig(image_size, width, GanSettings().latent, ("one",), IMAGES)
    return networks.build_generator(config), config
