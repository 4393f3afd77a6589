"""Registration of two pictures of heads, and the agreement of their inner structure."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.fft import irfft2, rfft2
from scipy.spatial import ConvexHull

SIDE = 128  # pixels; every picture here is SIDE x SIDE

# Widths of the Gaussians of the band-pass filters, in pixels: the search uses structures like ventricles, the verdict
# structures like sulci. Finer detail does not survive recompression; coarser structure is similar in all heads.
SEARCH_BAND = (2.5, 10.0)
VERDICT_BAND = (1.2, 6.0)

STEP = 2  # alignment uses every second pixel; only the verdict uses all pixels
ANGLES = 256
RINGS = 32
INNER_RING, OUTER_RING = 0.15, 1.25  # in radii of the head
RING_RATIO = (OUTER_RING / INNER_RING) ** (1 / (RINGS - 1))
RING_SHIFT = 6  # rings by which two pictures may differ: scale off by 1.5 at most
POSES = 5  # poses whose shift is searched
REFINED = 2  # poses, the best after that, that are refined
# Correlations in the search band below which a pose is rejected before and after its refinement; most pairs of
# different heads are rejected early. Copies are above 0.44 and 0.8, half of the other pairs below 0.32 and 0.4.
PROMISING, ALIKE = 0.35, 0.6
MAX_SHIFT = 8  # search pixels: an eighth of the picture
RIM = 12  # pixels: scalp and skull, which are similar in many heads, do not count in the verdict
MIN_COMMON = 0.5  # of the smaller head must be in both pictures

_PIXELS = np.indices((SIDE, SIDE)).astype(np.float32)


@dataclass(frozen=True)
class Template:
    """The pixels of one band of a head that others are aligned to: n points inside its outline."""

    offsets: np.ndarray  # float32 [2, n]: (y, x) from the head's centre
    values: np.ndarray  # float32 [n]
    descent: np.ndarray  # float32 [n, 6]: derivative of the value by each number of the affine map


@dataclass(frozen=True)
class Head:
    """The data of one picture for alignment; computed once by `prepare`, used for many pairs."""

    center: np.ndarray  # float64 [2]: (y, x) in pixels
    radius: float  # pixels, of the disk with the head's area
    outline: np.ndarray  # float32 [SIDE, SIDE]: 1 inside the head, 0 outside
    inside: np.ndarray  # float32 [SIDE, SIDE]: the same, without the rim
    search: np.ndarray  # float32 [SIDE, SIDE]: structure in SEARCH_BAND
    verdict: np.ndarray  # float32 [SIDE, SIDE]: structure in VERDICT_BAND
    spectra: tuple[np.ndarray, np.ndarray]  # of the log-polar picture as it is, and mirrored
    search_template: Template
    verdict_template: Template


def prepare(image: np.ndarray) -> Head:
    """Return the data for the alignment of `image` (uint8 [128, 128], filled by a head)."""
    inside = outline(image)
    center, radius = center_and_radius(inside)
    search = structure(image, inside, SEARCH_BAND)
    verdict = structure(image, inside, VERDICT_BAND)
    return Head(
        center=center,
        radius=radius,
        outline=inside.astype(np.float32),
        inside=ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1].astype(np.float32),
        search=search,
        verdict=verdict,
        spectra=_spectra(search, center, radius),
        search_template=_template(search, inside, center),
        verdict_template=_template(verdict, inside, center),
    )


def outline(image: np.ndarray) -> np.ndarray:
    """Return bool [128, 128], True in the convex hull of the head in `image` (uint8 [128, 128]).

    Convex, because a dark brain beside a bright tumour would otherwise be cut into by any threshold.
    """
    root = np.sqrt(ndimage.gaussian_filter(image.astype(np.float32), 1.0) * 255).astype(np.uint8)
    counts = np.bincount(root.ravel(), minlength=256)
    below, total = np.cumsum(counts) / root.size, np.cumsum(counts * np.arange(256)) / root.size
    # Otsu (1979): the gray value that splits the histogram best in two.
    split = int(np.argmax((total[-1] * below - total) ** 2 / np.maximum(below * (1 - below), 1e-9)))
    dark = total[split] / max(below[split], 1e-9)  # the mean of what lies below
    head = np.pad(root > (dark + split) / 2, 3)
    head = ndimage.binary_fill_holes(ndimage.binary_closing(head, iterations=2))[3:-3, 3:-3]
    parts, count = ndimage.label(ndimage.binary_opening(head, iterations=2))
    if count == 0:
        return np.ones(image.shape, bool)
    corners = np.argwhere(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))
    corners = corners[ConvexHull(corners).vertices]  # an opened part has an area, so it has a hull
    hull = Image.new("1", image.shape)
    ImageDraw.Draw(hull).polygon([(int(x), int(y)) for y, x in corners], fill=1, outline=1)
    return np.asarray(hull)


def center_and_radius(inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centroid (y, x) of bool [128, 128] and the radius, in pixels, of the disk of its area."""
    points = np.argwhere(inside)
    return points.mean(0), float(np.sqrt(len(points) / np.pi))


def structure(image: np.ndarray, inside: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Return float32 [128, 128]: `image` between two scales, contrast made even, 0 outside `inside`.

    Gray values go through the rank of each among those inside (so that brightness, contrast and gamma drop out),
    then through a band-pass whose local power is divided out.
    """
    fine, coarse = band
    ranks = np.cumsum(np.bincount(image[inside], minlength=256)) / np.count_nonzero(inside)
    even = np.where(inside, ranks[image], 0).astype(np.float32)
    share = _blur(inside.astype(np.float32), coarse) + 1e-3
    detail = _blur(np.where(inside, even - _blur(even, coarse) / share, 0), fine)
    power = _blur(detail**2, coarse) / share
    # Flat parts hold only noise, which must not be raised to the height of structure.
    floor = 0.1 * float(np.mean(detail[inside] ** 2)) + 1e-9
    return np.where(inside, detail / np.sqrt(power + floor), 0).astype(np.float32)


def agreement(fixed: Head, moving: Head) -> float:
    """Return the correlation, -1 to 1, of the inner structure of two heads after the best alignment.

    Any rotation, either mirror state, scales up to 1.5 beyond the heads' own sizes, shifts up to an eighth of the
    picture and a slight shear are found: log-polar phase-free correlation (Reddy and Chatterji 1996, on the picture
    in place of its spectrum) gives poses, cross-correlation their shifts, inverse compositional descent (Baker and
    Matthews 2004) the affine map.
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
    at = _positions(matrix, shift, _PIXELS.reshape(2, -1) - fixed.center[:, None], moving).reshape(2, SIDE, SIDE)
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    common = (fixed.inside > 0) & (_sample(moving.inside, at) > 0.5)
    smaller = min(np.count_nonzero(fixed.inside), np.count_nonzero(moving.inside) / max(scale, 1e-6) ** 2)
    if np.count_nonzero(common) < MIN_COMMON * smaller:
        return -1.0
    inner = common & (fixed.inside > RIM)
    return _correlation(fixed.verdict[inner], _sample(moving.verdict, at[:, inner]))


def _blur(values: np.ndarray, width: float) -> np.ndarray:
    return ndimage.gaussian_filter(values, width, truncate=3.0, mode="constant")


def _sample(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(values, at, order=1, output=np.float32)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2:
        return -1.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second) + 1e-12))


def _positions(matrix: np.ndarray, shift: np.ndarray, offsets: np.ndarray, moving: Head) -> np.ndarray:
    """Return where offsets [2, n] from the fixed head's centre lie in the moving picture."""
    return (matrix @ offsets + (shift + moving.center)[:, None]).astype(np.float32)


def _template(band: np.ndarray, inside: np.ndarray, center: np.ndarray) -> Template:
    sampled = inside[::STEP, ::STEP]
    y, x = (_PIXELS[:, ::STEP, ::STEP][:, sampled] - center[:, None]).astype(np.float32)
    by_y, by_x = (slope[::STEP, ::STEP][sampled] for slope in np.gradient(band))
    descent = np.stack([by_y * y, by_y * x, by_y, by_x * y, by_x * x, by_x], axis=1)
    return Template(np.stack([y, x]), band[::STEP, ::STEP][sampled], descent)


def _spectra(band: np.ndarray, center: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    radii = radius * INNER_RING * RING_RATIO ** np.arange(RINGS)
    angles = np.arange(ANGLES) * 2 * np.pi / ANGLES
    at = center[:, None, None] + np.stack([np.outer(radii, np.sin(angles)), np.outer(radii, np.cos(angles))])
    # Outer rings stand for more of the picture; the empty rings keep a shift in scale from wrapping around.
    rings = np.zeros((2 * RINGS, ANGLES), np.float32)
    rings[:RINGS] = _sample(band, at) * np.sqrt(radii / radii[-1])[:, None]
    rings /= np.linalg.norm(rings) + 1e-6
    return rfft2(rings), rfft2(np.roll(rings[:, ::-1], 1, axis=1))


def _poses(fixed: Head, moving: Head) -> list[np.ndarray]:
    """Return up to POSES matrices [2, 2] that take offsets from one head's centre to offsets from the other's."""
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
        # Both ends differ in contrast: the seen values are brought to the template's mean and spread first.
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
