"""The caller's files: which there are, what class each is of, which of them belong together."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from jobs.common.errors import MachineError, UserError
from jobs.common.keys import RESERVED_LABELS
from jobs.common.storage import PARALLEL, MissingKey, Storage, open_storage

# What file managers and archivers leave behind.
LITTER = frozenset({"Thumbs.db", "ehthumbs.db", "desktop.ini", "__MACOSX"})

T = TypeVar("T")


def find(url: str, flag: str = "--data") -> tuple[Storage, list[str]]:
    """Return the storage at `url` and the sorted keys of the files in it, hidden files and litter left out.

    `flag` names the setting in messages.
    Raises UserError if `url` is missing, holds no class folders, fewer than two, one without a file, or one whose
    name is taken by the layout of storage.
    """
    storage = open_storage(url)
    found = [key for key in storage.list("") if not _is_litter(key)]
    classes = {key.partition("/")[0] for key in found if "/" in key}
    if not url.startswith("s3://"):
        root = Path(url)
        if not root.is_dir():
            raise UserError(f"{flag}: there is no folder {url}")
        classes |= {path.name for path in root.iterdir() if path.is_dir() and not _is_litter(path.name)}
    if not classes:
        what = "files but no class folders" if found else "nothing"
        raise UserError(f"{flag}: {url} holds {what}: it must hold one folder of images for each class")
    if len(classes) == 1:
        raise UserError(f"{flag}: {url} has only the class {min(classes)}: two or more are needed, one folder each")
    for label in sorted(classes):
        if label in RESERVED_LABELS:
            raise UserError(
                f"{flag}: a class cannot be called {label}: that name is taken in storage, rename the folder"
            )
        if not any(key.startswith(label + "/") for key in found):
            raise UserError(
                f"{flag}: the class {label} is empty: put images into {url.rstrip('/')}/{label} or remove it"
            )
    return storage, found


def label_of(key: str) -> str | None:
    """Return the class of a file: the first folder of its path; None for a file in no folder."""
    label, slash, _ = key.partition("/")
    return label if slash else None


def digests(storage: Storage, found: Iterable[str]) -> list[tuple[str, str]]:
    """Return (key, SHA-256 of the content as hexadecimal digits) of each of the files `found`.

    Raises MachineError if one is gone.
    """
    return [(key, hashlib.sha256(data).hexdigest()) for key, data in contents(storage, found)]


def contents(storage: Storage, found: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (key, content) of each of the files `found`, in order. Raises MachineError if one is gone."""

    def read(key: str) -> tuple[str, bytes]:
        try:
            return key, storage.read(key)
        except MissingKey:
            where = f"{storage.url.rstrip('/')}/{key}"
            raise MachineError(f"{where} was there a moment ago and is gone: run it again") from None

    return _in_order(read, found)


def _in_order(call: Callable[[str], T], items: Iterable[str]) -> Iterator[T]:
    """Yield `call` of each item, in order, a few of them under way at once."""
    iterator = iter(items)
    with ThreadPoolExecutor(PARALLEL) as pool:
        while batch := list(islice(iterator, PARALLEL)):
            yield from pool.map(call, batch)


def read_groups(url: str, found: Iterable[str]) -> tuple[bytes, dict[str, list[int]]]:
    """Return the bytes of a groups file and, for each file it names, the numbers of the lines that do.

    The file is CSV without a header; each line lists the files of one person, as paths below the data root. A person
    with one file has a line too. Raises UserError if it cannot be read or names a file that is not among `found`.
    """
    folder, _, name = url.rpartition("/")
    try:
        data = open_storage(folder or ("/" if url.startswith("/") else ".")).read(name)
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig")), skipinitialspace=True))
    except MissingKey:
        raise UserError(f"--groups: there is no file {url}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--groups: {url} is not a CSV file in UTF-8: {error}") from None
    known = set(found)
    lines_of: dict[str, list[int]] = {}
    for number, line in enumerate(lines, 1):
        for source in filter(None, map(str.strip, line)):
            if source not in known:
                raise UserError(
                    f"--groups: line {number} of {url} names {source}, which is not below the data root: "
                    "each line lists files of one person, such as yes/1.png,yes/2.png"
                )
            lines_of.setdefault(source, []).append(number)
    return data, lines_of


def _is_litter(key: str) -> bool:
    return any(part.startswith(".") or part in LITTER for part in key.split("/"))
