"""Alignment of two pictures of heads, and the correlation of their inner structure."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from jobs.mri.outline import HEAD_SIZE, center_and_radius, outline
from jobs.mri.structure import ranks, sample, structure

# Widths of the Gaussians of the band-pass filter, in pixels, for structures like sulci. Recompression removes finer
# detail; coarser structure is similar in all heads.
VERDICT_BAND = (1.2, 6.0)
STEP = 2  # the alignment uses every second pixel; only the verdict uses all pixels
STEPS = 6
RIM = 12  # pixels: the verdict ignores scalp and skull, which are similar in many heads
MIN_COMMON = 0.5  # share of the smaller head that must be in both pictures

_PIXELS = np.indices((HEAD_SIZE, HEAD_SIZE)).astype(np.float32)


@dataclass(frozen=True)
class Head:
    """The data of one picture for alignment: computed once, used for many pairs.

    The pictures are float32 [HEAD_SIZE, HEAD_SIZE]; `offsets`, `values` and `descent` are those of n points inside the
    outline, for the descent of another head to this one.
    """

    outline: np.ndarray  # 1 inside the head, 0 outside
    depth: np.ndarray  # pixels from the outline, 0 outside
    structure: np.ndarray  # in VERDICT_BAND
    center: np.ndarray  # float64 [2]: (y, x) in pixels
    offsets: np.ndarray  # float32 [2, n]: (y, x) from the centre
    values: np.ndarray  # float32 [n]: of the structure
    descent: np.ndarray  # float32 [n, 6]: derivative of the value by each parameter of the affine map


def prepare_head(image: np.ndarray) -> Head:
    """Return the data for the alignment of `image` (uint8 [128, 128], filled by a head)."""
    inside = outline(image)
    cover = inside.astype(np.float32)
    band = structure(ranks(image, inside), cover, VERDICT_BAND)
    center, _ = center_and_radius(inside)
    sampled = inside[::STEP, ::STEP]
    y, x = offsets = (_PIXELS[:, ::STEP, ::STEP][:, sampled] - center[:, None]).astype(np.float32)
    by_y, by_x = (slope[::STEP, ::STEP][sampled] for slope in np.gradient(band))
    return Head(
        outline=cover,
        depth=ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1].astype(np.float32),
        structure=band,
        center=center,
        offsets=offsets,
        values=band[::STEP, ::STEP][sampled],
        descent=np.stack([by_y * y, by_y * x, by_y, by_x * y, by_x * x, by_x], axis=1),
    )


def agreement(fixed: Head, moving: Head, pose: np.ndarray) -> float:
    """Return the correlation, -1 to 1, of the inner structure of two heads after the best alignment near a `pose`.

    `pose` is the affine map [2, 3] of (y, x, 1) in the picture of `fixed` to (y, x) in that of `moving`, as `alike` in
    jobs/mri/screen.py finds it. Inverse compositional descent (Baker and Matthews 2004) refines it. The result is -1 if
    the heads have little in common.
    """
    matrix, shift = _descend(fixed, moving, pose[:, :2], pose @ [*fixed.center, 1])
    at = _positions(matrix, shift, _PIXELS.reshape(2, -1) - fixed.center[:, None]).reshape(_PIXELS.shape)
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    common = (fixed.depth > 0) & (sample(moving.depth, at) > 0.5)
    smaller = min(np.count_nonzero(fixed.depth), np.count_nonzero(moving.depth) / max(scale, 1e-6) ** 2)
    if np.count_nonzero(common) < MIN_COMMON * smaller:
        return -1.0
    inner = common & (fixed.depth > RIM)
    return _correlation(fixed.structure[inner], sample(moving.structure, at[:, inner]))


def _positions(matrix: np.ndarray, shift: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return where points of the fixed picture are in the moving one: `offsets` [2, n] from the centre, at `shift`."""
    return (matrix @ offsets + shift[:, None]).astype(np.float32)


def _descend(fixed: Head, moving: Head, matrix: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix [2, 2] and shift [2] after up to STEPS Gauss-Newton steps of the affine map."""
    warp = np.eye(3)
    warp[:2, :2], warp[:2, 2] = matrix, shift
    for _ in range(STEPS):
        at = _positions(warp[:2, :2], warp[:2, 2], fixed.offsets)
        common = sample(moving.outline, at) > 0.5
        if np.count_nonzero(common) < 0.3 * len(common):
            break
        values, seen = fixed.values[common], sample(moving.structure, at[:, common])
        # The pictures differ in contrast: the sampled values first get the mean and spread of the template.
        error = (seen - seen.mean()) / (seen.std() + 1e-6) * values.std() + values.mean() - values
        descent = fixed.descent[common]
        normal = (descent.T @ descent).astype(np.float64)
        normal[np.diag_indices(6)] *= 1.001
        step = np.linalg.solve(normal + 1e-6 * np.eye(6), descent.T @ error).reshape(2, 3)
        change = np.eye(3)
        change[:2] += step
        if abs(np.linalg.det(change)) < 0.1:
            break
        warp = warp @ np.linalg.inv(change)
        if np.abs(step[:, 2]).max() < 0.02 and np.abs(step[:, :2]).max() < 5e-4:
            break
    return warp[:2, :2], warp[:2, 2]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2:
        return -1.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second) + 1e-12))
