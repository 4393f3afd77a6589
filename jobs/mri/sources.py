"""The user's files: their list, their classes, and the groups that the user specifies."""

import csv
import io
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from jobs.common import keys, shapes
from jobs.common.errors import MachineError, UserError
from jobs.common.keys import RESERVED_LABELS
from jobs.common.step import digest, seal, unseal
from jobs.common.storage import PARALLEL, MissingKey, Storage, Version, open_storage
from jobs.mri import walk
from jobs.mri.slices import BUDGET

# Names of folders that are parts of a split if they contain folders of classes.
SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "holdout"})
READ_AHEAD = 2**28  # bytes of files that are fetched together


@dataclass(frozen=True)
class Source:
    """The files in `storage` with their versions; `rejected` has reason and detail of those that cannot be opened."""

    storage: Storage
    files: dict[str, Version]
    rejected: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted({label for key in (*self.files, *self.rejected) if (label := label_of(key)) is not None})


def find_source(url: str, flag: str = "--data", follow_links: bool = False) -> Source:
    """Return the files at `url`, a folder or s3://bucket/prefix, without hidden files and litter.

    Links out of the folder are only read with `follow_links`. `flag` is the setting that messages name.

    Raises UserError if `url` is missing or has fewer than two class folders, if a class folder is empty, has only such
    links or has a name that cannot be used, or if the folders are the parts of a split.
    """
    storage = open_storage(url)
    if url.startswith("s3://"):
        found = walk.Tree({key: version for key, version in storage.versions("").items() if not walk.is_litter(key)})
    else:
        root = Path(url)
        if not root.is_dir():
            raise UserError(f"{flag}: there is no folder {url}")
        found = walk.walk(root, follow_links)
    too_large = {
        key: ("decompression-bomb", f"{version.size} bytes, more than {BUDGET.file_bytes}")
        for key, version in found.files.items()
        if version.size > BUDGET.file_bytes
    }
    files = {key: version for key, version in found.files.items() if key not in too_large}
    source = Source(storage, files, found.rejected | too_large)
    classes = sorted({*source.labels, *map(_nfc, found.folders)})
    for label in classes:
        if label in RESERVED_LABELS:
            raise UserError(f"{flag}: a class cannot be called {label}, which is a reserved name: rename the folder")
        if walk.spelled(label) != label or not label.isprintable() or label != label.strip() or "," in label:
            raise UserError(
                f"{flag}: the name of the folder {walk.spelled(label)!r} in {url} cannot be used in a setting: "
                "rename the folder, without commas, blanks at its ends and bytes that are not UTF-8"
            )
    _check_split(classes, source, flag, url)
    if not classes:
        what = "files but no class folders" if source.files else "nothing"
        raise UserError(f"{flag}: {url} contains {what}: it must contain one folder of images for each class")
    if len(classes) == 1:
        inside = sorted({key.split("/")[1] for key in source.files if key.count("/") > 1})
        hint = f": if {', '.join(inside[:4])} are the classes, give {url.rstrip('/')}/{classes[0]}" if inside else ""
        raise UserError(f"{flag}: {url} has only the class {classes[0]}: two or more are needed, one folder each{hint}")
    for label in classes:
        links = [key for key, (reason, _) in found.rejected.items() if reason == walk.OUTSIDE]
        links = [key for key in links if label in (label_of(key), key)]
        if links and not any(label_of(key) == label for key in files):
            raise UserError(
                f"{flag}: {url.rstrip('/')}/{walk.spelled(links[0])} is a link that leads out of the data: set "
                "--follow-links true to read what such links lead to"
            )
        if label not in source.labels:
            raise UserError(
                f"{flag}: the class {label} is empty: put images into {url.rstrip('/')}/{label} or remove it"
            )
    return source


def _check_split(classes: list[str], source: Source, flag: str, url: str) -> None:
    """Raise UserError if the folders are the parts of a split that contain the classes."""
    inside: dict[str, set[str]] = {label: set() for label in classes}
    for key in source.files:
        label, (folder, slash, _) = label_of(key), below_class(key).partition("/")
        if label and slash:
            inside[label].add(folder)
    splits = [label for label in classes if label.casefold() in SPLITS]
    parts = [label for label in splits if len(inside[label]) > 1]
    shared = len(parts) > 1 and len(set.intersection(*(inside[part] for part in parts))) > 1
    if not parts or not (splits == classes or shared):
        return
    train = next((part for part in parts if part.casefold().startswith("train")), parts[0])
    others = [label for label in splits if label != train]
    place = url.rstrip("/")
    test = f" --test {place}/{others[0]}" if others else ""
    raise UserError(
        f"{flag}: {', '.join(parts)} in {url} are the parts of a split, not classes: "
        f"run `mrigan pipeline --data {place}/{train}{test}`"
    )


def label_of(key: str) -> str | None:
    """Return the class of a file: the first folder of its path, in Unicode's composed form; None without a folder."""
    label, slash, _ = key.lstrip("/").partition("/")
    return _nfc(label) if slash else None


def below_class(key: str) -> str:
    """Return the path of a file below its class folder."""
    return key.lstrip("/").partition("/")[2]


def contents(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield (key, content) of each file, in order; a few are fetched ahead. Raises MachineError if one was deleted."""

    def read(key: str) -> bytes:
        try:
            return source.storage.read(key)
        except MissingKey:
            where = f"{source.storage.url.rstrip('/')}/{walk.spelled(key)}"
            raise MachineError(f"{where} was deleted while the job was running: run the job again") from None

    with ThreadPoolExecutor(PARALLEL) as pool:
        for batch in _batches(source.files):
            yield from zip(batch, pool.map(read, batch), strict=True)


def _batches(files: Mapping[str, Version]) -> Iterator[list[str]]:
    """Yield the keys in batches of at most PARALLEL files and READ_AHEAD bytes."""
    batch: list[str] = []
    held = 0
    for key, version in files.items():
        if batch and (len(batch) == PARALLEL or held + version.size > READ_AHEAD):
            yield batch
            batch, held = [], 0
        batch.append(key)
        held += version.size
    if batch:
        yield batch


# -- the record of files that were read ----------------------------------------------------------------------------


def remembered(storage: Storage, url: str, files: Mapping[str, Version]) -> dict[str, str]:
    """Return the SHA-256 of each of the `files` at `url` whose version has not changed since it was last read."""
    try:
        record = shapes.checked(shapes.Remembered, unseal(storage.read(keys.source(digest(url)[:12]))))
        read = {key: (Version(size, tag), sha256) for key, (size, tag, sha256) in record["files"].items()}
        named = ((key, version, read.get(walk.spelled(key))) for key, version in files.items())
        return {key: found[1] for key, version, found in named if found and found[0] == version}
    # Without a valid record, all files are read again.
    except (MissingKey, ValueError, KeyError, TypeError):
        return {}


def remember(storage: Storage, url: str, files: Mapping[str, Version], digests: Mapping[str, str]) -> None:
    """Keep the SHA-256 of `files` beside their versions, for `remembered`."""
    record = {walk.spelled(key): [*files[key], sha256] for key, sha256 in digests.items()}
    storage.write(keys.source(digest(url)[:12]), seal({"url": walk.spelled(url), "files": record}))


# -- the user's groups ---------------------------------------------------------------------------------------------


def read_groups(url: str, found: Iterable[str]) -> tuple[bytes, dict[str, list[int]]]:
    """Return the bytes of a groups file and, for each file that it lists, the numbers of the lines.

    The groups file is CSV without a header; each line lists the files of one person, as paths below the data root. A
    person with one file has a line too. Paths may be in any Unicode normal form, begin with ./ and have backslashes.

    Raises UserError if it cannot be read or lists a file that is not in `found`.
    """
    folder, _, name = url.rpartition("/")
    try:
        data = open_storage(folder or ("/" if url.startswith("/") else ".")).read(name)
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig")), skipinitialspace=True, strict=True))
    except MissingKey:
        raise UserError(f"--groups: there is no file {url}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--groups: {url} is not a CSV file in UTF-8: {error}") from None
    exact = {walk.spelled(key): key for key in found}
    alike = {_plain(name): key for name, key in exact.items()}
    lines_of: dict[str, list[int]] = {}
    for number, line in enumerate(lines, 1):
        for source in filter(None, map(str.strip, line)):
            key = exact.get(source) or alike.get(_plain(source))
            if key is None:
                raise UserError(
                    f"--groups: line {number} of {url} names {source}, which is not below the data root: "
                    "each line lists files of one person, such as yes/1.png,yes/2.png"
                )
            lines_of.setdefault(key, []).append(number)
    return data, lines_of


def _plain(path: str) -> str:
    return posixpath.normpath(_nfc(path).replace("\\", "/")).lstrip("/")


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
