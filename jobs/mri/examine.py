"""The work of a reader process on one file: finds and crops the heads, and computes their descriptors."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from jobs.mri.align import HEAD_SIZE
from jobs.mri.crop import border_brightness, find_head, fit
from jobs.mri.duplicates import describe
from jobs.mri.read import read
from jobs.mri.slices import Picture, Unusable


@dataclass(frozen=True, slots=True)
class Piece:
    """One picture of a file: `id` is a digest of its pixels before the crop, `number` its index in a volume.

    `width`, `height` (pixels) and `border` (mean gray value of the outermost 2 %) describe the picture before the crop.
    `picture` uint8 [size, size], `head` uint8 [HEAD_SIZE, HEAD_SIZE] and `descriptor` float32 [d] describe the head.
    They are None if no head was found, for the reason in `finding`.
    """

    id: str
    number: int | None
    width: int
    height: int
    border: float
    picture: np.ndarray | None = None
    head: np.ndarray | None = None
    descriptor: np.ndarray | None = None
    finding: Unusable | None = None


def examine(data: bytes, name: str, *, size: int, volume: int) -> tuple[list[Piece], Picture]:
    """Return the pieces of the file `data`, and its description, which has no slices.

    `name` and `volume` are those of `read`. Raises Unusable as `read` does.
    """
    picture = read(data, name, volume)
    pieces = []
    for piece in picture.slices:
        height, width = piece.pixels.shape
        id = hashlib.sha256(b"%d %d " % (height, width) + piece.pixels.tobytes()).hexdigest()[:16]
        border = border_brightness(piece.pixels)
        try:
            head, background = find_head(piece.pixels)
        except Unusable as finding:
            pieces.append(Piece(id, piece.number, width, height, border, finding=finding))
            continue
        shown, small = fit(head, background, size), fit(head, background, HEAD_SIZE)
        pieces.append(Piece(id, piece.number, width, height, border, shown, small, describe(small)))
    return pieces, replace(picture, slices=[])


def heads(data: bytes, name: str, *, volume: int) -> list[tuple[int | None, np.ndarray | Unusable, int]]:
    """Return (number, head, background) of each picture of a file; `head` is an Unusable if there is no head.

    A head is uint8 [height, width], in the resolution of the picture. Raises Unusable as `read` does.
    """
    found: list[tuple[int | None, np.ndarray | Unusable, int]] = []
    for piece in read(data, name, volume).slices:
        try:
            found.append((piece.number, *find_head(piece.pixels)))
        except Unusable as finding:
            found.append((piece.number, finding, 0))
    return found
