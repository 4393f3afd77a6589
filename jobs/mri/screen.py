"""A quick test whether two pictures may show the same head, on small sketches of them and for many pairs at a time.

It has the steps of `align.agreement` with an eighth of the points or fewer. What passes is left to that alignment.
"""

import numpy as np
from scipy.fft import irfft, irfft2, rfft, rfft2

from jobs.mri.morphology import shrunk_by_square
from jobs.mri.outline import HEAD_SIZE
from jobs.mri.structure import polar, structure

SIDE = HEAD_SIZE // 2  # pixels of a sketch, on a side
# Widths of the Gaussians of the band-pass filters, in pixels of a sketch. The search uses structures like ventricles.
SEARCH_BAND = (1.25, 5.0)
DETAIL_BAND = (0.7, 2.0)
UNIT = 32  # sketches are stored as whole numbers, in this part of the structure's standard deviation
OUTSIDE = -128  # marks pixels outside the head

RINGS, ANGLES, WAVES = 16, 64, 16
INNER_RING, OUTER_RING = 0.15, 1.1  # in radii of the head
RING_RATIO = (OUTER_RING / INNER_RING) ** (1 / (RINGS - 1))
RING_SHIFT = 3  # rings by which two pictures may differ: scale off by 1.5 at most
POSES = 2  # for each of the two centres
MAX_SHIFT = 4  # search points: an eighth of the picture
RIM = 6  # pixels of a sketch, as in the alignment

# The correlation of the best pose, below which a pair is rejected, and then for each stage of the refinement: the band,
# the steps, and the correlation of the detail below which a pair is rejected. Of 674 changed copies of public pictures,
# accepted by the alignment, 0.3 % are rejected, and nearly all of the pairs of different heads. Drawn heads are more
# alike: of their pairs, 1 % pass.
PROMISING = 0.3
STAGES = (("search", 2, 0.5), ("search", 2, 0.7), ("detail", 4, 0.78))

# Every second pixel of a sketch in rows and columns, float32 [2, points].
POINTS = np.indices((SIDE, SIDE), np.float32)[:, ::2, ::2].reshape(2, -1)

BATCH = 128  # pairs that are tested together: about 20 MiB

SKETCH = np.dtype(
    [
        ("search", np.int8, (SIDE, SIDE)),
        ("detail", np.int8, (SIDE, SIDE)),
        ("inner", np.bool_, (SIDE // 2, SIDE // 2)),  # at POINTS: inside, without the rim
        ("rings", np.int8, (2, RINGS, ANGLES)),
        ("circles", np.float32, (2, 3)),
    ]
)


def halved(values: np.ndarray) -> np.ndarray:
    """Return float32 [SIDE, SIDE]: the means of the squares of four pixels of `values`, float32 [128, 128]."""
    return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) / 4


def sketch(even: np.ndarray, cover: np.ndarray, circles: np.ndarray) -> np.ndarray:
    """Return the SKETCH (an array of no dimension) of the halved `even` and `cover` of a head, for `structure`.

    It has the structure in SEARCH_BAND, also on rings around two centres of the head, and that in DETAIL_BAND.
    `circles` [2, 3] are these centres and the radii (y, x, radius), in pixels of a sketch.
    """
    band = structure(even, cover, SEARCH_BAND)
    drawn = np.zeros((), SKETCH)
    drawn["search"] = np.where(cover == 1, _stored(band), OUTSIDE)
    drawn["inner"] = shrunk_by_square(cover == 1, RIM)[::2, ::2]
    drawn["detail"] = _stored(structure(even, cover, DETAIL_BAND))
    drawn["rings"] = _stored(polar(band, circles, INNER_RING * RING_RATIO ** np.arange(RINGS), ANGLES))
    drawn["circles"] = circles
    return drawn


def alike(sketches: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return float32 [n, 2, 3]: the poses of int `pairs` [n, 2] of the `sketches` (SKETCH [m]) with the best agreement.

    A pose is the affine map of (y, x, 1) in the picture [128, 128] of the first head to (y, x) in that of the second.
    It is not-a-number if they cannot be the same head. The search covers any rotation, mirroring, scales up to 1.5
    after the sizes of the heads are made equal, shifts up to an eighth of the picture and slight shear.
    """
    poses = np.full((len(pairs), 2, 3), np.nan, np.float32)
    for start in range(0, len(pairs), BATCH):
        found, matrix, shift = _alike(sketches, *pairs[start : start + BATCH].T)
        place = start + np.flatnonzero(found)
        poses[place, :, :2] = matrix[found]
        poses[place, :, 2] = 2 * shift[found] + 0.5 - 0.5 * matrix[found].sum(-1)
    return poses


def _stored(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values * UNIT), -127, 127).astype(np.int8)


def _alike(sketches: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bool [n], and matrix [n, 2, 2] and shift [n, 2] of (y, x) in the first sketches to that in the second.

    `first` and `second` are numbers [n] of `sketches`, as below.
    """
    poses = _poses(sketches, first, second)
    matrix, shift, height = _best_pose(_searched(sketches, first), _searched(sketches, second), *poses)
    left = np.flatnonzero(height >= PROMISING)
    for band, steps, least in STAGES:
        if not len(left):
            break
        pair = first[left], second[left]
        pose = _descend(sketches, *pair, band, steps, matrix[left], shift[left])
        matrix[left], shift[left] = pose
        left = left[_height(sketches, *pair, *pose) >= least]
    found = np.zeros(len(first), bool)
    found[left] = True
    return found, matrix, shift


def _searched(sketches: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return float32 [n, SIDE, SIDE]: the structure in SEARCH_BAND, 0 outside the heads."""
    stored = sketches["search"][numbers]
    return np.where(stored == OUTSIDE, np.float32(0), stored)


def _poses(sketches: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 [n, p, 2, 2] and [n, p, 2]: matrices and shifts from pixels of one sketch to those of the other.

    They are peaks of the log-polar correlation (Reddy and Chatterji 1996, on the picture instead of its spectrum)
    around each of the two centres.
    """
    count = len(first)
    one, two = (rfft(sketches["rings"][x].astype(np.float32), axis=-1)[..., : WAVES + 1] for x in (first, second))
    circles = [sketches["circles"][x] for x in (first, second)]
    half = np.ones(WAVES + 1, np.float32)
    half[0] = 0.5
    power = [((x.real**2 + x.imag**2) @ half) for x in (one, two)]  # [n, 2, RINGS]
    best = np.full((count, 2, 2, ANGLES), -1, np.float32)  # by centre, mirrored, angle
    ring = np.zeros(best.shape, np.int8)
    both = np.stack([two, two.conj()], axis=2)
    one = one.conj()[:, :, None]
    for shift in range(-RING_SHIFT, RING_SHIFT + 1):
        low, high = max(0, shift), RINGS + min(0, shift)
        norm = np.sqrt(power[0][..., low - shift : high - shift].sum(-1) * power[1][..., low:high].sum(-1)) + 1e-3
        match = irfft((one[..., low - shift : high - shift, :] * both[..., low:high, :]).sum(-2), ANGLES) * (ANGLES / 2)
        match /= norm[..., None, None]
        ring[match > best] = shift
        np.maximum(best, match, out=best)
    peaks = (best >= np.roll(best, 1, -1)) & (best > np.roll(best, -1, -1))
    flat = np.where(peaks, best, -2).reshape(count, 2, -1)
    chosen = np.argsort(-flat, axis=-1, kind="stable")[..., :POSES]
    mirrored, turn = np.divmod(chosen, ANGLES)
    rings = np.take_along_axis(ring.reshape(flat.shape), chosen, -1).astype(np.float32)
    scale = (circles[1][..., 2] / circles[0][..., 2])[..., None] * RING_RATIO**rings
    cosine, sine = scale * np.cos(turn * (2 * np.pi / ANGLES)), scale * np.sin(turn * (2 * np.pi / ANGLES))
    sign = 1 - 2 * mirrored
    matrix = np.stack([np.stack([sign * cosine, sign * sine], -1), np.stack([-sine, cosine], -1)], -2)
    centers = [x[:, :, None, :2] for x in circles]
    shift = centers[1] - (matrix @ centers[0][..., None])[..., 0]
    return matrix.reshape(count, -1, 2, 2).astype(np.float32), shift.reshape(count, -1, 2).astype(np.float32)


def _padded(pictures: np.ndarray, value: int = 0) -> np.ndarray:
    padded = np.full((len(pictures), SIDE + 2, SIDE + 2), value, pictures.dtype)
    padded[:, 1:-1, 1:-1] = pictures
    return padded


def _positions(matrix: np.ndarray, shift: np.ndarray, largest: float) -> np.ndarray:
    """Return float32 [n, ..., 2, points]: where POINTS are in pictures with a rim of one pixel."""
    at = matrix @ POINTS
    at += (shift + 1)[..., None]
    return np.clip(at, 0, largest, out=at)


def _places(at: np.ndarray) -> np.ndarray:
    """Return int [n, ..., points]: the places of whole positions `at` among the pixels of all n padded pictures."""
    first = (np.arange(len(at), dtype=np.int32) * (SIDE + 2) ** 2).reshape(-1, *[1] * (at.ndim - 2))
    return at[..., 0, :] * (SIDE + 2) + at[..., 1, :] + first


def _nearest(matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return int [n, ..., points]: the places of the pixels nearest to POINTS."""
    return _places((_positions(matrix, shift, SIDE + 1) + 0.5).astype(np.int32))


def _between(padded: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return float32 [n, points]: `padded` at POINTS, by bilinear interpolation."""
    at = _positions(matrix, shift, SIDE + 0.999)
    low = at.astype(np.int32)
    (y, x), flat, place = np.moveaxis(at - low, 1, 0), padded.ravel(), _places(low)
    left = flat.take(place)
    above = left + x * (flat.take(place + 1) - left)
    left = flat.take(place + SIDE + 2)
    below = left + x * (flat.take(place + SIDE + 3) - left)
    return above + y * (below - above)


def _best_pose(
    fixed: np.ndarray, moving: np.ndarray, matrices: np.ndarray, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return matrix [n, 2, 2] and shift [n, 2] of the pose with the highest correlation at its best shift, and that."""
    count, poses = shifts.shape[:2]
    still, turned = fixed[:, ::2, ::2], _padded(moving).ravel().take(_nearest(matrices, shifts))
    points = still.shape[1:]
    match = irfft2(rfft2(still).conj()[:, None] * rfft2(turned.reshape(count, poses, *points)), s=points)
    side = 2 * MAX_SHIFT + 1
    match = np.roll(match, (MAX_SHIFT, MAX_SHIFT), (-2, -1))[..., :side, :side].reshape(count, poses, -1)
    height = match.max(-1) / (np.sqrt((turned**2).sum(-1)) + 1e-3)
    rows, pose = np.arange(count), height.argmax(-1)
    height = height[rows, pose] / (np.sqrt((still**2).sum((1, 2))) + 1e-3)
    match = match[rows, pose]
    best = match.argmax(-1)
    moved = np.empty((count, 2), np.float32)
    for axis, place, stride in ((0, best // side, side), (1, best % side, 1)):
        # The vertex of the parabola through the peak and its neighbours.
        within = (place > 0) & (place < side - 1)
        before, after = (match[rows, np.where(within, best + way * stride, best)] for way in (-1, 1))
        bend = 2 * match[rows, best] - before - after
        moved[:, axis] = 2 * (place - MAX_SHIFT + np.where(bend > 0, (after - before) / (2 * bend + 1e-9), 0))
    matrix = matrices[rows, pose]
    return matrix, shifts[rows, pose] + (matrix @ moved[..., None])[..., 0], height


def _descend(
    sketches: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    band: str,
    steps: int,
    matrix: np.ndarray,
    shift: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix and shift after `steps` Gauss-Newton steps of the affine map, on the search band or the detail."""
    count, size, middle = len(first), np.float32(SIDE / 4), np.float32(SIDE / 2)
    outline = _padded(sketches["search"][second], OUTSIDE).ravel()
    if band == "search":
        fixed, weight = _searched(sketches, first), sketches["search"][first, ::2, ::2] != OUTSIDE
    else:
        fixed, weight = sketches["detail"][first].astype(np.float32), sketches["inner"][first]
        moving = _padded(sketches["detail"][second].astype(np.float32))
    weight = weight.reshape(count, -1).astype(np.float32)
    values = fixed[:, ::2, ::2].reshape(count, -1)
    around = _padded(fixed)
    by_y = (around[:, 2::2, 1:-1:2] - around[:, :-2:2, 1:-1:2]).reshape(count, -1) * (weight / 2)
    by_x = (around[:, 1:-1:2, 2::2] - around[:, 1:-1:2, :-2:2]).reshape(count, -1) * (weight / 2)
    y, x = (POINTS - middle) / size
    descent = np.stack([by_y * y, by_y * x, by_y, by_x * y, by_x * x, by_x], axis=1)
    normal = (descent @ descent.transpose(0, 2, 1)).astype(np.float64)
    diagonal = np.arange(6)
    normal[:, diagonal, diagonal] = 1.001 * normal[:, diagonal, diagonal] + 1e-3
    inverse = np.linalg.inv(normal)
    warp = np.tile(np.eye(3), (count, 1, 1))  # of coordinates from the middle of the sketch
    warp[:, :2, :2], warp[:, :2, 2] = matrix, shift + matrix @ np.full(2, middle)
    for _ in range(steps):
        near = outline.take(_nearest(matrix, shift))
        seen = near if band == "search" else _between(moving, matrix, shift)
        common = weight * (near != OUTSIDE)
        still, error = _centered(values, common), _centered(seen, common)
        error *= np.sqrt(_power(still) / (_power(error) + 1e-3))[:, None]
        error -= still
        change = np.tile(np.eye(3), (count, 1, 1))
        change[:, :2] += (inverse @ (descent @ error[..., None]))[..., 0].reshape(count, 2, 3) / [size, size, 1]
        usable = np.abs(np.linalg.det(change)) > 0.1
        warp[usable] = warp[usable] @ np.linalg.inv(change[usable])
        matrix = warp[:, :2, :2].astype(np.float32)
        shift = warp[:, :2, 2].astype(np.float32) - matrix @ np.full(2, middle)
    return matrix, shift


def _power(values: np.ndarray) -> np.ndarray:
    return np.einsum("np,np->n", values, values)


def _centered(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return float32 [n, points]: `values` minus their mean where `weight` is 1, and 0 where it is 0."""
    mean = np.einsum("np,np->n", values, weight) / (weight.sum(-1) + 1e-3)
    return (values - mean[:, None]) * weight


def _height(
    sketches: np.ndarray, first: np.ndarray, second: np.ndarray, matrix: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Return float32 [n]: the correlation of the detail inside both heads, without the rim of the first."""
    near = _padded(sketches["search"][second], OUTSIDE).ravel().take(_nearest(matrix, shift))
    common = (sketches["inner"][first].reshape(near.shape) & (near != OUTSIDE)).astype(np.float32)
    values = sketches["detail"][first, ::2, ::2].reshape(near.shape).astype(np.float32)
    seen = _between(_padded(sketches["detail"][second].astype(np.float32)), matrix, shift)
    one, two = _centered(values, common), _centered(seen, common)
    return np.einsum("np,np->n", one, two) / np.sqrt(_power(one) * _power(two) + 1e-3)
