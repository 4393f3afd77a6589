"""Scales values of any bit depth to 8-bit gray; pixels outside the picture become black."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from jobs.mri.morphology import touching_edge
from jobs.mri.slices import Unusable

# ITU-R BT.601, as Pillow computes luminance.
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
PERCENTILES = (0.5, 99.5)
RING_SHARE = 0.25  # a value with at least this share of the pixels at the edge surrounds the picture
# A surrounding value that is farther from the others, relative to their range, is padding and is not used as black.
FAR = 0.35
SAMPLED = 2**22  # number of values, about, from which percentiles are computed


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Return int64 [256]: the number of pixels of each gray value in uint8 `pixels` [height, width]."""
    return np.array(Image.fromarray(pixels).histogram())


def percentiles(counts: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """Return the percentiles `shares`, 0 to 100, of the gray values with a histogram `counts` [256], as numpy does."""
    below = np.cumsum(counts)
    places = np.array(shares) / 100 * (below[-1] - 1)
    low, high = (np.searchsorted(below, np.asarray(edge(places)), "right") for edge in (np.floor, np.ceil))
    return (low + (high - low) * (places - np.floor(places))).tolist()


def luminance(values: np.ndarray) -> np.ndarray:
    """Return float32 [...] of colours [..., 3 or more]; channels after the third are ignored."""
    return values[..., :3].astype(np.float32) @ LUMINANCE


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return uint8 `values`, linear from `low` (black) to `high` (white); not-a-number is black."""
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8)


class Scale(NamedTuple):
    """The values of black and white, and the mask of pixels outside the picture.

    `ring` is the value that surrounds the picture, None if there is none; `inverted` means that high values are dark.
    """

    low: float
    high: float
    hidden: np.ndarray
    ring: float | None
    inverted: bool

    def gray(self, values: np.ndarray) -> np.ndarray:
        """Return uint8 of float32 `values` [n, height, width]; pixels outside the picture are black."""
        gray = np.empty(values.shape, np.uint8)
        for stored, shown in zip(values, gray, strict=True):
            shown[:] = stretch(stored, self.low, self.high)
        if self.inverted:
            gray = 255 - gray
        self.blacken(gray, values)
        return gray

    def blacken(self, gray: np.ndarray, values: np.ndarray) -> None:
        """Set to 0, in uint8 `gray` of `values` [n, height, width], the pixels outside the picture."""
        gray[self.hidden] = 0
        if self.ring is not None:
            for picture, stored in zip(gray, values, strict=True):
                picture[touching_edge(stored == np.float32(self.ring))] = 0


def scale_of(values: np.ndarray, hidden: np.ndarray | None = None, *, inverted: bool = False) -> Scale:
    """Return the common scale of the n pictures in float32 `values` [n, height, width].

    Black and white are the 0.5 and 99.5 percentiles of the values inside the picture. Outside are pixels marked in
    `hidden` (bool, same shape), not-a-number, infinities, and one constant value that surrounds the picture. A
    surrounding value near the others extends their range: it is air, which is at least as dark as any tissue.

    Raises Unusable: blank, if all values of the picture are equal.
    """
    hidden = ~np.isfinite(values) | (hidden if hidden is not None else False)
    ring = _surrounding(values, hidden)
    step = max(1, values.size // SAMPLED)
    sampled = values.ravel()[::step][~hidden.ravel()[::step]]
    return Scale(*_display_range(sampled, ring, zero_is_black=not inverted), hidden, ring, inverted)


def to_gray(values: np.ndarray, hidden: np.ndarray | None = None, *, inverted: bool = False) -> np.ndarray:
    """Return uint8 [n, height, width] of real `values` of that shape, scaled by `scale_of`.

    Raises Unusable: blank, if all values of the picture are equal.
    """
    values = real(values)
    return scale_of(values, hidden, inverted=inverted).gray(values)


def real(values: np.ndarray) -> np.ndarray:
    """Return `values` as float32; values too large for float32 are scaled down, not made infinite."""
    if values.dtype == np.float64:
        finite = np.abs(values[np.isfinite(values)])
        largest = finite.max() if finite.size else 0.0
        values = values / largest if largest > 1e30 else values
    return np.asarray(values, np.float32)


def _display_range(shown: np.ndarray, ring: float | None, *, zero_is_black: bool) -> tuple[float, float]:
    """Return the values that become black and white, of float32 [n]. Raises Unusable: blank."""
    rest = shown if ring is None else shown[shown != np.float32(ring)]
    low, high = _robust(rest)
    if not high > low:
        if not rest.size or ring is None or ring == low:
            raise Unusable("blank", "all of its values are equal")
        return min(low, ring), max(low, ring)
    if ring is not None and ring < low and (low - ring <= FAR * (high - low) or (ring == 0 and low <= high - low)):
        low = ring
    if ring is not None and ring > high and ring - high <= FAR * (high - low):
        high = ring
    # Without a surrounding value, black is a signal of 0.
    if zero_is_black and ring is None and 0 < low <= 0.1 * (high - low):
        low = 0.0
    return low, high


def _robust(values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles of `values` that become black and white; they are equal if all values are equal."""
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, PERCENTILES)
    if not high > low:
        # More than 99 % of the values are equal: the others are the picture.
        others = values[values != low]
        if others.size:
            first, last = np.percentile(others, PERCENTILES)
            low, high = min(low, first), max(high, last)
    return float(low), float(high)


def _surrounding(values: np.ndarray, hidden: np.ndarray) -> float | None:
    """Return the most frequent value at the edges of [n, height, width], None if it is not frequent enough."""
    edges = np.concatenate([_edge(values[index])[~_edge(hidden[index])] for index in range(len(values))])
    if not edges.size:
        return None
    found, counts = np.unique(edges, return_counts=True)
    most = int(counts.argmax())
    # The share counts hidden pixels too: with few others at the edge, a frequent value may be coincidence.
    total = sum(_edge(picture).size for picture in values)
    return float(found[most]) if counts[most] >= RING_SHARE * total else None


def _edge(picture: np.ndarray) -> np.ndarray:
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
