"""Finds, checks and reads the synthetic images of a fold, written by `generate`."""

from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client import Counter

from jobs.common import keys, metrics, png
from jobs.common.errors import UserError
from jobs.common.shards import Shards
from jobs.common.step import Step, stored
from jobs.common.storage import Storage


def generated() -> Counter:
    """Return the Prometheus counter of synthetic images."""
    return metrics.counter("mrigan_images_generated_total", "Synthetic images generated.")


def find_images(storage: Storage, dataset: Step, labels: Sequence[str], run: str, fold: int | str) -> list[Step]:
    """Return the finished steps of generate for each of the `labels`, in their order.

    Raises UserError if a class has no images, or images that were made from another dataset than `dataset`.
    """
    steps = []
    for label in labels:
        prefix = keys.synthetic(run, fold, label)
        id = dataset.prefix.rpartition("/")[2]
        which = f"--storage {storage.url} --dataset {id} --run {run} --fold {fold} --label {label}"
        make = f"make them with `mrigan train-gan {which}` and `mrigan generate {which}`"
        step = stored(storage, prefix)
        if step is None:
            raise UserError(f"fold {fold} has no synthetic images of {label}: {make}")
        if step.inputs.get("dataset") != dataset.digest:
            # The generator may have been trained on images that are held out here.
            raise UserError(f"{prefix} was not made from dataset {id}: {make}, or choose another --run")
        steps.append(step)
    return steps


def finished(storage: Storage, run: str, fold: int | str) -> dict[str, Step]:
    """Return the finished steps of generate in a fold of a run, by class in sorted order."""
    prefixes = {label: keys.synthetic(run, fold, label) for label in _labels(storage, run, fold)}
    steps = {label: stored(storage, prefix) for label, prefix in prefixes.items()}
    return {label: step for label, step in steps.items() if step}


def _labels(storage: Storage, run: str, fold: int | str) -> list[str]:
    """Return what stands for a class in the keys of a fold."""
    folder = keys.fold(run, fold)
    return sorted({key.removeprefix(f"{folder}/").partition("/")[0] for key in storage.list(folder)})


def files(step: Step) -> Shards:
    """Return the PNG files of a finished step, by keys.synthetic_image(number)."""
    return Shards(step.storage, step.prefix, step.manifest, "images")


def images(step: Step) -> Iterator[np.ndarray]:
    """Yield the images of a finished step in the order of their numbers, gray pixels [height, width].

    Raises MachineError if an image is missing or damaged.
    """
    return (png.decode(data) for _, data in files(step).read())


def read_images(steps: Sequence[Step], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 [n, image_size, image_size] and the number of each image's step, int64 [n].

    Raises UserError if images have another size, MachineError if an image is missing or damaged.
    """
    pixels, numbers = [], []
    for number, step in enumerate(steps):
        for image in images(step):
            if image.shape != (image_size, image_size) or image.dtype != np.uint8:
                raise UserError(
                    f"{step.prefix} has images that are not {image_size} x {image_size} 8-bit gray: generate them again"
                )
            pixels.append(image)
            numbers.append(number)
    return np.stack(pixels), np.array(numbers, np.int64)
