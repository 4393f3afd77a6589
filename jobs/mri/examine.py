"""The work of a reader process on one file: finds and crops the heads, and describes them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from jobs.mri.crop import border_brightness, find_head, fit
from jobs.mri.duplicates import describe
from jobs.mri.outline import HEAD_SIZE
from jobs.mri.read import read
from jobs.mri.slices import Picture, Slice, Unusable


@dataclass(frozen=True, slots=True)
class Piece:
    """One picture of a file: `id` is a digest of its pixels before the crop, `number` its index in a volume.

    `width`, `height` (pixels) and `border` (mean gray value of the outermost 2 %) describe the picture before the crop.
    `picture` uint8 [size, size], `head` uint8 [HEAD_SIZE, HEAD_SIZE] and `description`, from `describe`, show the head.
    They are None if no head was found, for the reason in `finding`.
    """

    id: str
    number: int | None
    width: int
    height: int
    border: float
    picture: np.ndarray | None = None
    head: np.ndarray | None = None
    description: np.ndarray | None = None
    finding: Unusable | None = None


def examine(data: bytes, name: str, *, size: int, volume: int, step: int) -> tuple[list[Piece], Picture]:
    """Return the pieces of the file `data`, and its description, which has no slices.

    `name` and `volume` are those of `read`; of several slices, every `step`-th with a head is used. Raises Unusable as
    `read` does.
    """
    picture = read(data, name, volume)
    pieces = []
    for piece, head, background in _found(picture, step):
        height, width = piece.pixels.shape
        id = hashlib.sha256(b"%d %d " % (height, width) + piece.pixels.tobytes()).hexdigest()[:16]
        border = border_brightness(piece.pixels)
        if isinstance(head, Unusable):
            pieces.append(Piece(id, piece.number, width, height, border, finding=head))
            continue
        shown, small = fit(head, background, size), fit(head, background, HEAD_SIZE)
        pieces.append(Piece(id, piece.number, width, height, border, shown, small, describe(small)))
    return pieces, replace(picture, slices=[])


def heads(data: bytes, name: str, *, volume: int, step: int) -> list[tuple[int | None, np.ndarray | Unusable, int]]:
    """Return (number, head, background) of each picture of a file; `head` is an Unusable if there is no head.

    A head is uint8 [height, width], in the resolution of the picture. Of several slices, every `step`-th with a head is
    used. Raises Unusable as `read` does.
    """
    return [(piece.number, head, background) for piece, head, background in _found(read(data, name, volume), step)]


def _found(picture: Picture, step: int) -> Iterator[tuple[Slice, np.ndarray | Unusable, int]]:
    """Yield (slice, head, background) of every `step`-th slice with a head, and (slice, Unusable, 0) without one."""
    number = 0
    for piece in picture.slices:
        try:
            head, background = find_head(piece.pixels)
        except Unusable as finding:
            yield piece, finding, 0
            continue
        if number % step == 0:
            yield piece, head, background
        number += 1
