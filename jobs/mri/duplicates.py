"""Search for near-duplicates: rotated, mirrored, scaled, recompressed, brightened or slightly cropped copies.

There are three steps. Descriptors that are invariant to rotation and mirroring propose each picture's nearest
neighbours. An alignment of small sketches rejects most of these pairs. Since all heads look similar, an alignment of
the two pictures, from the pose of the sketches, then decides.
"""

import pickle
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.fft import rfft

from jobs.common.errors import MachineError
from jobs.mri import readers, screen
from jobs.mri.align import agreement, prepare_head
from jobs.mri.outline import HEAD_SIZE, center_and_radius, ellipse, outline
from jobs.mri.slices import Unusable
from jobs.mri.structure import blurring, polar, ranks, structure

DESCRIPTOR_BAND = (2.0, 7.0)  # pixels of a sketch
DESCRIPTOR_RINGS = 8
DESCRIPTOR_WAVES = 14  # frequencies along a ring: 1 to 14 waves
DESCRIPTOR_ANGLES = 64

CANDIDATES = 20  # proposed for each picture
BLOCK_ROWS, BLOCK_COLUMNS = 1024, 4096  # size of a block of the similarity matrix: 16 MiB, used again by the next

# Correlation of the inner structure after alignment. For 253 public pictures no value is between 0.70 and 0.95, and
# copies made of them are above 0.85; slices of a volume 4.4 mm apart reach 0.57, 2.2 mm apart 0.80.
SAME = 0.84

SCREENED, ALIGNED = 2048, 128  # pairs that a process tests at a time: about a second each
KEPT_IN_MEMORY = 256  # prepared pictures, about 0.3 MiB each

# What is computed once for each picture.
DESCRIPTION = np.dtype(
    [("descriptors", np.float32, (2, DESCRIPTOR_RINGS * DESCRIPTOR_WAVES)), ("sketch", screen.SKETCH)]
)


def for_comparison(image: np.ndarray) -> np.ndarray:
    """Return an image of a dataset, uint8 [size, size], resampled for comparison: uint8 [128, 128]."""
    return np.asarray(Image.fromarray(image).resize((HEAD_SIZE, HEAD_SIZE), Image.Resampling.BICUBIC))


def describe(image: np.ndarray) -> np.ndarray:
    """Return the DESCRIPTION (an array of no dimension) of `image` (uint8 [128, 128]).

    The descriptors are invariant to rotation and mirroring. They consist of Fourier magnitudes along rings around two
    centres of the head: that of its area, and that of an ellipse, which is the better one if a part is cut off.
    """
    inside = outline(_checked(image))
    even, cover = screen.halved(ranks(image, inside)), screen.halved(inside.astype(np.float32))
    found = center_and_radius(inside), ellipse(inside)
    circles = np.array([[*(center - 0.5) / 2, radius / 2] for center, radius in found])
    # The rings scale with the head.
    radii = np.linspace(0.1, 1.0, 4 * DESCRIPTOR_RINGS)
    rings = polar(structure(even, cover, DESCRIPTOR_BAND), circles, radii, DESCRIPTOR_ANGLES)
    waves = np.abs(rfft(rings)[..., 1 : DESCRIPTOR_WAVES + 1])
    # Smoothing across rings makes the descriptor robust against small errors of the head's size.
    smooth = blurring(len(radii), 2.0, "reflect", 4.0)[1::4]
    described = np.sqrt(smooth @ waves).reshape(2, -1)
    description = np.zeros((), DESCRIPTION)
    description["descriptors"] = described / (np.linalg.norm(described, axis=1, keepdims=True) + 1e-9)
    description["sketch"] = screen.sketch(even, cover, circles)
    return description


def propose(descriptors: np.ndarray, neighbours: int = CANDIDATES) -> np.ndarray:
    """Return int64 [pairs, 2], sorted: the pairs (i, j), i < j, of which one is among the other's `neighbours` nearest.

    `descriptors` is float [n, 2, d]. Similarity is the cosine after subtraction of the mean, of the first or the second
    descriptors, whichever is larger. The search is exact, and only one block of the similarity matrix is in memory at a
    time.
    """
    count = len(descriptors)
    neighbours = min(neighbours, count - 1)
    if neighbours < 1:
        return np.zeros((0, 2), np.int64)
    unit = _unit(descriptors, np.asarray(np.mean(descriptors, axis=0, dtype=np.float64)))
    pairs = []
    for start in range(0, count, BLOCK_ROWS):
        rows, columns = _nearest(unit, start, neighbours)
        low, high = np.minimum(rows, columns), np.maximum(rows, columns)
        pairs.append(np.unique(low * count + high))
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), count), axis=1)


def near_duplicates(
    descriptors: np.ndarray, sketch: Callable[[int], np.ndarray], load: Callable[[int], np.ndarray]
) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, sorted, that show the same picture, altered or not.

    Different heads, and slices of a volume a few millimetres apart, do not count as the same picture.
    `descriptors` [n, 2, d] are those of the n pictures, from `describe`; `sketch(i)` gives the sketch of picture i,
    and `load(i)` its pixels, uint8 [128, 128].
    All cores are used if there are many pairs. Raises MachineError if a process ends early.
    """
    pairs = propose(descriptors)
    poses = _spread(_alike, pairs, None, SCREENED, sketch).reshape(-1, 2, 3)
    alike = np.isfinite(poses[:, 0, 0])
    pairs, poses = pairs[alike], poses[alike]
    same = _spread(_same, pairs, poses, ALIGNED, load) >= SAME
    return [(i, j) for i, j in pairs[same].tolist()]


def repeats(pictures: np.ndarray, descriptions: np.ndarray, load: Callable[[int], np.ndarray]) -> list[list[int]]:
    """Return for each of `pictures`, uint8 [n, 128, 128], the numbers of the known pictures that show the same.

    `descriptions` and `load` give the known pictures, as in near_duplicates. Only the CANDIDATES with the most similar
    descriptors are aligned.
    """
    kept = lru_cache(KEPT_IN_MEMORY)(lambda index: prepare_head(_checked(load(index))))
    mean = np.mean(descriptions["descriptors"], axis=0)
    known = _unit(descriptions["descriptors"], mean)
    found = []
    for picture in pictures:
        own = describe(picture)
        nearest = np.argsort(-_similarity(_unit(own["descriptors"][None], mean), known)[0], kind="stable")[:CANDIDATES]
        sketches = np.concatenate([descriptions["sketch"][nearest], own["sketch"][None]])
        pairs = np.stack([np.arange(len(nearest)), np.full(len(nearest), len(nearest))], axis=1)
        poses = screen.alike(sketches, pairs)
        alike = np.isfinite(poses[:, 0, 0])
        head = prepare_head(picture)
        posed = zip(nearest[alike].tolist(), poses[alike], strict=True)
        found.append([index for index, pose in posed if agreement(kept(index), head, pose) >= SAME])
    return found


def _spread(
    test: Callable[[bytes, str], bytes],
    pairs: np.ndarray,
    poses: np.ndarray | None,
    together: int,
    load: Callable[[int], np.ndarray],
) -> np.ndarray:
    """Return the float32 results of a `test` of int64 `pairs` [n, 2], `together` of them at a time, in order.

    The test gets the pairs, their `poses` [n, 2, 3] and the data of their pictures, from `load`, as _packed writes
    them. It runs in the reader processes if there are many pairs.
    """
    starts = range(0, len(pairs), together)
    work = (
        ("", _packed(pairs[start : start + together], None if poses is None else poses[start : start + together], load))
        for start in starts
    )
    results: Iterable[object]
    if len(starts) < 2:
        results = (test(data, name) for name, data in work)
    else:
        results = (result for _, result in readers.shared().map(test, work))
    found = []
    for result in results:
        if isinstance(result, Unusable):
            raise MachineError(f"the search for near-duplicates failed in a process: {result.detail}")
        assert isinstance(result, bytes)
        found.append(result)
    return np.frombuffer(b"".join(found), np.float32)


def _packed(pairs: np.ndarray, poses: np.ndarray | None, load: Callable[[int], np.ndarray]) -> bytes:
    """Return, pickled, the pairs, renumbered, their poses and the bytes of their pictures, each once."""
    used, renumbered = np.unique(pairs, return_inverse=True)
    pictures = b"".join(load(index).tobytes() for index in used.tolist())
    return pickle.dumps((renumbered.reshape(-1, 2), poses, pictures))


def _alike(data: bytes, name: str) -> bytes:
    pairs, _, pictures = pickle.loads(data)
    return screen.alike(np.frombuffer(pictures, screen.SKETCH), pairs).tobytes()


def _same(data: bytes, name: str) -> bytes:
    pairs, poses, pictures = pickle.loads(data)
    pixels = np.frombuffer(pictures, np.uint8).reshape(-1, HEAD_SIZE, HEAD_SIZE)
    kept = lru_cache(KEPT_IN_MEMORY)(lambda index: prepare_head(pixels[index]))
    posed = zip(pairs.tolist(), poses, strict=True)
    return np.array([agreement(kept(i), kept(j), pose) for (i, j), pose in posed], np.float32).tobytes()


def _checked(image: np.ndarray) -> np.ndarray:
    if image.shape != (HEAD_SIZE, HEAD_SIZE) or image.dtype != np.uint8:
        raise ValueError(
            f"pictures are compared as uint8 [{HEAD_SIZE}, {HEAD_SIZE}], not {image.dtype} {list(image.shape)}"
        )
    return image


def _unit(descriptors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return float32 [2, n, d] of `descriptors` [n, 2, d] minus the `mean` [2, d], each of length 1."""
    unit = np.empty((2, len(descriptors), descriptors.shape[-1]), np.float32)
    for kind, values in enumerate(unit):
        values[:] = descriptors[:, kind] - mean[kind]
        values /= np.linalg.norm(values, axis=1, keepdims=True) + 1e-9
    return unit


def _similarity(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return float32 [n, m] of descriptors [2, n, d] and [2, m, d]: the larger cosine of the two kinds."""
    near = one[0] @ two[0].T
    return np.maximum(near, one[1] @ two[1].T, out=near)


def _nearest(unit: np.ndarray, start: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column numbers of the `neighbours` nearest to a block of rows of `unit` [2, n, d]."""
    block = unit[:, start : start + BLOCK_ROWS]
    count = block.shape[1]
    rows = columns = np.empty(0, np.int64)
    values = np.empty(0, np.float32)
    floor = np.full(count, -np.inf, np.float32)
    for left in range(0, unit.shape[1], BLOCK_COLUMNS):
        near = _similarity(block, unit[:, left : left + BLOCK_COLUMNS])
        own = np.arange(count) + start - left
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
        first = np.searchsorted(rows, np.arange(count))
        rank = np.arange(len(rows)) - first[rows]
        keep = (rank < neighbours) & (values > -np.inf)
        rows, columns, values, rank = rows[keep], columns[keep], values[keep], rank[keep]
        full = rank == neighbours - 1
        floor[rows[full]] = values[full]
    return rows + start, columns
