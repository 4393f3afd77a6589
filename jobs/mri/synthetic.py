"""The synthetic images of a fold as `generate` left them, whole and of the dataset, for a classifier to learn from."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.step import read_listing, read_manifest, read_outputs
from jobs.common.storage import Storage
from jobs.mri.dataset import Dataset


class Part(NamedTuple):
    """Some of the synthetic images of a class: `generate` makes a part of each range of numbers."""

    label: str
    prefix: str
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """Where it lies in its fold."""
        return self.prefix.partition("/fold-")[2].partition("/")[2]


def find(storage: Storage, dataset: Dataset, run: str, fold: int | str) -> list[Part]:
    """Return the parts of every class of the dataset.

    Raises UserError if a class has none, or one that was made from another dataset.
    """
    parts = []
    for label in dataset.labels:
        which = f"--storage {storage.url} --dataset {dataset.id} --run {run} --fold {fold} --label {label}"
        found = [
            Part(label, prefix, read_manifest(storage, prefix) or {}) for prefix in _prefixes(storage, run, fold, label)
        ]
        if not found:
            raise UserError(
                f"fold {fold} has no synthetic images of {label}: make them by `mrigan train-gan {which}` "
                f"and `mrigan generate {which}`"
            )
        for part in found:
            if part.manifest.get("inputs", {}).get("dataset") != dataset.digest:
                # Their generator may have seen images that are held out here.
                raise UserError(
                    f"{part.prefix} was not made from dataset {dataset.id}: make it anew by `mrigan train-gan {which}` "
                    f"and `mrigan generate {which}`, or choose another --run"
                )
        parts += found
    return parts


def read(storage: Storage, dataset: Dataset, parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of parts: pixels uint8 [n, image_size, image_size] and classes int64 [n].

    Raises UserError if images are of another size than the dataset's, MachineError if one is missing or damaged.
    """
    size = dataset.image_size
    pixels, labels = [], []
    for part in parts:
        digests = read_listing(storage, part.prefix, part.manifest, "images")
        for data in read_outputs(storage, part.prefix, digests, digests):
            image = np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)))
            if image.shape != (size, size) or image.dtype != np.uint8:
                raise UserError(
                    f"{part.prefix} has images that are not {size} x {size} 8-bit gray: generate them again"
                )
            pixels.append(image)
            labels.append(dataset.labels.index(part.label))
    return np.stack(pixels), np.array(labels, np.int64)


def _prefixes(storage: Storage, run: str, fold: int | str, label: str) -> Iterator[str]:
    prefix = keys.synthetic(run, fold, label)
    found = re.compile(re.escape(prefix) + r"(-\d+)?/manifest\.json")
    return (key.rpartition("/")[0] for key in storage.list(prefix.rpartition("/")[0]) if found.fullmatch(key))
