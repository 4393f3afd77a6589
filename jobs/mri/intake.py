"""Read every file and keep little of it: pixels go to a spool on disk, under 1 KB an image stays in memory."""

import contextlib
import hashlib
import hmac
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jobs.common.errors import MachineError
from jobs.common.storage import Storage
from jobs.mri import read as reading
from jobs.mri.crop import border_brightness, find_head, fit
from jobs.mri.dataset import Row
from jobs.mri.duplicates import describe
from jobs.mri.slices import Picture, Slice, Unusable
from jobs.mri.sources import contents, label_of

WORKING_SIZE = 128  # side, in pixels, of the heads that are compared with each other


@dataclass(slots=True)
class Entry:
    """A usable image: its row, yet without group and fold, and `marks` of what it shares with others of one person.

    `person_known` says whether the file or the user's list tells who it is; one volume alone does not.
    """

    row: Row
    person_known: bool
    marks: tuple[Hashable, ...]


@dataclass(slots=True, order=True)
class Refusal:
    """A file or slice that is not in the dataset; `reason` is a key of jobs.mri.slices.REASONS."""

    source: str
    reason: str
    detail: str


@dataclass
class Intake:
    """What was read: entries with different pixels; copies of them by index; refusals."""

    entries: list[Entry] = field(default_factory=list)
    copies: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))  # (source, label)
    refusals: list[Refusal] = field(default_factory=list)


class Spool:
    """Pixels of the entries, on disk: `pictures` and `heads` uint8 [n, side, side], `descriptors` float32 [n, d]."""

    def __init__(self, folder: str, size: int) -> None:
        self._files = [(Path(folder) / name).open("wb") for name in ("pictures", "heads", "descriptors")]
        self._size = size
        self.pictures = self.heads = np.zeros((0, 0, 0), np.uint8)
        self.descriptors = np.zeros((0, 0), np.float32)

    def append(self, image: np.ndarray) -> None:
        """Crop `image` (uint8 [height, width]) and keep what comes of it.

        Raises Unusable as find_head does, MachineError if the disk is full.
        """
        head, background = find_head(image)
        working = fit(head, background, WORKING_SIZE)
        arrays = (fit(head, background, self._size), working, describe(working))
        with _disk_failures():
            for file, array in zip(self._files, arrays, strict=True):
                file.write(np.ascontiguousarray(array).tobytes())

    def close(self, count: int) -> None:
        """Make what was kept readable; `count` images were appended."""
        with _disk_failures():
            for file in self._files:
                file.close()
        if count:
            names = [Path(file.name) for file in self._files]
            self.pictures = np.memmap(names[0], np.uint8, "r", shape=(count, self._size, self._size))
            self.heads = np.memmap(names[1], np.uint8, "r", shape=(count, WORKING_SIZE, WORKING_SIZE))
            self.descriptors = np.memmap(names[2], np.float32, "r").reshape(count, -1)


@contextlib.contextmanager
def _disk_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise MachineError(f"{folder}: {error.strerror or error}: make room there or set TMPDIR") from error


def read_all(storage: Storage, found: Mapping[str, str], lines_of: Mapping[str, list[int]], spool: Spool) -> Intake:
    """Return what the files `found` hold, their pixels in `spool`, in the order of the entries.

    `found` gives the SHA-256 of each file's content, as the dataset's id knows it; `lines_of` the lines of the user's
    groups file that name a file. Who a picture shows is kept only as a hash under a key that ends with the process.

    Raises MachineError if a file is gone or has changed.
    """
    secret = secrets.token_bytes(32)
    intake = Intake()
    index_of: dict[str, int] = {}
    for key, data in contents(storage, found):
        if hashlib.sha256(data).hexdigest() != found[key]:
            raise MachineError(f"{storage.url.rstrip('/')}/{key} changed while it was read: run it again")
        label = label_of(key)
        try:
            if label is None:
                raise Unusable("no-class", "not in a class folder")
            picture = reading.read(data, key)
        except Unusable as finding:
            intake.refusals.append(Refusal(key, finding.reason, finding.detail))
            continue
        lines = lines_of.get(key, [])
        marks = _marks(picture, key, lines, secret)
        for piece in picture.slices:
            source = key if piece.number is None else f"{key}#{piece.number}"
            id = _identity(piece)
            if id in index_of:
                intake.copies[index_of[id]].append((source, label))
                first = intake.entries[index_of[id]]
                first.marks += tuple(mark for mark in marks if mark not in first.marks)
                first.person_known |= bool(picture.patient or lines)
                continue
            try:
                spool.append(piece.pixels)
            except Unusable as finding:
                intake.refusals.append(Refusal(source, finding.reason, finding.detail))
                continue
            index_of[id] = len(intake.entries)
            height, width = piece.pixels.shape
            border = border_brightness(piece.pixels)
            row = Row(id, source, label, "", -1, picture.format, len(data), width, height, border)
            intake.entries.append(Entry(row, bool(picture.patient or lines), marks))
    spool.close(len(intake.entries))
    return intake


def _identity(piece: Slice) -> str:
    height, width = piece.pixels.shape
    return hashlib.sha256(b"%d %d " % (height, width) + piece.pixels.tobytes()).hexdigest()[:16]


def _marks(picture: Picture, key: str, lines: Iterable[int], secret: bytes) -> tuple[Hashable, ...]:
    people = [(kind, value) for kind, value in (("patient", picture.patient), ("study", picture.study)) if value]
    marks: list[Hashable] = [hmac.digest(secret, f"{kind} {value}".encode(), "sha256")[:16] for kind, value in people]
    marks.extend(lines)
    if len(picture.slices) > 1:
        marks.append(key)
    return tuple(marks)
