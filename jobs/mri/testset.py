"""A test set: a folder of labelled images that is not a dataset. Near-duplicates of training images are removed."""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jobs.common.errors import UserError
from jobs.common.step import digest
from jobs.mri import readers, sources
from jobs.mri.crop import fit
from jobs.mri.dataset import Dataset
from jobs.mri.duplicates import describe, for_comparison, repeats
from jobs.mri.examine import heads
from jobs.mri.slices import Unusable


class TestSet(NamedTuple):
    """Usable images in order of source: `sources`, `labels`, and `heads` (uint8 [height, width], background)."""

    sources: list[str]
    labels: list[str]
    heads: list[tuple[np.ndarray, int]]

    def pixels(self, size: int) -> np.ndarray:
        """Return uint8 [n, size, size], cropped like the images of a dataset."""
        return np.stack([fit(*head, size) for head in self.heads])


def read_test_set(
    url: str, labels: Sequence[str], volume: int = 0, step: int = 1, follow_links: bool = False
) -> TestSet:
    """Return the usable images below `url`, a folder or s3://bucket/prefix of class folders.

    Of a NIfTI file with several volumes, number `volume` is taken, and of several slices every `step`-th with a head.
    Raises UserError if a class is not one of `labels`,
    or if fewer than two classes have usable images.
    """
    source = sources.find_source(url, "--test", follow_links)
    for unknown in source.labels:
        if unknown not in labels:
            raise UserError(f"--test: class {unknown} is not a class of the champion, which has {', '.join(labels)}")
    test = TestSet([], [], [])
    named = ((sources.below_class(key), data) for key, data in sources.contents(source))
    work = functools.partial(heads, volume=volume, step=step)
    for key, (_, found) in zip(source.files, readers.shared().map(work, named), strict=True):
        label = sources.label_of(key)
        if label is None or isinstance(found, Unusable):
            continue
        for number, head, background in found:
            if not isinstance(head, Unusable):
                test.heads.append((head, background))
                test.sources.append(key if number is None else f"{key}#{number}")
                test.labels.append(label)
    _check_classes(test)
    return test


def fingerprint(url: str, follow_links: bool = False) -> str:
    """Return the digest of the names and content of the files below `url`."""
    source = sources.find_source(url, "--test", follow_links)
    return digest([(key, hashlib.sha256(data).hexdigest()) for key, data in sources.contents(source)])


def identity(url: str, follow_links: bool = False) -> dict[str, str]:
    """Return the `fingerprint` of a test set under the key `test`, nothing if `url` is empty."""
    return {"test": fingerprint(url, follow_links)} if url else {}


def _check_classes(test: TestSet) -> None:
    if len(set(test.labels)) < 2:
        raise UserError("--test: fewer than two classes have usable images that were not used for training: add images")


def unseen(test: TestSet, datasets: Sequence[Dataset]) -> TestSet:
    """Return the test images that are not near-duplicates of an image of `datasets`.

    The comparison uses the image size of each dataset. Raises UserError if fewer than two classes are left.
    """
    left = set(range(len(test.sources)))
    for dataset in datasets:
        known = [for_comparison(image) for image in dataset.pixels(dataset.rows)]
        mine = np.stack([for_comparison(image) for image in test.pixels(dataset.image_size)])
        found = repeats(mine, np.stack([describe(image) for image in known]), known.__getitem__)
        left -= {index for index, same in enumerate(found) if same}
    kept = TestSet(*([column[index] for index in sorted(left)] for column in test))  # type: ignore[arg-type]
    _check_classes(kept)
    return kept
