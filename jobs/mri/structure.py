"""What alignment compares: the inner structure of a head, whatever the brightness and contrast of its picture."""

from functools import cache

import numpy as np
from scipy import ndimage


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


def polar(band: np.ndarray, circles: np.ndarray, radii: np.ndarray, count: int) -> np.ndarray:
    """Return float32 [n, len(radii), count]: `band` at `count` angles on rings within `circles` [n, 3], (y, x, radius).

    `radii` are in parts of a circle's radius. Outer rings have a larger weight, since they cover more pixels.
    """
    angles = np.arange(count) * 2 * np.pi / count
    y, x, radius = circles.T[:, :, None, None]
    reach = radius * radii[:, None]
    values = sample(band, np.stack([y + reach * np.sin(angles), x + reach * np.cos(angles)]))
    return values * np.sqrt(radii / radii[-1], dtype=np.float32)[:, None]


def sample(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return float32 [...]: `values` [height, width] at the positions (y, x) `at` [2, ...], interpolated linearly."""
    return ndimage.map_coordinates(values, at, order=1, output=np.float32)


@cache
def blurring(side: int, width: float, mode: str = "constant", reach: float = 3.0) -> np.ndarray:
    """Return float32 [side, side], which filters columns with a Gaussian as a factor; symmetric if `mode` is constant.

    `mode` is what scipy takes for pixels outside the picture; the Gaussian ends after `reach` times its width.
    """
    impulses = np.eye(side, dtype=np.float32)
    return ndimage.gaussian_filter1d(impulses, width, axis=0, truncate=reach, mode=mode)


def _blur(values: np.ndarray, width: float) -> np.ndarray:
    matrix = blurring(len(values), width)
    return matrix @ values @ matrix
