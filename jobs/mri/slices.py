"""Common types of all file formats: pictures, reasons for rejection, and the resource limits of a file."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image


class Budget(NamedTuple):
    """Resource limits of a file. They are checked before memory is allocated, or enforced in the reader process.

    `file_bytes` limits the file in storage and its unpacked content; `pixels` one picture; `voxels` all pictures of a
    file together; `slices` their number; `memory_bytes` and `cpu_seconds` the use of a reader process.
    """

    file_bytes: int = 2**30
    pixels: int = 2**26
    voxels: int = 2**27
    slices: int = 10_000
    memory_bytes: int = 3 * 2**30
    cpu_seconds: int = 60


# 8192 x 8192 pixels, 512 x 512 x 512 voxels.
BUDGET = Budget()

REASONS = {
    "not-an-image": "not an image in a format that can be read",
    "not-a-picture": "a mask, a label map or another object that is not a picture of a head",
    "not-mr": "a picture of another modality than magnetic resonance",
    "truncated": "truncated or damaged",
    "unsupported": "an image of a kind that cannot be read; the detail says how to convert it",
    "decoder-error": "the decoder fails, and the cause is not known",
    "decompression-bomb": "needs more bytes, pixels, slices or memory than one file may",
    "too-slow": "needs more time than one file may",
    "too-small": "too few pixels",
    "blank": "no contrast",
    "two-labels": "the same picture is in two classes",
    "duplicate": "exactly the same pixels as another image of its class",
    "no-class": "not in a class folder",
    "outside-link": "a link that leads out of the data",
    "broken-link": "a link to a file that does not exist",
}


class Unusable(Exception):  # noqa: N818 - a finding about a file, not a failure of the program
    """The file or slice cannot be used; `reason` is a key of REASONS, `detail` one readable line.

    A detail never contains values of a file's header, which may identify a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Slice:
    """One 2-D picture: `pixels` uint8 [height, width]; `number` is its index in a volume, None without a volume."""

    pixels: np.ndarray
    number: int | None = None


@dataclass(frozen=True)
class Picture:
    """The content of a file: its slices, the name of its format and, if the file has them, patient and study.

    `patient` and `study` identify people: they are compared, but never stored. `remarks` are sentences about
    declarations of the file that were not followed.
    """

    slices: list[Slice]
    format: str
    patient: str = ""
    study: str = ""
    remarks: tuple[str, ...] = ()


def check_size(count: int, limit: int, what: str) -> None:
    """Raise Unusable if `count` bytes, pixels, voxels or slices are more than `limit`, or none at all."""
    if count <= 0:
        raise Unusable("truncated", f"its header declares {count} {what}")
    if count > limit:
        raise Unusable("decompression-bomb", f"would unpack to {count} {what}, more than {limit}")


def decoder_error(error: BaseException, what: str, remedy: str = "export it anew") -> Unusable:
    """Return the finding for an exception of a library, without its message, which may quote the file."""
    return Unusable("decoder-error", f"{what} cannot be decoded ({type(error).__name__}): {remedy}")


def square_pixels(pixels: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """Return uint8 [height, width], resampled along the coarser axis so that pixels are square.

    `row_mm` is the distance between rows, `column_mm` between columns. Nothing changes if they are equal within 1 % or
    implausible (not positive, or more than 16 to 1).
    """
    ratio = row_mm / column_mm if row_mm > 0 and column_mm > 0 else 1.0
    if not 1 / 16 <= ratio <= 16 or abs(ratio - 1) < 0.01:
        return pixels
    height, width = pixels.shape
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(size[0] * size[1], BUDGET.pixels, "pixels")
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
