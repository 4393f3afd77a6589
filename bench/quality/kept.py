"""Results that outlive storage: each finished step without its images and weights, small enough for the repository.

A step whose manifest is put back counts as finished, so a run goes on from them on a machine that has nothing else.
"""

from collections.abc import Iterable
from pathlib import Path

from jobs.common.step import MANIFEST, read_manifest, read_output
from jobs.common.storage import Storage

# Whatever shows a real image is never kept: nearest.png, a dataset's images.
FILES = ("predictions.csv", "phantoms.csv", "history.csv", "losses.csv", "quality.json")


def keep(storage: Storage, prefix: str, folder: Path) -> None:
    """Copy a finished step's small files into `folder`, the manifest last; do nothing if this very step is there.

    Raises MachineError if a file is missing or damaged.
    """
    manifest = storage.read(f"{prefix}/{MANIFEST}")
    place = folder / prefix
    if (place / MANIFEST).is_file() and (place / MANIFEST).read_bytes() == manifest:
        return
    place.mkdir(parents=True, exist_ok=True)
    (place / MANIFEST).unlink(missing_ok=True)
    found = read_manifest(storage, prefix) or {"outputs": {}}
    for name in FILES:
        if name in found["outputs"]:
            (place / name).write_bytes(read_output(storage, prefix, found, name))
        else:
            (place / name).unlink(missing_ok=True)
    (place / MANIFEST).write_bytes(manifest)


def hollow(storage: Storage, prefix: str) -> bool:
    """Return whether a step was put back without images or weights that its manifest names."""
    manifest = read_manifest(storage, prefix) or {"outputs": {}}
    there = {key.removeprefix(f"{prefix}/").partition("/") for key in storage.list(prefix)}
    return not manifest["outputs"].keys() <= {f"{first}{slash}" for first, slash, _ in there}


def put_back(storage: Storage, prefixes: Iterable[str], folder: Path) -> None:
    """Copy kept steps into storage, each manifest last; those that storage has stay as they are."""
    for prefix in prefixes:
        place = folder / prefix
        if (place / MANIFEST).is_file() and read_manifest(storage, prefix) is None:
            for name in (*FILES, MANIFEST):
                if (place / name).is_file():
                    storage.write(f"{prefix}/{name}", (place / name).read_bytes())
