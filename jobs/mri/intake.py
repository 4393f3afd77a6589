"""Reads all files. The pixels are stored on disk; less than 1 KB per image stays in memory."""

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from jobs.common.errors import MachineError
from jobs.mri import readers
from jobs.mri.dataset import Row
from jobs.mri.duplicates import DESCRIPTION
from jobs.mri.examine import Piece, examine
from jobs.mri.outline import HEAD_SIZE
from jobs.mri.slices import Unusable
from jobs.mri.sources import Source, below_class, contents, label_of
from jobs.mri.walk import spelled


class Mark(NamedTuple):
    """A property that connects images of one person: `kind` is patient, study, volume or line."""

    kind: str
    value: Hashable


@dataclass(slots=True)
class Entry:
    """A usable image: its row, without group and fold, and its `marks`."""

    row: Row
    marks: tuple[Mark, ...]

    @property
    def person_known(self) -> bool:
        """Whether the file or the user's list identifies the person; a volume does not."""
        return any(mark.kind != "volume" for mark in self.marks)


@dataclass(slots=True, order=True)
class Rejection:
    """A file or slice that is not in the dataset; `reason` is a key of jobs.mri.slices.REASONS."""

    source: str
    reason: str
    detail: str


class Stored:
    """Arrays of one shape in a file, read one at a time. A file that is mapped would count as memory of the job.

    The file has no name, so that no pixels of a person are left behind if the process is killed.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._file = tempfile.TemporaryFile(buffering=2**16)  # noqa: SIM115 - closed by Spool
        self._dtype = dtype

    def append(self, array: np.ndarray) -> None:
        """Write `array`, of the dtype and shape in `dtype`."""
        self._file.write(array.tobytes())

    def flush(self) -> None:
        """End the writing."""
        self._file.flush()

    def close(self) -> None:
        """Remove the file."""
        # What is left in its buffer does not matter, nor whether the disk is full.
        with contextlib.suppress(OSError):
            self._file.close()

    def __getitem__(self, index: int) -> np.ndarray:
        size = self._dtype.itemsize
        return np.frombuffer(os.pread(self._file.fileno(), size, index * size), self._dtype)[0]

    def all(self) -> np.ndarray:
        """Return all arrays as one [n, ...], which the system reads when they are used."""
        base, shape = self._dtype.base, self._dtype.shape
        count = os.fstat(self._file.fileno()).st_size // self._dtype.itemsize
        return np.memmap(self._file, base, "r", shape=(count, *shape)) if count else np.zeros((0, *shape), base)


class Spool:
    """What is computed of the entries, on disk: `pictures` and `heads`, uint8 [side, side], and their descriptions."""

    def __init__(self, size: int) -> None:
        with _disk_failures():
            self.pictures = Stored(np.dtype((np.uint8, (size, size))))
            self.heads = Stored(np.dtype((np.uint8, (HEAD_SIZE, HEAD_SIZE))))
            self.descriptors = Stored(DESCRIPTION["descriptors"])
            self.sketches = Stored(DESCRIPTION["sketch"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for stored in (self.pictures, self.heads, self.descriptors, self.sketches):
            stored.close()

    def append(self, piece: Piece) -> None:
        """Write the arrays of a usable `piece`. Raises MachineError if the disk is full."""
        assert piece.picture is not None and piece.head is not None and piece.description is not None
        with _disk_failures():
            self.pictures.append(piece.picture)
            self.heads.append(piece.head)
            self.descriptors.append(piece.description["descriptors"])
            self.sketches.append(piece.description["sketch"])

    def flush(self) -> None:
        """End the writing. Raises MachineError if the disk is full."""
        with _disk_failures():
            for stored in (self.pictures, self.heads, self.descriptors, self.sketches):
                stored.flush()


@contextlib.contextmanager
def _disk_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise MachineError(f"{folder}: {error.strerror or error}: make room there or set TMPDIR") from error


@dataclass
class Intake:
    """What was read: `entries` with different pixels, and the `copies` (source, label) of each entry, by its index.

    `digests` has the SHA-256 of each file, `index_of` the index of each entry by id; `remarks` are (source, remark).
    """

    entries: list[Entry] = field(default_factory=list)
    index_of: dict[str, int] = field(default_factory=dict)
    copies: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    rejections: list[Rejection] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, piece: Piece, row: Row, marks: tuple[Mark, ...], spool: Spool) -> None:
        """Add a piece of a file: an entry, the copy of an entry, or a rejection."""
        if piece.id in self.index_of:
            index = self.index_of[piece.id]
            self.copies[index].append((row.source, row.label))
            known = self.entries[index].marks
            self.entries[index].marks += tuple(mark for mark in marks if mark not in known)
        elif piece.finding:
            self.rejections.append(Rejection(row.source, piece.finding.reason, piece.finding.detail))
        else:
            spool.append(piece)
            self.index_of[piece.id] = len(self.entries)
            self.entries.append(Entry(row, marks))


def read_all(
    source: Source,
    lines_of: Mapping[str, list[int]],
    spool: Spool,
    *,
    size: int,
    volume: int,
    step: int,
    ids: Iterable[str],
) -> Intake:
    """Return the images in the files of `source`; their pixels are in `spool`, in the order of the entries.

    `size` is the side of the prepared images, in pixels; `volume` the number of the volume to take from a NIfTI file
    with several; of several slices, every `step`-th with a head is used; `ids` which of a DICOM file's `patient` and
    `study` identify a person; `lines_of` the lines of the user's groups file for each key. Ids are kept only as hashes
    with a random key that is never stored.

    Raises MachineError if a file was deleted.
    """
    secret = secrets.token_bytes(32)
    intake = Intake()
    intake.rejections = [Rejection(spelled(key), *why) for key, why in source.rejected.items()]
    work = functools.partial(examine, size=size, volume=volume, step=step)
    named = ((below_class(key), data) for key, data in contents(source))
    for key, (data, result) in zip(source.files, readers.shared().map(work, named), strict=True):
        intake.digests[key] = hashlib.sha256(data).hexdigest()
        name, label = spelled(key), label_of(key)
        if label is None:
            intake.rejections.append(Rejection(name, "no-class", "not in a class folder"))
        elif isinstance(result, Unusable):
            intake.rejections.append(Rejection(name, result.reason, result.detail))
        else:
            pieces, file = result
            intake.remarks.extend((name, remark) for remark in file.remarks)
            marks = [
                Mark(kind, hmac.digest(secret, f"{kind} {value}".encode(), "sha256")[:16])
                for kind, value in (("patient", file.patient), ("study", file.study))
                if value and kind in ids
            ]
            marks += [Mark("line", line) for line in lines_of.get(key, [])]
            if len(pieces) > 1:
                marks.append(Mark("volume", key))
            for piece in pieces:
                place = name if piece.number is None else f"{name}#{piece.number}"
                about = (file.format, len(data), piece.width, piece.height, piece.border)
                intake.add(piece, Row(piece.id, place, label, "", -1, *about), tuple(marks), spool)
    spool.flush()
    return intake
