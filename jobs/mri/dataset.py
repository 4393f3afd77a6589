"""Access to a prepared dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from jobs.common import keys, png, tables
from jobs.common.errors import MachineError, UserError
from jobs.common.shards import Shards
from jobs.common.step import Step, from_manifest, manifest_digest, read_manifest, read_output
from jobs.common.storage import Storage


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a dataset: a line of `index.csv`.

    `source` is the file's path below the data root, with `#n` for slice n of a volume; the image is held out in `fold`.
    `format`, `bytes`, `width`, `height` (pixels) and `border` (mean gray value of the outermost 2 %, 0-255) describe
    the file, before the crop.
    """

    id: str
    source: str
    label: str
    group: str
    fold: int
    format: str
    bytes: int
    width: int
    height: int
    border: float


INDEX_COLUMNS = tuple(field.name for field in fields(Row))


def rows_to_csv(rows: Sequence[Row]) -> bytes:
    """Return `index.csv` of `rows`."""
    return tables.to_csv(INDEX_COLUMNS, ([*astuple(row)[:-1], f"{row.border:.2f}"] for row in rows))


def rows_from_csv(data: bytes) -> list[Row]:
    """Return the rows of an `index.csv`. Raises ValueError if it is invalid."""
    header, rows = tables.from_csv(data)
    if tuple(header) != INDEX_COLUMNS:
        raise ValueError(f"its columns must be {','.join(INDEX_COLUMNS)}")
    return [
        Row(id, source, label, group, int(fold), kind, int(size), int(width), int(height), float(border))
        for id, source, label, group, fold, kind, size, width, height, border in rows
    ]


@dataclass(frozen=True)
class Dataset:
    """Images of some classes, split into folds; `labels` are sorted."""

    storage: Storage
    id: str
    manifest: dict[str, Any]
    rows: list[Row]
    labels: tuple[str, ...]
    image_size: int
    folds: int

    @property
    def digest(self) -> str:
        """The digest of the dataset's content."""
        return manifest_digest(self.manifest)

    @property
    def step(self) -> Step:
        """The finished step of preprocess."""
        return from_manifest(self.storage, keys.dataset(self.id), self.manifest)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of preprocess, such as counts."""
        return self.manifest["facts"]

    def training(self, fold: int | str) -> list[Row]:
        """Return the training rows of `fold`; all rows for fold 'all'. Raises UserError for an unknown fold."""
        number = self._number(fold)
        return [row for row in self.rows if row.fold != number]

    def held_out(self, fold: int | str) -> list[Row]:
        """Return the held-out rows of `fold`; none for fold 'all'. Raises UserError for an unknown fold."""
        number = self._number(fold)
        return [row for row in self.rows if row.fold == number]

    def pixels(self, rows: Sequence[Row]) -> np.ndarray:
        """Return uint8 [len(rows), image_size, image_size]. Raises MachineError if an image is missing or damaged."""
        pixels = np.empty((len(rows), self.image_size, self.image_size), np.uint8)
        for number, image in self.each(rows):
            pixels[number] = image
        return pixels

    def each(self, rows: Sequence[Row]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for each row its number in `rows` and uint8 [image_size, image_size], in the order of storage.

        Few images are in memory at a time. Raises MachineError if an image is missing or damaged.
        """
        numbers: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            numbers.setdefault(keys.image(row.id), []).append(number)
        for name, data in self.images.read(numbers):
            image = png.decode(data)
            for number in numbers[name]:
                yield number, image

    def read(self, name: str) -> bytes:
        """Return the file `name` of the dataset. Raises MachineError if it is missing or damaged."""
        return read_output(self.storage, keys.dataset(self.id), self.manifest, name)

    @cached_property
    def images(self) -> Shards:
        """The PNG files, `<id>.png`."""
        # Cached because some jobs read a few images at a time.
        return Shards(self.storage, keys.dataset(self.id), self.manifest, "images")

    def _number(self, fold: int | str) -> int:
        if fold == "all":
            return -1
        if not str(fold).isdigit() or int(fold) >= self.folds:
            raise UserError(f"--fold: there is no fold {fold}: dataset {self.id} has 0 to {self.folds - 1}, and `all`")
        return int(fold)


def open_dataset(storage: Storage, id: str) -> Dataset:
    """Return the dataset `id`. Raises UserError if it is missing or unfinished, MachineError if it is damaged."""
    prefix = keys.dataset(id)
    manifest = read_manifest(storage, prefix)
    if manifest is None:
        raise UserError(f"there is no dataset {id} in {storage.url}: run preprocess, or see its output for the id")
    try:
        rows = rows_from_csv(read_output(storage, prefix, manifest, "index.csv"))
        labels = tuple(sorted({row.label for row in rows}))
        settings = manifest["settings"]
        size, folds = int(settings["image_size"]), int(settings["folds"])
    except (ValueError, KeyError) as error:
        raise MachineError(f"{prefix}/index.csv is damaged ({error}): delete {prefix} and run preprocess") from error
    return Dataset(storage, id, manifest, rows, labels, size, folds)
