"""Finished steps without their images and weights, small enough for the repository.

A step counts as finished once its manifest is put back in storage, so that another machine can continue a run. Files of
the same name are joined: tables with the additional column `prefix` and a new header where the columns change, JSON
objects as one object with a line for each step.
"""

import json
from collections import defaultdict
from pathlib import Path

from jobs.common.step import MANIFEST, read_manifest, read_output
from jobs.common.storage import Storage, open_storage
from jobs.common.tables import from_csv, to_csv

# No file that shows a real image: nearest.png, the images of a dataset. The manifest is written last, as in storage,
# since a step without a manifest is not finished.
FILES = ("predictions.csv", "phantoms.csv", "history.csv", "losses.csv", "quality.json", MANIFEST)
KEY = "prefix"
Steps = dict[str, dict[str, bytes]]  # files of steps, by prefix and name as in storage


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
    """Write steps to `folder`, in place of those that it keeps."""
    joined = {}
    for name in FILES:
        if found := {prefix: files[name] for prefix, files in sorted(steps.items()) if name in files}:
            joined[name] = _join_tables(found) if name.endswith(".csv") else _join_objects(found)
    # After all are joined, so that an interruption is unlikely to leave files that do not match.
    for name, data in joined.items():
        open_storage(str(folder)).write(f"runs/{name}", data)


def keep(storage: Storage, prefix: str, folder: Path) -> None:
    """Add the small files of a finished step to `folder`, unless it already keeps this step.

    Raises MachineError if a file is missing or damaged.
    """
    raw, manifest = storage.read(f"{prefix}/{MANIFEST}"), read_manifest(storage, prefix) or {"outputs": {}}
    steps = read(folder)
    if steps.get(prefix, {}).get(MANIFEST) != raw:
        names = [name for name in FILES if name in manifest["outputs"]]
        found = {name: read_output(storage, prefix, manifest, name) for name in names}
        write(steps | {prefix: found | {MANIFEST: raw}}, folder)


def incomplete(storage: Storage, prefix: str) -> bool:
    """Return whether storage lacks images or weights that the manifest of a step lists."""
    manifest = read_manifest(storage, prefix) or {"outputs": {}}
    there = {key.removeprefix(f"{prefix}/").partition("/") for key in storage.list(prefix)}
    return not manifest["outputs"].keys() <= {f"{first}{slash}" for first, slash, _ in there}


def put_back(storage: Storage, steps: Steps) -> None:
    """Copy kept steps to storage unless they are there, each with its manifest last."""
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
    # The format in which jobs write JSON.
    return {prefix: (json.dumps(one, indent=1) + "\n").encode() for prefix, one in json.loads(data).items()}
