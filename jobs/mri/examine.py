"""The work of a reader process for one file: cropped heads and their descriptors. The file itself is not kept."""

import hashlib
from dataclasses import dataclass

import numpy as np

from jobs.mri.crop import border_brightness, find_head, fit
from jobs.mri.duplicates import describe
from jobs.mri.read import read
from jobs.mri.slices import Unusable

WORKING_SIZE = 128  # side of the heads for comparison, in pixels


@dataclass(frozen=True, slots=True)
class Piece:
    """One picture of a file: `id` names its pixels before they were cropped, `number` its place in a volume.

    `width`, `height` (pixels) and `border` (mean gray value of the outermost 2 %) are those of the picture in the file.
    `picture` uint8 [size, size], `head` uint8 [WORKING_SIZE, WORKING_SIZE] and `descriptor` float32 [d] are of the head
    in it; they are None if there is no head, for the reason in `finding`.
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


@dataclass(frozen=True, slots=True)
class Examined:
    """One file: its pieces, and the fields of `Picture`."""

    pieces: list[Piece]
    format: str
    patient: str
    study: str
    remarks: tuple[str, ...]


def examine(data: bytes, name: str, *, size: int, volume: int) -> Examined:
    """Return the content of the file `data`. `name` and `volume` as for `read`. Raises Unusable as `read` does."""
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
        working = fit(head, background, WORKING_SIZE)
        shown = fit(head, background, size)
        pieces.append(Piece(id, piece.number, width, height, border, shown, working, describe(working)))
    return Examined(pieces, picture.format, picture.patient, picture.study, picture.remarks)


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
