"""Shards: the many small files of a folder of outputs, as few tar files with an index beside.

`images/shard-000000.tar` and so on are named as WebDataset names them (https://github.com/webdataset/webdataset), and
every program for tar files reads them. `images.csv` has the name of each file, its shard, the offset of its first byte
in the shard, its number of bytes and its SHA-256: a single file is read without the rest of its shard.
"""

import hashlib
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from jobs.common import again
from jobs.common.errors import MachineError
from jobs.common.step import LISTING, Step, read_listing, read_output, unusable
from jobs.common.storage import MissingKey, Storage, in_parallel
from jobs.common.tables import from_csv, to_csv

# Bytes of files in a shard, small enough to transfer several at once. A larger file has a shard of its own.
SHARD_BYTES = 8 * 2**20
HELD = 16  # shards that are read or written at once, and so in memory
# The header of an empty file without a name; eight blanks stand for its checksum.
HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
HEADER[148:156] = b" " * 8
GAP = 2**18  # unwanted bytes between wanted files that are read in less time than another request takes


class Member(NamedTuple):
    """A file in a shard: a line of the index. `shard` is a name below the step's prefix."""

    name: str
    shard: str
    offset: int
    bytes: int
    sha256: str


class Span(NamedTuple):
    """Consecutive bytes of a shard (all if `length` is None), and the wanted files in it."""

    shard: str
    start: int
    length: int | None
    members: list[Member]


def write(step: Step, folder: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, data) pairs as the shards of a folder, with the index. The same files give the same bytes.

    Shards are written while the next files are taken from `files`; few are in memory at a time. Other files of the
    folder, from an interrupted job, are deleted.
    """
    members: list[Member] = []
    step.write_many(_shards(folder, files, members), HELD)
    step.write(_index(folder), to_csv(Member._fields, members))
    written = {f"{step.prefix}/{member.shard}" for member in members}
    for key in step.storage.list(f"{step.prefix}/{folder}"):
        if key not in written:
            step.storage.delete(key)


def _shards(folder: str, files: Iterable[tuple[str, bytes]], members: list[Member]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each shard; its files are added to `members`."""
    for number, batch in enumerate(_batches(files)):
        shard = f"{folder}/shard-{number:06d}.tar"
        pieces, offset = [], 0
        for name, data in batch:
            offset += tarfile.BLOCKSIZE
            members.append(Member(name, shard, offset, len(data), _sha256(data)))
            pieces += [_header(name, len(data)), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
            offset += len(data) + len(pieces[-1])
        end = offset + 2 * tarfile.BLOCKSIZE
        yield shard, b"".join([*pieces, bytes(end - offset + -end % tarfile.RECORDSIZE)])


def _header(name: str, size: int) -> bytes:
    """Return the header of a file in a tar file: POSIX ustar, with constant time, owner and mode.

    This takes a fifth of the time of tarfile, of which the header would be half the time of writing.
    """
    header = bytearray(HEADER)
    encoded = name.encode()
    if len(encoded) > 100:
        raise ValueError(f"{name}: too long a name")
    header[: len(encoded)] = encoded
    header[124:135] = b"%011o" % size
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _batches(files: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for name, data in files:
        if batch and size + len(data) > SHARD_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((name, data))
        size += len(data)
    if batch:
        yield batch


@dataclass(frozen=True)
class Shards:
    """The files in the shards of a folder of a finished step."""

    storage: Storage
    prefix: str
    manifest: Mapping[str, Any]
    folder: str

    @cached_property
    def members(self) -> dict[str, Member]:
        """The files by name, in the order in which they were written.

        Raises MachineError if the index is missing or damaged.
        """
        if not self._indexed:
            files = {file.removeprefix(f"{self.folder}/"): file for file in self._digests}
            return {name: Member(name, file, 0, sys.maxsize, self._digests[file]) for name, file in files.items()}
        _, rows = from_csv(read_output(self.storage, self.prefix, self.manifest, _index(self.folder)))
        found = (Member(name, shard, int(offset), int(size), sha) for name, shard, offset, size, sha in rows)
        return {member.name: member for member in found}

    def read(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the files `names` (all if None), each once, in the order of `members`.

        Shards that are wanted for the most part are read whole, and of others only the wanted parts; the next ones are
        read while the caller works. A shard read whole is verified with its digest, a file of another with its own.
        Raises MachineError if a shard is missing or damaged, or has no such file.
        """
        if names is None:
            yield from self._all()
            return
        spans = self._spans(names)
        if any(span.length is None for span in spans):
            # Read here, so that the threads below do not all read it.
            _ = self._digests
        for files in in_parallel(self._files, spans, "read", HELD):
            yield from files

    def _all(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of all files. The index is read at the same time as the first shards."""
        with ThreadPoolExecutor(1) as pool:
            index = pool.submit(lambda: groupby(self.members.values(), lambda one: one.shard))
            for data in in_parallel(self._whole, self._digests, "read", HELD):
                _, members = next(index.result())
                for one in members:
                    yield one.name, data[one.offset : one.offset + one.bytes]

    def first(self, count: int) -> list[bytes]:
        """Return the first `count` files, none if they no longer exist.

        Synthetic images may be deleted to save space once the classifiers are trained. Raises MachineError if an
        existing file is damaged.
        """
        if not self.storage.exists(f"{self.prefix}/{_index(self.folder) if self._indexed else self.folder + LISTING}"):
            return []
        members = list(self.members.values())[:count]
        if not members or not self.storage.exists(f"{self.prefix}/{members[0].shard}"):
            return []
        return [data for _, data in self.read(member.name for member in members)]

    @property
    def _indexed(self) -> bool:
        """Whether there are shards; in steps of mrigan 0.2 each file is an object of its own, and its size unknown."""
        return _index(self.folder) in self.manifest["outputs"]

    @cached_property
    def _digests(self) -> dict[str, str]:
        if f"{self.folder}/" not in self.manifest["outputs"]:
            return {}
        return read_listing(self.storage, self.prefix, self.manifest, self.folder)

    @cached_property
    def _ends(self) -> dict[str, int]:
        """The end of the last file of each shard, in bytes."""
        return {member.shard: member.offset + member.bytes for member in self.members.values()}

    def _spans(self, names: Iterable[str]) -> list[Span]:
        wanted = set(names)
        if unknown := wanted - self.members.keys():
            raise self._unusable(f"{self.folder}/{min(unknown)}", "is missing")
        by_shard: dict[str, list[Member]] = {}
        for name, member in self.members.items():
            if name in wanted:
                by_shard.setdefault(member.shard, []).append(member)
        return [span for shard, members in by_shard.items() for span in self._parts(shard, members)]

    def _parts(self, shard: str, members: list[Member]) -> list[Span]:
        """Return what to read of a shard for the files `members`, which are in order."""
        parts: list[list[Member]] = []
        end = -GAP - 1
        for member in members:
            if member.offset - end > GAP:
                parts.append([])
            parts[-1].append(member)
            end = member.offset + member.bytes
        starts = [part[0].offset for part in parts]
        lengths = [part[-1].offset + part[-1].bytes - part[0].offset for part in parts]
        if 2 * sum(lengths) >= self._ends[shard]:
            return [Span(shard, 0, None, members)]
        return [Span(shard, *span) for span in zip(starts, lengths, parts, strict=True)]

    def _files(self, span: Span) -> list[tuple[str, bytes]]:
        start, key = span.start, f"{self.prefix}/{span.shard}"

        def files(data: bytes) -> list[tuple[str, bytes]]:
            return [(one.name, data[one.offset - start : one.offset - start + one.bytes]) for one in span.members]

        def read() -> list[tuple[str, bytes]]:
            found = files(self.storage.read_range(key, start, span.length or 0))
            if any(_sha256(file) != one.sha256 for one, (_, file) in zip(span.members, found, strict=True)):
                raise ValueError("is damaged")
            return found

        if span.length is None:
            return files(self._whole(span.shard))
        with self._faults(span.shard):
            return again.twice(read, key, MissingKey, ValueError)

    def _whole(self, shard: str) -> bytes:
        with self._faults(shard):
            return again.verified(self.storage, f"{self.prefix}/{shard}", self._digests.get(shard))

    @contextmanager
    def _faults(self, shard: str) -> Iterator[None]:
        try:
            yield
        except MissingKey:
            raise self._unusable(shard, "is missing") from None
        except ValueError:
            raise self._unusable(shard, "is damaged") from None

    def _unusable(self, name: str, what: str) -> MachineError:
        return unusable(self.storage, self.prefix, name, what)


def _index(folder: str) -> str:
    return f"{folder}.csv"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
