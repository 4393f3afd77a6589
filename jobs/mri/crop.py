"""Crops a picture of any size to a square around the head."""

import numpy as np
from PIL import Image
from scipy import ndimage

from jobs.mri.gray import histogram, percentiles
from jobs.mri.morphology import opened_by_square, touching_edge
from jobs.mri.slices import Unusable

FINDING_SIZE = 256  # pixels of the longer side: sufficient to find the head
MIN_SIDE = 32  # pixels: smaller pictures and heads are not enlarged
MIN_CONTRAST = 8  # difference of gray values between the darkest and the brightest 1 %


def crop_to_head(image: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 [size, size]: the head in `image` (uint8 [height, width]), aspect kept, padded with background.

    Raises Unusable if the picture or the head is too small, or the picture is blank.
    """
    return fit(*find_head(image), size)


def find_head(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the part of `image` (uint8 [height, width]) that contains the head, and the gray value around the head.

    Frames, uniform margins, labels in the margin and a white page behind the head are removed. Raises Unusable if the
    picture or the part is under MIN_SIDE pixels high or wide, or without contrast.
    """
    if min(image.shape) < MIN_SIDE:
        raise Unusable("too-small", f"{image.shape[1]} x {image.shape[0]} pixels, fewer than {MIN_SIDE} on a side")
    below = np.cumsum(histogram(image)) / image.size
    low, high = _range(below, 0.01)
    if high - low < MIN_CONTRAST:
        raise Unusable("blank", f"its gray values reach from {low} to {high}")
    low, high = _range(below, 0.005)
    image = _without_margins(image, 0.1 * (high - low))
    if not image.size:
        raise Unusable("blank", "nothing stands out from its margins")
    if min(image.shape) < MIN_SIDE:
        raise Unusable("too-small", f"what its margins surround is {image.shape[1]} x {image.shape[0]} pixels")
    image = _white_page_to_black(image)

    step = max(image.shape) / FINDING_SIZE
    height, width = (max(1, round(side / step)) for side in image.shape)
    shown = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(shown)
    dark, light = percentiles(np.array(shown.histogram()), (2, 98))
    bright = ndimage.gaussian_filter(small.astype(np.float32), 2) > dark + 0.12 * (light - dark)
    # Removes letters and lines, which are thinner than a head.
    bright = opened_by_square(bright, 3)
    parts, count = ndimage.label(bright)
    around = np.array(shown.histogram(Image.fromarray(~bright)))
    background = int(percentiles(around, (50,))[0]) if around.any() else 0
    if count == 0:
        return image, background
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    head = (areas >= 0.1 * areas.max())[parts]
    rows, columns = (np.flatnonzero(head.any(axis)) for axis in (1, 0))
    if len(rows) * len(columns) < 0.04 * height * width:
        return image, background
    scale_y, scale_x = image.shape[0] / height, image.shape[1] / width
    top, bottom = int((rows[0] - 1) * scale_y), round((rows[-1] + 2) * scale_y)
    left, right = int((columns[0] - 1) * scale_x), round((columns[-1] + 2) * scale_x)
    found = image[max(0, top) : bottom, max(0, left) : right]
    if min(found.shape) < MIN_SIDE:
        raise Unusable("too-small", f"the head is {found.shape[1]} x {found.shape[0]} pixels")
    return found, background


def fit(image: np.ndarray, background: int, size: int) -> np.ndarray:
    """Return `image` (uint8 [height, width]) padded to a square with `background` and resampled to [size, size]."""
    height, width = image.shape
    side = max(height, width)
    square = Image.new("L", (side, side), background)
    square.paste(Image.fromarray(image), ((side - width) // 2, (side - height) // 2))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def border_brightness(image: np.ndarray) -> float:
    """Return the mean gray value, 0-255, of the outermost 2 % of `image` on each side (at least one pixel)."""
    rim = max(1, round(0.02 * min(image.shape)))
    edges = (image[:rim], image[-rim:], image[rim:-rim, :rim], image[rim:-rim, -rim:])
    return sum(int(edge.sum(dtype=np.int64)) for edge in edges) / sum(edge.size for edge in edges)


def _range(below: np.ndarray, share: float) -> tuple[int, int]:
    """Return the gray values with a `share` of the pixels below the first and above the second.

    `below` [256] is the share of the pixels up to each gray value.
    """
    return int(np.searchsorted(below, share, "right")), int(np.searchsorted(below, 1 - share))


def _without_margins(image: np.ndarray, tolerance: float) -> np.ndarray:
    """Return `image` without the rows and columns at its edges that have one gray value, apart from a label or line.

    Gray values that differ by up to `tolerance` are one.
    """
    before = None
    while image.size and image.shape != before:
        before = image.shape
        for _ in ("rows", "columns"):
            first, last = _inside(image, tolerance) if image.size else (0, 0)
            image = image[first:last].T
    return image


def _inside(image: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Return the range of rows of `image` between the first and the last one with several gray values."""
    sampled = image[:, :: max(1, image.shape[1] // 128)]
    first = _first_varied(sampled, tolerance)
    if first == len(sampled):
        return 0, 0
    return first, len(sampled) - _first_varied(sampled[::-1], tolerance)


def _first_varied(rows: np.ndarray, tolerance: float) -> int:
    """Return the number of the first of `rows` with several gray values, len(rows) if there is none."""
    rim, last = round(0.05 * (rows.shape[1] - 1)), rows.shape[1] - 1
    # Most often, the margin is narrow.
    for start in range(0, len(rows), 16):
        ordered = np.partition(rows[start : start + 16], (rim, last - rim), axis=1)
        varied = np.flatnonzero(ordered[:, last - rim].astype(float) - ordered[:, rim] > tolerance)
        if len(varied):
            return start + int(varied[0])
    return len(rows)


def _white_page_to_black(image: np.ndarray) -> np.ndarray:
    """Return `image` with black in place of the white around the head, as on a printed page."""
    white = image >= 245
    rim = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if rim.mean() < 0.5:
        return image
    return np.where(touching_edge(white), 0, image).astype(np.uint8)
