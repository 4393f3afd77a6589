"""Results that outlive storage: finished steps without their images and weights, small enough for the repository.

A step whose manifest is put back counts as finished, so a run goes on from them on a machine that has nothing else.
The steps' files of one name are one file: a table with the column `prefix` before its own and its header again where
columns change, or a JSON object with a line for each step.
"""

import json
from collections import defaultdict
from pathlib import Path

from jobs.common.step import MANIFEST, read_manifest, read_output
from jobs.common.storage import Storage, open_storage
from jobs.common.tables import from_csv, to_csv

# Whatever shows a real image is never kept: nearest.png, a dataset's images. A step without a manifest is not finished,
# so this is the last to be written, here as in storage.
FILES = ("predictions.csv", "phantoms.csv", "history.csv", "losses.csv", "quality.json", MANIFEST)
KEY = "prefix"
Steps = dict[str, dict[str, bytes]]  # by prefix and name, as they are in storage


def read(folder: Path) -> Steps:
    """Return the finished steps that `folder` keeps."""
    steps: Steps = defaultdict(dict)
    for name in FILES:
        path = folder / "runs" / name
        split = _split_table if path.suffix == ".csv" else _split_object
        for prefix, data in split(path.read_bytes()).items() if path.exists() else ():
            steps[prefix][name] = data
    return {prefix: files for prefix, files in steps.items() if MANIFEST in files}


def write(steps: Steps, folder: Path) -> None:
    """Write to `folder` what `read` then returns."""
    by_name = {name: {prefix: x[name] for prefix, x in sorted(steps.items()) if name in x} for name in FILES}
    joined = {
        name: _join_tables(found) if name.endswith(".csv") else _join_objects(found)
        for name, found in by_name.items()
        if found
    }
    # Only now, and each file whole, so that a process that is stopped hardly ever leaves files that disagree.
    for name, data in joined.items():
        open_storage(str(folder)).write(f"runs/{name}", data)


def keep(storage: Storage, prefix: str, folder: Path) -> None:
    """Add a finished step's small files to `folder`; do nothing if this very step is there.

    Raises MachineError if a file is missing or damaged.
    """
    raw, manifest = storage.read(f"{prefix}/{MANIFEST}"), read_manifest(storage, prefix) or {"outputs": {}}
    steps = read(folder)
    if steps.get(prefix, {}).get(MANIFEST) != raw:
        names = [name for name in FILES if name in manifest["outputs"]]
        found = {name: read_output(storage, prefix, manifest, name) for name in names}
        write(steps | {prefix: found | {MANIFEST: raw}}, folder)


def hollow(storage: Storage, prefix: str) -> bool:
    """Return whether a step was put back without images or weights that its manifest names."""
    manifest = read_manifest(storage, prefix) or {"outputs": {}}
    there = {key.removeprefix(f"{prefix}/").partition("/") for key in storage.list(prefix)}
    return not manifest["outputs"].keys() <= {f"{first}{slash}" for first, slash, _ in there}


def put_back(storage: Storage, steps: Steps) -> None:
    """Copy kept steps into storage, each manifest last; those that storage has stay as they are."""
    for prefix, files in steps.items():
        if read_manifest(storage, prefix) is None:
            for name, data in files.items():
                storage.write(f"{prefix}/{name}", data)


def _join_tables(found: dict[str, bytes]) -> bytes:
    lines: list[list[str]] = []
    columns: list[str] = []
    for prefix, data in found.items():
        header, rows = from_csv(data)
        lines += [[KEY, *header]] * (header != columns) + [[prefix, *row] for row in rows]
        columns = header
    return to_csv(lines[0], lines[1:])


def _split_table(data: bytes) -> dict[str, bytes]:
    header, rows = from_csv(data)
    tables: dict[str, list[list[str]]] = {}
    for first, *row in (header, *rows):
        if first == KEY:
            columns = row
        else:
            tables.setdefault(first, [columns]).append(row)
    return {prefix: to_csv(lines[0], lines[1:]) for prefix, lines in tables.items()}


def _join_objects(found: dict[str, bytes]) -> bytes:
    lines = (f"{json.dumps(prefix)}: {json.dumps(json.loads(data))}" for prefix, data in found.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _split_object(data: bytes) -> dict[str, bytes]:
    # Jobs write JSON like this.
    return {prefix: (json.dumps(one, indent=1) + "\n").encode() for prefix, one in json.loads(data).items()}
