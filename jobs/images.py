"""Write the synthetic images of a run into a folder, as many as wanted.

    mrigan images RUN --storage s3://bucket/prefix --out synthetic --count 5000

Reads   runs/<run>/fold-<fold>/<class>/synthetic/, and the generator that drew them if more images are wanted. The fold
        is `all` if the run has it (--gan-of-all), else 0: that generator has not learned from the images of fold 0.
Writes  <out>/<class>/<i>.png, on this machine.

Stored images are copied. Image i depends only on the generator, the seed, the bend and i: a larger --count adds images
and keeps the first ones. Files that are there already are kept if they are the same images.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from jobs.common import hardware, keys, png, progress
from jobs.common.errors import UserError
from jobs.common.fields import NAME
from jobs.common.step import Step, manifest_digest, read_listing, read_output, read_outputs
from jobs.common.storage import Folder, Storage, open_storage, write_many
from jobs.gan import drawing, networks, synthetic
from jobs.settings import ExecutionSettings, ImagesSettings

log = logging.getLogger("mrigan.images")


def run(settings: ImagesSettings) -> None:
    """Write the images, and print the folder.

    Raises UserError if there is no such run or class, if the generator was trained again since, and, before anything is
    written, if the folder has other files; MachineError if a stored file is damaged.
    """
    if len(settings.runs) != 1:
        raise UserError("name one RUN: see --help")
    if "://" in settings.out:
        raise UserError(f"--out: a folder on this machine, not {settings.out}")
    storage, out = open_storage(settings.storage), Folder(settings.out)
    wanted = [
        _Images(step, label, settings.count) for label, step in _find(storage, settings.runs[0], settings.label).items()
    ]
    there = [images.check(out) for images in wanted]
    for images, known in zip(wanted, there, strict=True):
        images.write(out, known)
    print(settings.out)


def _find(storage: Storage, run: str, asked: str) -> dict[str, Step]:
    """Return the steps of the images of the classes in `asked` (all if it is empty), by class."""
    if not re.fullmatch(NAME, run):
        raise UserError(_nothing(storage, run))
    of_all, of_fold_0 = (synthetic.finished(storage, run, fold) for fold in ("all", 0))
    known = sorted(of_all.keys() | of_fold_0.keys())
    if not known:
        raise UserError(_nothing(storage, run))
    labels = [label.strip() for label in asked.split(",") if label.strip()] or known
    for label in labels:
        if label not in known:
            raise UserError(f"--label: one or several of {', '.join(known)}, not {label!r}")
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
    """Return the message for a run without images."""
    every = keys.run("")
    runs = sorted({key.removeprefix(f"{every}/").partition("/")[0] for key in storage.list(every)})
    if run not in runs:
        return f"{storage.url} has no run {run}; it has {', '.join(runs) or 'none'}"
    return (
        f"run {run} has no synthetic images: finish it with mrigan pipeline, or give it a regime with synthetic images"
    )


class _Images:
    """The first `count` images of a class, all stored ones if that is 0.

    `copied` are the digests of those that are stored, by number; `drawn` the numbers of the others. Raises UserError if
    some are to be drawn, and the generator of the stored ones is not there.
    """

    def __init__(self, step: Step, label: str, count: int) -> None:
        self.step, self.label = step, label
        listed = read_listing(step.storage, step.prefix, step.manifest, "images")
        stored = range(min(count or len(listed), len(listed)))
        self.copied = {number: listed[keys.synthetic_image(number)] for number in stored}
        self.drawn = range(len(stored), max(count, len(stored)))
        self.generator = self._find_generator() if self.drawn else ("", {})

    def check(self, out: Folder) -> set[int]:
        """Return the numbers of the images that are in the folder. Raises UserError if it has any other file."""
        names = {self._file(number): number for number in (*self.copied, *self.drawn)}
        there: set[int] = set()
        digests = dict(self.copied)
        files = out.list(self.label)
        for file in files:
            if file not in names:
                raise UserError(f"--out: {Path(out.url) / file} is none of these images: use another folder")
            there.add(names[file])
        # An image that no digest is known of is compared with the same image, drawn again.
        last = max(there & set(self.drawn), default=self.drawn.start - 1)
        digests |= {number: _digest(data) for number, data in self._draw(range(self.drawn.start, last + 1))}
        for file in files:
            if _digest(out.read(file)) != digests[names[file]]:
                raise UserError(f"--out: {Path(out.url) / file} is another image: use another folder, or delete it")
        return there

    def write(self, out: Folder, there: Set[int]) -> None:
        """Write the images that are not `there`."""
        copied = [number for number in self.copied if number not in there]
        first = next((number for number in self.drawn if number not in there), self.drawn.stop)
        total = len(self.copied) + len(self.drawn)

        def files() -> Iterator[tuple[str, bytes]]:
            names = {keys.synthetic_image(number): self.copied[number] for number in copied}
            yield from zip(
                map(self._file, copied),
                read_outputs(self.step.storage, self.step.prefix, names, names),
                strict=True,
            )
            for number, data in self._draw(range(first, self.drawn.stop)):
                progress.tell(number + 1, total, f"images of {self.label}")
                if number not in there:
                    yield self._file(number), data

        write_many(out, files())
        drawn = len(set(self.drawn) - there)
        log.info("%s: %d images copied, %d drawn, %d already there", self.label, len(copied), drawn, len(there))

    def _file(self, number: int) -> str:
        return f"{self.label}/{keys.synthetic_image(number).rpartition('/')[2]}"

    def _draw(self, numbers: range) -> Iterator[tuple[int, bytes]]:
        """Yield number and PNG of images, drawn as the stored ones were. Nothing is loaded for no image."""
        if not numbers:
            return
        hardware.configure(ExecutionSettings(threads=self.step.manifest["arithmetic"]["threads"]))
        generator, config = networks.load_generator(read_output(self.step.storage, *self.generator, networks.GENERATOR))
        seed, bend = self.step.settings["seed"], self.step.settings["synthetic_bend"]
        for number, image in drawing.draw_images(generator, config, self.label, numbers, seed=seed, bend=bend):
            yield number, png.encode(image)

    def _find_generator(self) -> tuple[str, dict[str, Any]]:
        """Return prefix and manifest of the generator that drew the stored images."""
        _, run, *_ = self.step.prefix.split("/")
        for prefix, manifest in drawing.generators(self.step.storage, run, self.step.settings["fold"], self.label):
            if manifest_digest(manifest) == self.step.inputs["generator"]:
                return prefix, manifest
        raise UserError(
            f"the generator of {self.step.prefix} is missing, or was trained again since: run the pipeline again, or "
            f"give a --count of at most {len(self.copied)}"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
