"""Detection of copied training images: pixel distances of images to their nearest training and held-out images."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Copies are detected as reliably at this size as at 256 pixels, with a sixteenth of the work.
SIZE = 64
# Maximum ratio, for a copy, of the distance to the training image and the distance to the nearest held-out image.
COPY = 2 / 3
# Threshold of suspicion: without copying, the estimated share of copies is smaller (see `copies`).
SUSPICIOUS = 0.15


class Nearest(NamedTuple):
    """For each query: the number of its nearest reference, whether that is mirrored, and the distance [gray levels]."""

    number: np.ndarray
    mirrored: np.ndarray
    distance: np.ndarray


def nearest(
    queries: np.ndarray,
    references: Iterable[np.ndarray],
    query_groups: Sequence[str] = (),
    reference_groups: Sequence[str] = (),
) -> Nearest:
    """Return for each of `queries`, uint8 [n, size, size], the nearest of `references`, blocks of the same kind.

    Distance is the root mean square difference of pixels, in gray levels (0-255), of the images shrunk to at most 64
    pixels; the nearer of a reference and its mirror image counts. A query is not compared with references of its own
    group. If no reference is left, the number is -1 and the distance infinite. One block at a time is in memory.
    """
    flat = _flat(queries)
    norms = np.sum(flat**2, axis=1)
    best = Nearest(np.full(len(flat), -1), np.zeros(len(flat), bool), np.full(len(flat), np.inf))
    own, others = np.asarray(query_groups), np.asarray(reference_groups)
    start = 0
    for block in filter(len, references):
        for mirrored in (False, True):
            there = _flat(block[:, :, ::-1] if mirrored else block)
            squares = norms[:, np.newaxis] + np.sum(there**2, axis=1) - 2 * flat @ there.T
            if len(own) and len(others):
                squares[own[:, np.newaxis] == others[start : start + len(there)]] = np.inf
            index = np.argmin(squares, axis=1)
            distance = np.sqrt(np.maximum(squares[np.arange(len(flat)), index], 0) / flat.shape[1])
            nearer = distance < best.distance
            best.number[nearer] = start + index[nearer]
            best.mirrored[nearer] = mirrored
            best.distance[nearer] = distance[nearer]
        start += len(block)
    return best


def _flat(images: np.ndarray) -> np.ndarray:
    """Return images as float64 [n, pixels], shrunk by averaging to at most SIZE pixels a side."""
    factor = -(-images.shape[1] // SIZE)
    side = images.shape[1] // factor
    cut = images[:, : side * factor, : side * factor].astype(np.float64)
    return cut.reshape(len(images), side, factor, side, factor).mean(axis=(2, 4)).reshape(len(images), side * side)


def copies(to_training: np.ndarray, to_held_out: np.ndarray) -> float:
    """Return the share of images that copy the training set, from each one's distance to either set; -1 to 1.

    For a copy, the distance to the nearest training image is less than two thirds of the distance to the nearest
    held-out image. Such images also occur by chance, but then equally often with the roles of both sets exchanged:
    that share is subtracted. The expected value is therefore 0 for a generator that copies nothing, also for blurred,
    dark or noisy images. (A threshold on the distance to the training set would classify every blurred image as a copy,
    because blurred images are near all images.)

    Held-out images as the control: Meehan et al., "A non-parametric test to detect data-copying in generative models",
    AISTATS 2020 (https://arxiv.org/abs/2004.05675); the ratio of distances: Yoon et al., "Diffusion probabilistic
    models generalize when they fail to memorize", ICML 2023 workshop.
    """
    return float(np.mean(to_training < COPY * to_held_out) - np.mean(to_held_out < COPY * to_training))


def memorization(generated: tuple[Nearest, Nearest], held_out: tuple[Nearest, Nearest]) -> dict[str, Any]:
    """Return the share of copies, from the nearest (training, held-out) images of generated and of held-out images.

    Returns:
        copies: {generated, real}: see `copies`. `real` is the value of the held-out images compared with other groups,
            which shows the effect of chance and unequal set sizes; null if there is only one group.
        distance: {generated, real}: median distance to the nearest training image, gray levels.
        suspicious: whether `copies` of generated images exceeds both 0 and that of real ones by more than 0.15.

    Without held-out images `copies`, the real distance and `suspicious` are null.
    """
    comparable = np.isfinite(held_out[1].distance)
    share = copies(generated[0].distance, generated[1].distance) if len(comparable) else None
    chance = copies(*(near.distance[comparable] for near in held_out)) if comparable.any() else None
    return {
        "copies": {"generated": _rounded(share), "real": _rounded(chance)},
        "distance": {
            "generated": _rounded(float(np.median(generated[0].distance))),
            "real": _rounded(float(np.median(held_out[0].distance))) if len(comparable) else None,
        },
        "suspicious": None if share is None else bool(share - max(0.0, chance or 0.0) > SUSPICIOUS),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
