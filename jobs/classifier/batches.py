"""Training data of a classifier: images of one origin, phantoms, and batches sampled from them."""

from typing import NamedTuple

import numpy as np

from jobs.common.errors import UserError


class Images(NamedTuple):
    """Images of one origin: pixels uint8 [n, s, s], labels int [n] (an index of the class)."""

    pixels: np.ndarray
    labels: np.ndarray


class Phantoms(NamedTuple):
    """Drawn heads, which make up half of each batch: pixels uint8 [n, s, s], labels int [n] (0 no lesion, 1 a lesion).

    Phantoms without a lesion belong to the class `healthy`, an index; those with a lesion to any of the other classes.
    """

    pixels: np.ndarray
    labels: np.ndarray
    healthy: int


def assemble(
    pool: Images, phantoms: Phantoms | None, frequencies: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch of `count` images, half of them phantoms if there are any.

    The classes are drawn by systematic sampling, so that their counts differ from `frequencies` by less than one image.
    The images of a class are drawn uniformly, with replacement. Phantoms are drawn in the same way. The target of a
    phantom with a lesion is the normalized frequencies of all classes but the healthy one.

    Returns:
        uint8 [count, s, s] and the classes' probabilities float32 [count, classes].

    Raises:
        UserError: the pool has no image of a class that is needed.
    """
    generator = np.random.default_rng(seed)
    classes = np.eye(len(frequencies), dtype=np.float32)
    heads = count // 2 if phantoms else 0
    pixels, labels = _pick(pool.pixels, pool.labels, frequencies, count - heads, generator)
    targets = classes[labels]
    if phantoms:
        healthy = frequencies[phantoms.healthy]
        drawn, labels = _pick(phantoms.pixels, phantoms.labels, np.array([healthy, 1 - healthy]), heads, generator)
        meaning = meanings(frequencies, phantoms.healthy)
        pixels, targets = np.concatenate([pixels, drawn]), np.concatenate([targets, meaning[labels]])
    return pixels, targets.astype(np.float32)


def meanings(frequencies: np.ndarray, healthy: int) -> np.ndarray:
    """The targets of phantoms without and with a lesion: class probabilities float [2, classes]."""
    lesions = np.where(np.arange(len(frequencies)) == healthy, 0.0, frequencies)
    return np.stack([np.eye(len(frequencies))[healthy], lesions / lesions.sum()])


def _pick(
    pixels: np.ndarray, labels: np.ndarray, frequencies: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` images and their labels, with the classes in proportion to `frequencies`."""
    marks = (np.arange(count) + generator.random()) / count
    drawn = np.searchsorted(np.cumsum(frequencies)[:-1], marks, side="right")
    indices = np.zeros(count, np.int64)
    for label in np.unique(drawn):
        members = np.flatnonzero(labels == label)
        if not len(members):
            raise UserError(f"no training image of class number {label}: use fewer folds or more images")
        indices[drawn == label] = generator.choice(members, int((drawn == label).sum()))
    return pixels[indices], drawn
