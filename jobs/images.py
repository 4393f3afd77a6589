"""Write images of a run or of a dataset into a folder: synthetic ones, as many as wanted, or the prepared real ones.

    mrigan images RUN --storage s3://bucket/prefix --out synthetic --count 5000
    mrigan images DATASET --storage s3://bucket/prefix --out heads --ids 0f3a5c1e9b7d2468

Reads   runs/<run>/fold-<fold>/<class>/synthetic/, and the generator that drew them if more images are wanted. The fold
        is `all` if the run has it (--gan-of-all), else 0: that generator has not learned from the images of fold 0.
        For a dataset, datasets/<id>/.
Writes  <out>/<class>/<i>.png or <out>/<class>/<id>.png, on this machine.

Stored images are copied. Image i depends only on the generator, the seed, the bend and i: a larger --count adds images
and keeps the first ones. Files that are there already are kept if they are the same images.
"""

import hashlib
import itertools
import logging
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common import hardware, keys, png, progress
from jobs.common.errors import UserError
from jobs.common.fields import NAME
from jobs.common.shards import Shards
from jobs.common.step import Step, manifest_digest, read_manifest, read_output
from jobs.common.storage import Folder, Storage, open_storage, write_many
from jobs.gan import drawing, networks, synthetic
from jobs.mri.dataset import open_dataset
from jobs.settings import ExecutionSettings, ImagesSettings

log = logging.getLogger("mrigan.images")


def run(settings: ImagesSettings) -> None:
    """Write the images, and print the folder.

    Raises UserError if there is no such run, dataset, class or image, if the generator was trained again since, and,
    before anything is written, if the folder has other files; MachineError if a stored file is damaged.
    """
    if len(settings.runs) != 1:
        raise UserError("name one RUN: see --help")
    if "://" in settings.out:
        raise UserError(f"--out: a folder on this machine, not {settings.out}")
    if settings.count and settings.ids:
        raise UserError("--ids: without --count, since only stored images have ids")
    storage, [name] = open_storage(settings.storage), settings.runs
    if not re.fullmatch(NAME, name):
        raise UserError(_nothing(storage, name))
    if read_manifest(storage, keys.dataset(name)):
        wanted, out = _of_dataset(storage, name, settings), Folder(settings.out or "dataset")
    else:
        wanted, out = _of_run(storage, name, settings), Folder(settings.out or "synthetic")
    there = [images.check(out) for images in wanted]
    for images, known in zip(wanted, there, strict=True):
        images.write(out, known)
    print(out.url)


def _of_run(storage: Storage, name: str, settings: ImagesSettings) -> list["_Images"]:
    """Return the synthetic images that are asked for, by class."""
    ids = {keys.synthetic_image(int(id)) if id.isdecimal() else id: id for id in _split(settings.ids)}
    wanted = []
    for label, step in _find(storage, name, settings.label).items():
        files = synthetic.files(step)
        stored = list(files.members)
        if unknown := ids.keys() - files.members.keys():
            asked, last = ids[min(unknown)], len(stored) - 1
            raise UserError(f"--ids: run {name} has no image {asked!r} of {label}: its images are 0 to {last}")
        first = stored[: settings.count or None]
        drawn = _Drawn(step, label, range(len(first), max(settings.count, len(first))))
        wanted.append(_Images(label, files, list(ids) or first, stored if ids else first, drawn))
    return wanted


def _of_dataset(storage: Storage, id: str, settings: ImagesSettings) -> list["_Images"]:
    """Return the images of a dataset that are asked for, by class."""
    dataset, ids = open_dataset(storage, id), _split(settings.ids)
    if settings.count:
        raise UserError("--count: only of synthetic images; of a dataset, choose with --label and --ids")
    labels = _chosen_labels(settings.label, dataset.labels)
    found = {label: [row.id for row in dataset.rows if row.label == label] for label in labels}
    if unknown := set(ids) - {id for its in found.values() for id in its}:
        raise UserError(f"--ids: dataset {id} has no image {min(unknown)!r} of {', '.join(labels)}: see its index.csv")
    log.info("the real images of dataset %s", id)
    wanted = []
    for label, its in found.items():
        chosen = [keys.image(id) for id in its if id in ids or not ids]
        if chosen:
            wanted.append(_Images(label, dataset.images, chosen, [keys.image(id) for id in its]))
    return wanted


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _chosen_labels(asked: str, known: Sequence[str]) -> list[str]:
    """Return the classes in `asked`, all if it is empty. Raises UserError for one that is not known."""
    labels = _split(asked) or list(known)
    for label in labels:
        if label not in known:
            raise UserError(f"--label: one or several of {', '.join(known)}, not {label!r}")
    return labels


def _find(storage: Storage, run: str, asked: str) -> dict[str, Step]:
    """Return the steps of the images of the classes in `asked` (all if it is empty), by class."""
    of_all, of_fold_0 = (synthetic.finished(storage, run, fold) for fold in ("all", 0))
    known = sorted(of_all.keys() | of_fold_0.keys())
    if not known:
        raise UserError(_nothing(storage, run))
    labels = _chosen_labels(asked, known)
    if of_all.keys() >= set(labels):
        log.info("images of fold all: the generator has learned from all images of the dataset")
        return {label: of_all[label] for label in labels}
    log.info(
        "images of fold 0: the generator has not learned from the images of fold 0, "
        "and the run has no generator of all images (see --gan-of-all of mrigan pipeline)"
    )
    if missing := set(labels) - of_fold_0.keys():
        raise UserError(
            f"fold 0 has no images of {', '.join(sorted(missing))} yet: finish the run with mrigan pipeline"
        )
    return {label: of_fold_0[label] for label in labels}


def _nothing(storage: Storage, run: str) -> str:
    """Return the message for a name without images."""
    every = keys.run("")
    runs = sorted({key.removeprefix(f"{every}/").partition("/")[0] for key in storage.list(every)})
    if run not in runs:
        return f"{storage.url} has no run {run}; it has {', '.join(runs) or 'none'}"
    return (
        f"run {run} has no synthetic images: finish it with mrigan pipeline, or give it a regime with synthetic images"
    )


class _Drawn:
    """Images of a class that are not stored: the consecutive `numbers`, from the generator of the stored ones.

    Raises UserError if there are any, and the generator is not there.
    """

    def __init__(self, step: Step, label: str, numbers: range) -> None:
        self.step, self.label, self.numbers = step, label, numbers
        self.generator = self._find_generator() if numbers else ("", {})

    def draw(self, numbers: range) -> Iterator[tuple[str, bytes]]:
        """Yield name and PNG of images, drawn as the stored ones were. Nothing is loaded for no image."""
        if not numbers:
            return
        hardware.configure(ExecutionSettings(threads=self.step.manifest["arithmetic"]["threads"]))
        generator, config = networks.load_generator(read_output(self.step.storage, *self.generator, networks.GENERATOR))
        seed, bend = self.step.settings["seed"], self.step.settings["synthetic_bend"]
        for number, image in drawing.draw_images(generator, config, self.label, numbers, seed=seed, bend=bend):
            progress.tell(number + 1, self.numbers.stop, f"images of {self.label}")
            yield keys.synthetic_image(number), png.encode(image)

    def _find_generator(self) -> tuple[str, dict[str, Any]]:
        """Return prefix and manifest of the generator that drew the stored images."""
        _, run, *_ = self.step.prefix.split("/")
        for prefix, manifest in drawing.generators(self.step.storage, run, self.step.settings["fold"], self.label):
            if manifest_digest(manifest) == self.step.inputs["generator"]:
                return prefix, manifest
        raise UserError(
            f"the generator of {self.step.prefix} is missing, or was trained again since: run the pipeline again, or "
            f"give a --count of at most {self.numbers.start}"
        )


@dataclass(frozen=True)
class _Images:
    """The images of a class that are wanted: those of `files` called `copied`, and those to be drawn.

    The folder may have these, and those of `files` called `allowed`.
    """

    label: str
    files: Shards
    copied: Sequence[str]
    allowed: Sequence[str]
    drawn: _Drawn | None = None

    def check(self, out: Folder) -> set[str]:
        """Return the names of the images that are in the folder. Raises UserError if it has any other file."""
        numbers = self.drawn.numbers if self.drawn else range(0)
        drawn = {keys.synthetic_image(number): number for number in numbers}
        there = {file.removeprefix(f"{self.label}/") for file in out.list(self.label)}
        if others := there - {*self.allowed, *drawn}:
            raise UserError(f"--out: {self._path(out, min(others))} is none of these images: use another folder")
        digests = {name: self.files.members[name].sha256 for name in self.allowed}
        # An image that no digest is known of is compared with the same image, drawn again.
        last = max((drawn[name] for name in there & drawn.keys()), default=numbers.start - 1)
        digests |= {name: _digest(data) for name, data in self._draw(range(numbers.start, last + 1))}
        for name in sorted(there):
            if _digest(out.read(f"{self.label}/{name}")) != digests[name]:
                raise UserError(f"--out: {self._path(out, name)} is another image: use another folder, or delete it")
        return there

    def write(self, out: Folder, there: Set[str]) -> None:
        """Write the images that are not `there`."""
        copied = [name for name in self.copied if name not in there]
        numbers = self.drawn.numbers if self.drawn else range(0)
        missing = [number for number in numbers if keys.synthetic_image(number) not in there]
        drawn = self._draw(range(missing[0], numbers.stop) if missing else range(0))
        files = itertools.chain(self.files.read(copied), (pair for pair in drawn if pair[0] not in there))
        write_many(out, ((f"{self.label}/{name}", data) for name, data in files))
        kept = len(self.copied) - len(copied) + len(numbers) - len(missing)
        log.info("%s: %d images copied, %d drawn, %d already there", self.label, len(copied), len(missing), kept)

    def _draw(self, numbers: range) -> Iterator[tuple[str, bytes]]:
        return self.drawn.draw(numbers) if self.drawn else iter(())

    def _path(self, out: Folder, name: str) -> Path:
        return Path(out.url) / self.label / name


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
