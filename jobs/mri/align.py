"""Alignment of two pictures of heads, and the correlation of their inner structure."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.fft import irfft2, rfft2

from jobs.mri.morphology import closed, filled, opened

HEAD_SIZE = 128  # pixels; every picture here is HEAD_SIZE x HEAD_SIZE

# Widths of the Gaussians of the band-pass filters, in pixels. The search uses structures like ventricles, the verdict
# structures like sulci. Recompression removes finer detail; coarser structure is similar in all heads.
SEARCH_BAND = (2.5, 10.0)
VERDICT_BAND = (1.2, 6.0)

STEP = 2  # the alignment uses every second pixel; only the verdict uses all pixels
ANGLES = 256
RINGS = 32
INNER_RING, OUTER_RING = 0.15, 1.25  # in radii of the head
RING_RATIO = (OUTER_RING / INNER_RING) ** (1 / (RINGS - 1))
RING_SHIFT = 6  # rings by which two pictures may differ: scale off by 1.5 at most
POSES = 5  # poses whose shift is searched
REFINED = 2  # of these, the poses that are refined
# A pose with a lower correlation in the search band is rejected before and after its refinement. Copies are above 0.44
# and 0.8, half of the other pairs below 0.32 and 0.4.
PROMISING, ALIKE = 0.35, 0.6
MAX_SHIFT = 8  # search pixels: an eighth of the picture
RIM = 12  # pixels: the verdict ignores scalp and skull, which are similar in many heads
ELLIPSE_RIM = 2  # pixels beside the bounding box that do not show the outline if it is cut off
MIN_COMMON = 0.5  # share of the smaller head that must be in both pictures

_PIXELS = np.indices((HEAD_SIZE, HEAD_SIZE)).astype(np.float32)


@dataclass(frozen=True)
class Template:
    """The reference of an alignment: n points inside the outline of a head, in one band."""

    offsets: np.ndarray  # float32 [2, n]: (y, x) from the head's centre
    values: np.ndarray  # float32 [n]
    descent: np.ndarray  # float32 [n, 6]: derivative of the value by each parameter of the affine map


@dataclass(frozen=True)
class Head:
    """The data of one picture for alignment: computed once, used for many pairs."""

    center: np.ndarray  # float64 [2]: (y, x) in pixels
    radius: float  # pixels, of the disk with the head's area
    outline: np.ndarray  # float32 [HEAD_SIZE, HEAD_SIZE]: 1 inside the head, 0 outside
    inside: np.ndarray  # float32 [HEAD_SIZE, HEAD_SIZE]: the same, without the rim
    search: np.ndarray  # float32 [HEAD_SIZE, HEAD_SIZE]: structure in SEARCH_BAND
    verdict: np.ndarray  # float32 [HEAD_SIZE, HEAD_SIZE]: structure in VERDICT_BAND
    spectra: tuple[np.ndarray, np.ndarray]  # of the log-polar picture, unchanged and mirrored
    search_template: Template
    verdict_template: Template


def prepare_head(image: np.ndarray) -> Head:
    """Return the data for the alignment of `image` (uint8 [128, 128], filled by a head)."""
    inside = outline(image)
    center, radius = center_and_radius(inside)
    even, cover = ranks(image, inside), inside.astype(np.float32)
    search, verdict = structure(even, cover, SEARCH_BAND), structure(even, cover, VERDICT_BAND)
    return Head(
        center=center,
        radius=radius,
        outline=cover,
        inside=ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1].astype(np.float32),
        search=search,
        verdict=verdict,
        spectra=_spectra(search, center, radius),
        search_template=_template(search, inside, center),
        verdict_template=_template(verdict, inside, center),
    )


def outline(image: np.ndarray) -> np.ndarray:
    """Return bool [128, 128], True in the convex hull of the head in `image` (uint8 [128, 128]).

    The hull is convex because a threshold alone cuts off parts of a dark brain beside a bright tumour.
    """
    smooth = _blurring(HEAD_SIZE, 1.0, "reflect", 4.0)
    root = np.sqrt(smooth @ image.astype(np.float32) @ smooth.T * 255).astype(np.uint8)
    counts = np.bincount(root.ravel(), minlength=256)
    below, total = np.cumsum(counts) / root.size, np.cumsum(counts * np.arange(256)) / root.size
    # Otsu (1979): the gray value that best splits the histogram into two classes.
    split = int(np.argmax((total[-1] * below - total) ** 2 / np.maximum(below * (1 - below), 1e-9)))
    dark = total[split] / max(below[split], 1e-9)  # mean gray value of the darker class
    head = np.zeros((HEAD_SIZE + 6, HEAD_SIZE + 6), bool)
    head[3:-3, 3:-3] = root > (dark + split) / 2
    head = filled(closed(head, 2))[3:-3, 3:-3]
    parts, count = ndimage.label(opened(head, 2))
    if count == 0:
        return np.ones(image.shape, bool)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    left, right = np.split(_row_ends(largest)[:, ::-1], 2)
    hull = Image.new("1", image.shape)
    corners = _convex(left.tolist(), 1) + _convex(right.tolist(), -1)[::-1]
    ImageDraw.Draw(hull).polygon(list(map(tuple, corners)), fill=1, outline=1)
    return np.asarray(hull)


def _convex(points: list[list[int]], side: int) -> list[list[int]]:
    """Return those of `points` (x, y), from top to bottom, that are corners of their convex hull's left or right side.

    `side` is 1 for the left side and -1 for the right one. This is half of Andrew's (1979) monotone chain.
    """
    corners: list[list[int]] = []
    for x, y in points:
        while len(corners) > 1:
            (x1, y1), (x2, y2) = corners[-2:]
            if side * ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) < 0:
                break
            corners.pop()
        corners.append([x, y])
    return corners


def center_and_radius(inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centroid (y, x) of bool [128, 128] and the radius, in pixels, of the disk of its area."""
    rows, columns = np.count_nonzero(inside, axis=1), np.count_nonzero(inside, axis=0)
    area, places = rows.sum(), np.arange(HEAD_SIZE)
    return np.array([rows @ places, columns @ places]) / area, float(np.sqrt(area / np.pi))


def _row_ends(marked: np.ndarray) -> np.ndarray:
    """Return int [n, 2]: (y, x) of the first and then of the last pixels of each row of bool `marked` [128, 128]."""
    rows = np.flatnonzero(marked.any(axis=1))
    first, last = marked[rows].argmax(axis=1), HEAD_SIZE - 1 - marked[rows, ::-1].argmax(axis=1)
    return np.stack([np.tile(rows, 2), np.concatenate([first, last])], axis=1)


def ellipse(inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centre (y, x) of the ellipse around bool [128, 128], and the radius of the disk of its area.

    What touches the bounding box is left out: a part may be cut off there, which moves the centroid, but not the
    ellipse. Without a plausible ellipse, the result is that of `center_and_radius`.
    """
    center, radius = center_and_radius(inside)
    points = np.concatenate([_row_ends(inside), _row_ends(inside.T)[:, ::-1]])
    low, high = points.min(axis=0) + ELLIPSE_RIM, points.max(axis=0) - ELLIPSE_RIM
    y, x = ((points[((points >= low) & (points <= high)).all(axis=1)] - center) / radius).T
    if len(y) < 60:
        return center, radius
    # The least squares of a y^2 + b y x + c x^2 + d y + e x = 1.
    terms = np.stack([y * y, y * x, x * x, y, x], axis=1)
    a, b, c, d, e = np.linalg.solve(terms.T @ terms + 1e-9 * np.eye(5), terms.sum(axis=0))
    curvature = 4 * a * c - b * b
    if curvature <= 0.1:
        return center, radius
    moved = np.array([b * e - 2 * c * d, b * d - 2 * a * e]) / curvature
    level = 1 + a * moved[0] ** 2 + b * moved[0] * moved[1] + c * moved[1] ** 2
    larger = float(np.sqrt(2 * level / np.sqrt(curvature)))
    if np.hypot(*moved) > 0.4 or not 0.7 < larger < 1.4:
        return center, radius
    return center + radius * moved, radius * larger


def ranks(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return float32 of the shape of `image` (uint8): the rank, 0 to 1, of each gray value, and 0 outside `inside`.

    Ranks do not change with brightness, contrast and gamma.
    """
    below = np.cumsum(np.bincount(image[inside], minlength=256)) / np.count_nonzero(inside)
    return np.where(inside, below.astype(np.float32)[image], np.float32(0))


def structure(even: np.ndarray, cover: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Return float32 [side, side]: the detail of `even` between two scales, with even contrast, 0 outside the head.

    `even` is from `ranks` and `cover` the share of each pixel that is inside the head, both float32 [side, side]. A
    band-pass filter of the widths `band`, in pixels, is followed by a division by the local power.
    """
    fine, coarse = band
    share = _blur(cover, coarse) + np.float32(1e-3)
    detail = _blur(even - cover * (_blur(even, coarse) / share), fine)
    power = _blur(detail**2, coarse) / share
    # Without this minimum, the noise of flat parts would be amplified to the level of structure.
    floor = 0.1 * float(np.vdot(detail**2, cover) / cover.sum()) + 1e-9
    return cover * detail / np.sqrt(power + np.float32(floor))


def agreement(fixed: Head, moving: Head) -> float:
    """Return the correlation, -1 to 1, of the inner structure of two heads after the best alignment.

    The search covers any rotation, mirroring, scales up to 1.5 after the sizes of the heads are made equal, shifts up
    to an eighth of the picture and slight shear. Log-polar correlation (Reddy and Chatterji 1996, on the picture
    instead of its spectrum) gives poses, cross-correlation their shifts, and inverse compositional descent (Baker and
    Matthews 2004) the affine map. The result is -1 if the alignment fails.
    """
    poses = [(*_best_shift(fixed, moving, matrix), matrix) for matrix in _poses(fixed, moving)]
    poses.sort(key=lambda pose: -pose[0])
    refined = [
        _descend(fixed.search_template, moving, moving.search, matrix, shift, 12)
        for height, shift, matrix in poses[:REFINED]
        if height >= PROMISING
    ]
    height, matrix, shift = max(refined, key=lambda result: result[0], default=(-1.0, np.eye(2), np.zeros(2)))
    if height < ALIKE:
        return -1.0
    _, matrix, shift = _descend(fixed.verdict_template, moving, moving.verdict, matrix, shift, 6)
    at = _positions(matrix, shift, _PIXELS.reshape(2, -1) - fixed.center[:, None], moving).reshape(
        2, HEAD_SIZE, HEAD_SIZE
    )
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    common = (fixed.inside > 0) & (_sample(moving.inside, at) > 0.5)
    smaller = min(np.count_nonzero(fixed.inside), np.count_nonzero(moving.inside) / max(scale, 1e-6) ** 2)
    if np.count_nonzero(common) < MIN_COMMON * smaller:
        return -1.0
    inner = common & (fixed.inside > RIM)
    return _correlation(fixed.verdict[inner], _sample(moving.verdict, at[:, inner]))


def _blur(values: np.ndarray, width: float) -> np.ndarray:
    matrix = _blurring(len(values), width)
    return matrix @ values @ matrix


@cache
def _blurring(side: int, width: float, mode: str = "constant", reach: float = 3.0) -> np.ndarray:
    """Return float32 [side, side], which filters columns with a Gaussian as a factor; symmetric if `mode` is constant.

    `mode` is what scipy takes for pixels outside the picture; the Gaussian ends after `reach` times its width.
    """
    impulses = np.eye(side, dtype=np.float32)
    return ndimage.gaussian_filter1d(impulses, width, axis=0, truncate=reach, mode=mode)


def _sample(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(values, at, order=1, output=np.float32)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2:
        return -1.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second) + 1e-12))


def _positions(matrix: np.ndarray, shift: np.ndarray, offsets: np.ndarray, moving: Head) -> np.ndarray:
    """Return the positions in the moving picture of offsets [2, n] from the fixed head's centre."""
    return (matrix @ offsets + (shift + moving.center)[:, None]).astype(np.float32)


def _template(band: np.ndarray, inside: np.ndarray, center: np.ndarray) -> Template:
    sampled = inside[::STEP, ::STEP]
    y, x = (_PIXELS[:, ::STEP, ::STEP][:, sampled] - center[:, None]).astype(np.float32)
    by_y, by_x = (slope[::STEP, ::STEP][sampled] for slope in np.gradient(band))
    descent = np.stack([by_y * y, by_y * x, by_y, by_x * y, by_x * x, by_x], axis=1)
    return Template(np.stack([y, x]), band[::STEP, ::STEP][sampled], descent)


def polar(band: np.ndarray, center: np.ndarray, radii: np.ndarray, count: int) -> np.ndarray:
    """Return float32 [len(radii), count]: `band` at `count` angles on each circle around `center`."""
    angles = np.arange(count) * 2 * np.pi / count
    at = center[:, None, None] + np.stack([np.outer(radii, np.sin(angles)), np.outer(radii, np.cos(angles))])
    return _sample(band, at)


def _spectra(band: np.ndarray, center: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    radii = radius * INNER_RING * RING_RATIO ** np.arange(RINGS)
    # Outer rings have a larger weight, since they cover more pixels. The empty rings keep the shifts from wrapping.
    rings = np.zeros((2 * RINGS, ANGLES), np.float32)
    rings[:RINGS] = polar(band, center, radii, ANGLES) * np.sqrt(radii / radii[-1])[:, None]
    rings /= np.linalg.norm(rings) + 1e-6
    return rfft2(rings), rfft2(np.roll(rings[:, ::-1], 1, axis=1))


def _poses(fixed: Head, moving: Head) -> list[np.ndarray]:
    """Return up to POSES matrices [2, 2] that map offsets from one head's centre to offsets from the other's."""
    found = []
    for mirrored, spectrum in enumerate(moving.spectra):
        match = irfft2(np.conj(fixed.spectra[0]) * spectrum, s=(2 * RINGS, ANGLES))
        match = np.concatenate([match[-RING_SHIFT:], match[: RING_SHIFT + 1]])
        peaks = match == ndimage.maximum_filter(match, size=(5, 9), mode=("constant", "wrap"))
        for ring, turn in np.argwhere(peaks):
            found.append((-float(match[ring, turn]), mirrored, int(ring), int(turn)))
    matrices = []
    for _, mirrored, ring, turn in sorted(found)[:POSES]:
        scale = moving.radius / fixed.radius * RING_RATIO ** (ring - RING_SHIFT)
        cosine, sine = np.cos(2 * np.pi * turn / ANGLES), np.sin(2 * np.pi * turn / ANGLES)
        matrix = scale * np.array([[cosine, sine], [-sine, cosine]])
        matrices.append(matrix * np.array([[-1], [1]]) if mirrored else matrix)
    return matrices


def _best_shift(fixed: Head, moving: Head, matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the correlation at the best shift, and that shift in pixels of the moving picture."""
    grid = _PIXELS[:, ::STEP, ::STEP]
    offsets = grid.reshape(2, -1) - fixed.center[:, None]
    turned = _sample(moving.search, _positions(matrix, np.zeros(2), offsets, moving)).reshape(grid.shape[1:])
    still = fixed.search[::STEP, ::STEP]
    match = irfft2(np.conj(rfft2(still)) * rfft2(turned), s=still.shape)
    match = np.roll(match, (MAX_SHIFT, MAX_SHIFT), (0, 1))[: 2 * MAX_SHIFT + 1, : 2 * MAX_SHIFT + 1]
    best = np.array(np.unravel_index(np.argmax(match), match.shape))
    height = float(match.max() / (np.linalg.norm(still) * np.linalg.norm(turned) + 1e-6))
    return height, matrix @ (STEP * (best - MAX_SHIFT))


def _descend(
    template: Template, moving: Head, band: np.ndarray, matrix: np.ndarray, shift: np.ndarray, steps: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return correlation, matrix and shift after up to `steps` Gauss-Newton steps of the affine map."""
    warp = np.eye(3)
    warp[:2, :2], warp[:2, 2] = matrix, shift
    height = -1.0
    for _ in range(steps):
        at = _positions(warp[:2, :2], warp[:2, 2], template.offsets, moving)
        common = _sample(moving.outline, at) > 0.5
        if np.count_nonzero(common) < 0.3 * len(common):
            return -1.0, warp[:2, :2], warp[:2, 2]
        values, seen = template.values[common], _sample(band, at[:, common])
        height = _correlation(values, seen)
        # The pictures differ in contrast: the sampled values first get the mean and spread of the template.
        error = (seen - seen.mean()) / (seen.std() + 1e-6) * values.std() + values.mean() - values
        descent = template.descent[common]
        normal = (descent.T @ descent).astype(np.float64)
        normal[np.diag_indices(6)] *= 1.001
        step = np.linalg.solve(normal + 1e-6 * np.eye(6), descent.T @ error).reshape(2, 3)
        change = np.eye(3)
        change[:2] += step
        if abs(np.linalg.det(change)) < 0.1:
            return -1.0, warp[:2, :2], warp[:2, 2]
        warp = warp @ np.linalg.inv(change)
        if np.abs(step[:, 2]).max() < 0.02 and np.abs(step[:, :2]).max() < 5e-4:
            break
    return height, warp[:2, :2], warp[:2, 2]
