"""Search for near-duplicates: rotated, mirrored, scaled, recompressed, brightened or slightly cropped copies.

There are two steps. A descriptor that is invariant to rotation and mirroring proposes each picture's nearest
neighbours. Since all heads look similar, an alignment of the two pictures then decides.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.fft import rfft

from jobs.mri.align import HEAD_SIZE, agreement, center_and_radius, outline, polar, prepare_head, structure

DESCRIPTOR_BAND = (4.0, 14.0)  # pixels
DESCRIPTOR_RINGS = 16
DESCRIPTOR_WAVES = 14  # frequencies along a ring: 1 to 14 waves
DESCRIPTOR_ANGLES = 128

CANDIDATES = 20  # proposed for each picture
BLOCK_ROWS, BLOCK_COLUMNS = 2048, 8192  # size of a block of the similarity matrix: 64 MiB

# Correlation of the inner structure after alignment. For 253 public pictures no value is between 0.70 and 0.95, and
# copies made of them are above 0.85; slices of a volume 4.4 mm apart reach 0.57, 2.2 mm apart 0.80.
SAME = 0.84

KEPT_IN_MEMORY = 256  # prepared pictures, about 0.7 MiB each


def for_comparison(image: np.ndarray) -> np.ndarray:
    """Return an image of a dataset, uint8 [size, size], resampled for comparison: uint8 [128, 128]."""
    return np.asarray(Image.fromarray(image).resize((HEAD_SIZE, HEAD_SIZE), Image.Resampling.BICUBIC))


def describe(image: np.ndarray) -> np.ndarray:
    """Return a descriptor of `image` (uint8 [128, 128]), float32 [224], invariant to rotation and mirroring.

    It consists of Fourier magnitudes along rings around the head's centre; the rings scale with the head.
    """
    inside = outline(_checked(image))
    center, radius = center_and_radius(inside)
    band = structure(image, inside, DESCRIPTOR_BAND)
    radii = radius * np.linspace(0.1, 1.0, 2 * DESCRIPTOR_RINGS)
    rings = polar(band, center, radii, DESCRIPTOR_ANGLES)
    waves = np.abs(rfft(rings, axis=1)[:, 1 : DESCRIPTOR_WAVES + 1]) * np.sqrt(radii / radii[-1])[:, None]
    # Smoothing across rings makes the descriptor robust against small errors of the head's size.
    described = np.sqrt(ndimage.gaussian_filter1d(waves, 2.0, axis=0)[::2]).ravel()
    return (described / (np.linalg.norm(described) + 1e-9)).astype(np.float32)


def propose(descriptors: np.ndarray, neighbours: int = CANDIDATES) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, sorted, of which one is among the other's nearest `neighbours`.

    `descriptors` is float [n, d]. Similarity is the cosine after subtraction of the mean. The search is exact, and only
    one block of the similarity matrix is in memory at a time.
    """
    count = len(descriptors)
    neighbours = min(neighbours, count - 1)
    if neighbours < 1:
        return []
    centered = (descriptors - np.mean(descriptors, axis=0, dtype=np.float64)).astype(np.float32)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True) + 1e-9
    pairs = []
    for start in range(0, count, BLOCK_ROWS):
        rows, columns = _nearest(centered, start, neighbours)
        low, high = np.minimum(rows, columns), np.maximum(rows, columns)
        pairs.append(np.unique(low * count + high))
    keys = np.unique(np.concatenate(pairs))
    return list(zip((keys // count).tolist(), (keys % count).tolist(), strict=True))


def near_duplicates(descriptors: np.ndarray, load: Callable[[int], np.ndarray]) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, sorted, that show the same picture, altered or not.

    Different heads, and slices of a volume a few millimetres apart, do not count as the same picture.
    `descriptors` is float [n, d], a row from `describe` for each picture; `load(i)` gives picture i, uint8 [128, 128].
    """
    kept = lru_cache(KEPT_IN_MEMORY)(lambda index: prepare_head(_checked(load(index))))
    return [(i, j) for i, j in propose(descriptors) if agreement(kept(i), kept(j)) >= SAME]


def repeats(pictures: np.ndarray, descriptors: np.ndarray, load: Callable[[int], np.ndarray]) -> list[list[int]]:
    """Return for each of `pictures`, uint8 [n, 128, 128], the numbers of the known pictures that show the same.

    `descriptors` and `load` give the known pictures, as in near_duplicates. Only the CANDIDATES with the most similar
    descriptors are aligned.
    """
    kept = lru_cache(KEPT_IN_MEMORY)(lambda index: prepare_head(_checked(load(index))))
    mean = np.mean(descriptors, axis=0)
    own, others = (x - mean for x in (np.stack([describe(one) for one in pictures]), descriptors))
    alike = own @ (others / (np.linalg.norm(others, axis=1, keepdims=True) + 1e-9)).T
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :CANDIDATES]
    heads = zip(map(prepare_head, pictures), nearest.tolist(), strict=True)
    return [[index for index in candidates if agreement(kept(index), head) >= SAME] for head, candidates in heads]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.shape != (HEAD_SIZE, HEAD_SIZE) or image.dtype != np.uint8:
        raise ValueError(
            f"pictures are compared as uint8 [{HEAD_SIZE}, {HEAD_SIZE}], not {image.dtype} {list(image.shape)}"
        )
    return image


def _nearest(unit: np.ndarray, start: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column numbers of the nearest `neighbours` of rows start … start + BLOCK_ROWS of `unit` [n, d]."""
    block = unit[start : start + BLOCK_ROWS]
    rows = columns = np.empty(0, np.int64)
    values = np.empty(0, np.float32)
    floor = np.full(len(block), -np.inf, np.float32)
    for left in range(0, len(unit), BLOCK_COLUMNS):
        near = block @ unit[left : left + BLOCK_COLUMNS].T
        own = np.arange(len(block)) + start - left
        here = (own >= 0) & (own < near.shape[1])
        near[np.flatnonzero(here), own[here]] = -np.inf
        if left == 0 and near.shape[1] > neighbours + 1:
            # The most similar of the first columns give a threshold that excludes most of the others.
            few = near[:, : max(1024, neighbours + 1)]
            place = few.shape[1] - neighbours
            floor = np.partition(few, place, axis=1)[:, place]
        row, column = np.divmod(np.flatnonzero(near >= floor[:, None]), near.shape[1])
        rows, columns = np.concatenate([rows, row]), np.concatenate([columns, column + left])
        values = np.concatenate([values, near[row, column]])
        order = np.lexsort((columns, -values, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        first = np.searchsorted(rows, np.arange(len(block)))
        rank = np.arange(len(rows)) - first[rows]
        keep = (rank < neighbours) & (values > -np.inf)
        rows, columns, values, rank = rows[keep], columns[keep], values[keep], rank[keep]
        full = rank == neighbours - 1
        floor[rows[full]] = values[full]
    return rows + start, columns
