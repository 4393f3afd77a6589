"""The classifiers' sides: training steps, Keras' fit, predictions as `predict` makes them, and the network alone."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bench.speed.arithmetic import flops
from bench.speed.images import discs
from jobs import predict
from jobs.classifier import batches, networks, stepping, training
from jobs.classifier.augmentation import VIEWS
from jobs.common import hardware, png
from jobs.phantoms.drawing import draw_head
from jobs.settings import ExecutionSettings, PredictSettings

IMAGES = 1024
LABELS = ("no", "yes")
RATE = 1e-3
VIEWS_AT_ONCE = 14 * len(VIEWS)
Work = tuple[Callable[[int], None], dict[str, Any]]


def steps(network: str, image_size: int, batch: int, augmentation: float = 0.0) -> Work:
    """Return a function that trains n steps as train-classifier does, with augmentation of this strength, 0 to 1."""
    hw = hardware.configure(ExecutionSettings(threads=0), networks.NETWORKS[network].depthwise)
    architecture = networks.Architecture(network, LABELS, image_size)
    state, take_steps = stepping.prepare(architecture, hw.precision, batch, augmentation, hw.xla)
    state.start(networks.initial_weights(architecture, "none", 0))
    pool, shares = batches.Images(discs(IMAGES, image_size), np.arange(IMAGES) % 2), np.array([0.5, 0.5])
    taken = 0

    def work(count: int) -> None:
        nonlocal taken
        end = taken + count
        while taken < end:
            stop = min(taken + training.CALL_STEPS, end)
            chosen = [batches.assemble(pool, None, shares, batch, step) for step in range(taken, stop)]
            pixels, targets = (np.stack(part) for part in zip(*chosen, strict=True))
            rates = np.full(stop - taken, RATE, np.float32)
            numbers = np.arange(taken, stop, dtype=np.int32)
            strengths = np.full_like(rates, augmentation)
            take_steps(pixels, targets, rates, strengths, np.int32(0), numbers).numpy()
            taken = stop

    return work, {"flops": 3 * batch * flops(state.model), "precision": hw.precision}


def keras_fit(network: str, image_size: int, batch: int) -> Work:
    """Return a function that trains n steps with Keras alone, as its guides do: compile, then fit on arrays."""
    kind = networks.NETWORKS[network]
    build = getattr(kind.application, kind.build)
    model = build(input_shape=(image_size, image_size, 3), weights=None, classes=2, classifier_activation=None)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=stepping.LABEL_SMOOTHING)
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=stepping.WEIGHT_DECAY)
    model.compile(optimizer, loss, metrics=["accuracy"])
    images = np.repeat(discs(IMAGES, image_size)[..., None] / np.float32(127.5) - 1, 3, axis=-1)
    targets = np.eye(2, dtype=np.float32)[np.arange(IMAGES) % 2]

    def work(count: int) -> None:
        while count:
            now = min(count, IMAGES // batch)
            model.fit(images[: now * batch], targets[: now * batch], batch_size=batch, verbose=0)
            count -= now

    return work, {}


def predicted(files: int) -> Work:
    """Return a function that runs the job predict on n of so many files, with the packaged weights, loaded each time.

    The files are drawn heads of 150 to 260 pixels, already in the cache of the system.
    """
    hardware.configure(ExecutionSettings(threads=0))
    folder = Path(tempfile.mkdtemp(prefix="mrigan-"))
    atexit.register(shutil.rmtree, folder)
    pictures = [png.encode(draw_head("healthy", np.random.default_rng(number))) for number in range(64)]
    names = [str(folder / f"{number}.png") for number in range(files)]
    for number, name in enumerate(names):
        Path(name).write_bytes(pictures[number % len(pictures)])

    def work(count: int) -> None:
        images = tuple(names[:count])
        predict.run(PredictSettings(images=images, storage=str(folder / "none"), threads=0, format="csv"))

    return work, {}


def forward(network: str, image_size: int) -> Work:
    """Return a function that computes the logits of all views of n images from ready batches."""
    hardware.configure(ExecutionSettings(threads=0), networks.NETWORKS[network].depthwise)
    model = networks.build(networks.Architecture(network, LABELS, image_size))
    shape = tf.TensorSpec((None, image_size, image_size, 3), tf.float32)
    infer = tf.function(lambda images: model(images, training=False), [shape], autograph=False)
    views = tf.random.stateless_uniform((VIEWS_AT_ONCE, image_size, image_size, 3), (0, 1), -1.0, 1.0)

    def work(count: int) -> None:
        for left in range(count * len(VIEWS), 0, -VIEWS_AT_ONCE):
            infer(views[:left]).numpy()

    return work, {}
