"""Phantoms to learn from: drawn heads without and with a lesion, as many as asked for, cropped like any image."""

import logging
from collections.abc import Iterator

import numpy as np

from jobs.common import keys, tensors
from jobs.common.seeds import derive
from jobs.common.step import Step
from jobs.common.storage import Storage
from jobs.mri.crop import crop_to_head
from jobs.mri.randomized import draw_randomized

log = logging.getLogger("mrigan.phantoms")

FILE = "phantoms.safetensors"
HEADS = "randomized"  # a setting, so that phantoms of another kind are not taken for these


def make(storage: Storage, image_size: int, count: int) -> Step:
    """Draw `count` phantoms unless they are there; return their step. They are the same ones for every data set."""
    settings = {"image_size": image_size, "count": count, "heads": HEADS}
    step = Step(storage, keys.phantoms(image_size, count), job="phantoms", settings=settings, inputs={})
    if not step.finished():
        log.info("drawing %d phantoms of %d pixels", count, image_size)
        step.forget()
        pixels, labels = zip(*_drawn(image_size, count), strict=True)
        step.write(FILE, tensors.to_bytes({"pixels": np.stack(pixels), "labels": np.array(labels)}, {}))
        step.finish()
    return step


def read(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 [count, image_size, image_size] and labels int64 [count]: 0 no lesion, 1 one or several.

    Raises MachineError if the file is missing or damaged.
    """
    arrays, _ = tensors.from_bytes(step.read(FILE), FILE)
    return arrays["pixels"], arrays["labels"]


def _drawn(image_size: int, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield phantoms without and with a lesion in turn; the first ones of more are the same."""
    for number in range(count):
        rng = np.random.default_rng(derive(0, "phantoms", number))
        lesion = number % 2
        yield crop_to_head(draw_randomized(bool(lesion), rng), image_size), lesion
