"""The overlap of two datasets: the same images, near-duplicates, and other images of their groups."""

import numpy as np

from jobs.mri.crop import fit
from jobs.mri.dataset import Dataset
from jobs.mri.duplicates import describe, for_comparison, repeats


def folds_of_kin(dataset: Dataset, other: Dataset) -> dict[str, set[int]]:
    """Return for each image id of `dataset` the folds of `other` in which images of its group are held out.

    A group is one of `dataset`, with the near-duplicates of its images in `other`. The comparison uses the smaller
    image size of the two datasets.
    """
    fold_of = {row.id: row.fold for row in other.rows}
    folds: dict[str, set[int]] = {row.group: set() for row in dataset.rows}
    for row in dataset.rows:
        if row.id in fold_of:
            folds[row.group].add(fold_of[row.id])
    new = [row for row in dataset.rows if row.id not in fold_of]
    if new:
        size = min(dataset.image_size, other.image_size)
        pictures, others = (
            np.stack([for_comparison(image) for image in resized(one.pixels(rows), size)])
            for one, rows in ((dataset, new), (other, other.rows))
        )
        found = repeats(pictures, np.stack([describe(image) for image in others]), others.__getitem__)
        for row, same in zip(new, found, strict=True):
            folds[row.group].update(other.rows[index].fold for index in same)
    return {row.id: folds[row.group] for row in dataset.rows}


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 [n, size, size] of uint8 [n, side, side], resampled as a dataset's images are."""
    if images.shape[1] == size:
        return images
    return np.stack([fit(image, 0, size) for image in images])
