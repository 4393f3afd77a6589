"""What every reader gives, what it refuses, and how deeper values become 8-bit gray."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

# A larger picture or volume is refused before it is unpacked: 8192 squared, and 512 cubed.
MAX_PIXELS = 2**26
MAX_VOXELS = 2**27

REASONS = {
    "not-an-image": "not an image in a format that can be read",
    "truncated": "truncated or damaged",
    "unsupported": "an image, but of a kind that cannot be read",
    "decompression-bomb": "would unpack to more pixels than are allowed",
    "too-small": "too few pixels",
    "blank": "nothing to see",
    "two-labels": "the same picture stands under two labels",
    "duplicate": "exactly the same pixels as another image of its label",
    "no-class": "lies beside the class folders, not in one",
}


class Unusable(Exception):  # noqa: N818 - a finding about a file, not a failure of the program
    """The file or slice cannot be used; `reason` is a key of REASONS, `detail` one readable line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Slice:
    """One 2-D picture: `pixels` uint8 [height, width]; `number` is its place in a volume, None outside one."""

    pixels: np.ndarray
    number: int | None = None


@dataclass(frozen=True)
class Picture:
    """What one file holds: its slices, its format's name and, where the file says them, whose it is.

    `patient` and `study` identify people: they are compared, never stored.
    """

    slices: list[Slice]
    format: str
    patient: str = ""
    study: str = ""


def one_line(error: Exception) -> str:
    """Return what a library says of a file, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def check_size(count: int, limit: int, what: str) -> None:
    """Raise Unusable if `count` pixels or voxels are more than `limit`, or none at all."""
    if count <= 0:
        raise Unusable("truncated", f"its header promises {count} {what}")
    if count > limit:
        raise Unusable("decompression-bomb", f"would unpack to {count} {what}, more than {limit}")


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return `values` as uint8, `low` black and `high` white, linear between."""
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def robust_range(values: np.ndarray) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles: black and white of data that come without a display window."""
    low, high = np.percentile(values, (0.5, 99.5))
    if not high > low:
        low, high = np.min(values), np.max(values)
    return float(low), float(high)


def square_pixels(pixels: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """Return uint8 [height, width] with the coarser axis stretched so that a pixel is as high as it is wide.

    `row_mm` is the distance between rows, `column_mm` between columns. Nonsense spacings (not positive, or more than
    16 to 1) and those equal within 1 % leave the picture as it is.
    """
    if not (row_mm > 0 and column_mm > 0) or not 1 / 16 <= row_mm / column_mm <= 16:
        return pixels
    ratio = row_mm / column_mm
    if abs(ratio - 1) < 0.01:
        return pixels
    height, width = pixels.shape
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(size[0] * size[1], MAX_PIXELS, "pixels")
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
