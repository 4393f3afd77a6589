"""Reads all files. Pixels are stored in a spool on disk; less than 1 KB per image stays in memory."""

import contextlib
import functools
import hashlib
import hmac
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobs.common.errors import MachineError
from jobs.mri import readers
from jobs.mri.dataset import Row
from jobs.mri.examine import WORKING_SIZE, Examined, Piece, examine
from jobs.mri.slices import Unusable
from jobs.mri.sources import Source, below_class, contents, label_of
from jobs.mri.walk import spelled


class Person(NamedTuple):
    """A mark that images of one person share: `kind` is patient, study, volume or line, `value` identifies the mark."""

    kind: str
    value: Hashable


@dataclass(slots=True)
class Entry:
    """A usable image: its row, still without group and fold, and the `marks` shared by images of one person."""

    row: Row
    marks: tuple[Person, ...]

    @property
    def person_known(self) -> bool:
        """Whether the file or the user's list identifies the person; a volume alone does not."""
        return any(mark.kind != "volume" for mark in self.marks)


@dataclass(slots=True, order=True)
class Refusal:
    """A file or slice that is not in the dataset; `reason` is a key of jobs.mri.slices.REASONS."""

    source: str
    reason: str
    detail: str


@dataclass
class Intake:
    """What was read: entries with different pixels; copies of them by index; refusals; remarks by file.

    `digests` has the SHA-256 of each file's content.
    """

    entries: list[Entry] = field(default_factory=list)
    copies: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))  # (source, label)
    refusals: list[Refusal] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


class Spool:
    """Pixels of the entries, on disk: `pictures` and `heads` uint8 [n, side, side], `descriptors` float32 [n, d]."""

    def __init__(self, folder: str, size: int) -> None:
        self._files = [(Path(folder) / name).open("wb") for name in ("pictures", "heads", "descriptors")]
        self._size = size
        self.pictures = self.heads = np.zeros((0, 0, 0), np.uint8)
        self.descriptors = np.zeros((0, 0), np.float32)

    def append(self, piece: Piece) -> None:
        """Keep the arrays of a usable `piece`. Raises MachineError if the disk is full."""
        arrays = (piece.picture, piece.head, piece.descriptor)
        with _disk_failures():
            for file, array in zip(self._files, arrays, strict=True):
                assert array is not None
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


def read_all(
    source: Source, lines_of: Mapping[str, list[int]], spool: Spool, *, size: int, volume: int, ids: Iterable[str]
) -> Intake:
    """Return what the files of `source` hold, their pixels in `spool`, in the order of the entries.

    `size` is the side of the prepared images, in pixels; `volume` the one to take of a NIfTI with several; `ids` which
    of a DICOM file's `patient` and `study` say who it is; `lines_of` the lines of the user's groups file that name a
    file. Who a picture shows is kept only as a hash under a key that ends with the process.

    Raises MachineError if a file is gone.
    """
    secret = secrets.token_bytes(32)
    intake = Intake()
    index_of: dict[str, int] = {}
    for key, (reason, detail) in source.refused.items():
        intake.refusals.append(Refusal(spelled(key), reason, detail))
    work = functools.partial(examine, size=size, volume=volume)
    named = ((below_class(key), data) for key, data in contents(source))
    for key, (data, result) in zip(source.files, readers.shared().map(work, named), strict=True):
        intake.digests[key] = hashlib.sha256(data).hexdigest()
        label = label_of(key)
        if label is None:
            intake.refusals.append(Refusal(spelled(key), "no-class", "not in a class folder"))
        elif isinstance(result, Unusable):
            intake.refusals.append(Refusal(spelled(key), result.reason, result.detail))
        else:
            intake.remarks.extend((spelled(key), remark) for remark in result.remarks)
            marks = _marks(result, key, lines_of.get(key, []), secret, ids)
            _take(intake, index_of, spool, result, spelled(key), label, len(data), marks)
    spool.close(len(intake.entries))
    return intake


def _take(
    intake: Intake,
    index_of: dict[str, int],
    spool: Spool,
    file: Examined,
    name: str,
    label: str,
    size: int,
    marks: tuple[Person, ...],
) -> None:
    """Add what one file holds: `name` and `size` are those of the file, `index_of` the entries by id."""
    for piece in file.pieces:
        source = name if piece.number is None else f"{name}#{piece.number}"
        if piece.id in index_of:
            intake.copies[index_of[piece.id]].append((source, label))
            first = intake.entries[index_of[piece.id]]
            first.marks += tuple(mark for mark in marks if mark not in first.marks)
        elif piece.finding:
            intake.refusals.append(Refusal(source, piece.finding.reason, piece.finding.detail))
        else:
            spool.append(piece)
            index_of[piece.id] = len(intake.entries)
            row = Row(piece.id, source, label, "", -1, file.format, size, piece.width, piece.height, piece.border)
            intake.entries.append(Entry(row, marks))


def _marks(file: Examined, key: str, lines: Iterable[int], secret: bytes, ids: Iterable[str]) -> tuple[Person, ...]:
    marks = [
        Person(kind, hmac.digest(secret, f"{kind} {value}".encode(), "sha256")[:16])
        for kind, value in (("patient", file.patient), ("study", file.study))
        if value and kind in ids
    ]
    marks += [Person("line", line) for line in lines]
    if len(file.pieces) > 1:
        marks.append(Person("volume", key))
    return tuple(marks)
