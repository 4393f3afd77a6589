"""Prepare a dataset from folders of images: crop to the head, exclude duplicates, split into groups and folds.

Reads   a folder or s3://bucket/prefix with one folder of images per class.
Writes  datasets/<id>/: images/ (shards of <id>.png), images.csv, index.csv, quarantine.csv, remarks.csv, manifest.json.

The id is the digest of the input files and the settings. The same input gives the same dataset, byte for byte, and is
prepared only once.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jobs.common import keys, metrics, png, shards, tables
from jobs.common.errors import UserError
from jobs.common.step import RESULTS_VERSION, Step, digest
from jobs.common.storage import Storage, open_storage
from jobs.mri import duplicates, folds, intake, sources
from jobs.mri.dataset import Row, rows_to_csv
from jobs.mri.intake import Entry, Intake, Rejection, Spool
from jobs.mri.slices import REASONS
from jobs.mri.sources import Source, label_of
from jobs.settings import PreprocessSettings

log = logging.getLogger("mrigan.preprocess")

ID_NAMES = {"patient": "PatientID", "study": "StudyInstanceUID"}
MUCH = 0.1  # a larger share of files in quarantine, exact copies not counted, is logged as a warning
# A larger group is probably a mistake (a placeholder as the id of all patients, or a false near-duplicate).
SUSPICIOUS_SHARE, SUSPICIOUS_IMAGES = 0.05, 5


def run(settings: PreprocessSettings) -> Step:
    """Prepare the dataset unless it exists; return its step, with facts about the content.

    Files with the same size and ETag (in a folder: size, inode and times) as in the last run count as unchanged and are
    not read again.

    Raises UserError if the data are not suitable: no folder, no classes, a class with too few groups.
    """
    if (_place(settings.storage) + "/").startswith(_place(settings.data) + "/"):
        raise UserError(
            f"--storage: {settings.storage} is inside the data folder and would be read as a class: use another one"
        )
    source = sources.find_source(settings.data, follow_links=settings.follow_links)
    groups, lines_of = sources.read_groups(settings.groups, source.files) if settings.groups else (b"", {})
    storage = open_storage(settings.storage)
    known = sources.remembered(storage, settings.data, source.files)
    if len(known) == len(source.files):
        step = _step(storage, settings, source, known, groups)
        if step.finished():
            log.info("%s exists, and no file has changed: nothing to do", step.prefix)
            return step
    # Reading may take long.
    storage.check_writable()
    size, ids = settings.image_size, settings.header_ids
    with intake.Spool(size) as spool:
        with metrics.phase("read"):
            taken = intake.read_all(
                source, lines_of, spool, size=size, volume=settings.volume, step=settings.slice_step, ids=ids
            )
        step = _step(storage, settings, source, taken.digests, groups)
        if step.finished():
            log.info("%s exists: nothing to do", step.prefix)
        else:
            _prepare(settings, step, source, taken, spool)
    sources.remember(storage, settings.data, source.files, taken.digests)
    return step


def _step(
    storage: Storage, settings: PreprocessSettings, source: Source, digests: Mapping[str, str], groups: bytes
) -> Step:
    """Return the dataset's step: its id is the digest of the files' names and content, and of the settings."""
    files = [[key, digests[key]] for key in source.files] + [[key, *why] for key, why in source.rejected.items()]
    content = digest({"files": files, "groups": hashlib.sha256(groups).hexdigest()})
    asked = {"content": content, "settings": settings.result(), "results_version": RESULTS_VERSION}
    prefix = keys.dataset(digest(asked)[:12])
    return Step(storage, prefix, job="preprocess", settings=settings.result(), inputs={"data": content})


def _place(url: str) -> str:
    return url.rstrip("/") if url.startswith("s3://") else str(Path(url).resolve())


def counts() -> SimpleNamespace:
    """Return the Prometheus metrics: read, quarantined (by reason), pairs, groups."""
    return SimpleNamespace(
        read=metrics.counter("mrigan_images_read_total", "Images read."),
        quarantined=metrics.counter(
            "mrigan_images_quarantined_total", "Images excluded from the dataset (quarantined).", reason=tuple(REASONS)
        ),
        pairs=metrics.gauge("mrigan_near_duplicate_pairs", "Pairs of near-duplicate images."),
        groups=metrics.gauge("mrigan_groups", "Groups of images that are kept in one fold."),
    )


def _prepare(settings: PreprocessSettings, step: Step, source: Source, taken: Intake, spool: Spool) -> None:
    told = counts()
    entries = taken.entries

    # Find copies of the same picture, and exclude pictures with two labels.
    pairs = duplicates.near_duplicates(spool.descriptors.all(), spool.sketches.__getitem__, spool.heads.__getitem__)
    same = folds.connected_groups(len(entries), pairs, [()] * len(entries))
    disputed = _disputed(taken, same)
    rejections = sorted([*taken.rejections, *_set_aside(taken, disputed)])
    for rejection in rejections:
        told.quarantined.labels(rejection.reason).inc()
    told.read.inc(len(entries) + len(rejections) - len(disputed))
    told.pairs.set(len(pairs))
    step.write("quarantine.csv", tables.to_csv(("source", "reason", "detail"), map(astuple, rejections)))
    step.write("remarks.csv", tables.to_csv(("source", "remark"), taken.remarks))
    # Logged first, since it explains the errors below.
    _tell_quarantine(step, rejections, taken)
    _tell_slices(entries, settings.slice_step)
    kept = [index for index in range(len(entries)) if index not in disputed]
    _check_classes(source, {entries[index].row.label for index in kept}, rejections, step)

    # Group the images that may show the same person, and hold out each group in one fold.
    marks = [entry.marks for entry in entries]
    labels = [entries[index].row.label for index in kept]
    person = folds.connected_groups(len(entries), pairs, marks)
    try:
        held_out = folds.assign_folds(labels, [int(person[index]) for index in kept], settings.folds, settings.seed)
    except UserError as error:
        cause = _cause(entries, pairs, kept, settings)
        raise UserError(f"{str(error).partition(':')[0]}: {cause}" if cause else str(error)) from None
    names: dict[int, str] = {}
    groups = [names.setdefault(int(person[index]), entries[index].row.id) for index in kept]
    told.groups.set(len(names))
    rows = [
        replace(entries[index].row, group=group, fold=int(fold))
        for index, group, fold in zip(kept, groups, held_out, strict=True)
    ]
    files = ((keys.image(entries[index].row.id), png.encode(spool.pictures[index])) for index in kept)
    shards.write(step, "images", files)
    step.write("index.csv", rows_to_csv(rows))

    known = sum(entries[index].person_known for index in kept)
    facts = _facts(rows, rejections, settings.folds, known)
    step.finish(near_duplicate_pairs=len(pairs), remarks=len(taken.remarks), **facts)
    _tell(step.prefix, facts)


def _cause(
    entries: Sequence[Entry], pairs: Sequence[tuple[int, int]], kept: Sequence[int], settings: PreprocessSettings
) -> str:
    """Return an explanation and a remedy if ids in the files' headers cause too few groups, otherwise ''."""
    labels = [entries[index].row.label for index in kept]
    for kinds in (("patient",), ("study",), ("patient", "study")):
        marks = [[mark for mark in entry.marks if mark.kind not in kinds] for entry in entries]
        person = folds.connected_groups(len(entries), pairs, marks)
        try:
            folds.check_groups(labels, [int(person[index]) for index in kept], settings.folds)
        except UserError:
            continue
        names = " and ".join(ID_NAMES[kind] for kind in kinds)
        left = ",".join(kind for kind in settings.header_ids if kind not in kinds) or "none"
        return (
            f"many DICOM files have the same {names}. If an anonymiser did that, give --header-ids {left}, "
            "or --groups with the files of each person"
        )
    return ""


def _disputed(taken: Intake, same: np.ndarray) -> dict[int, list[str]]:
    """Return, for each entry whose picture has two labels, all sources of that picture.

    None of these entries is used, since the correct label is unknown. `same` is the number of each entry's set of
    entries that show the same picture, altered or not.
    """
    found: dict[int, list[tuple[str, str]]] = {}
    for index, entry in enumerate(taken.entries):
        copies = taken.copies.get(index, [])
        found.setdefault(int(same[index]), []).extend([(entry.row.source, entry.row.label), *copies])
    several = {number for number, copies in found.items() if len({label for _, label in copies}) > 1}
    return {
        index: [source for source, _ in found[number]]
        for index, number in enumerate(same.tolist())
        if number in several
    }


def _set_aside(taken: Intake, disputed: dict[int, list[str]]) -> Iterator[Rejection]:
    """Yield the rejections for pictures with two labels and for exact copies."""
    for index, same in disputed.items():
        row = taken.entries[index].row
        for source, label in [(row.source, row.label), *taken.copies.get(index, [])]:
            other = next(other for other in same if label_of(other) != label)
            yield Rejection(source, "two-labels", f"shows the same picture as {other}")
    for index, copies in taken.copies.items():
        if index not in disputed:
            for source, _ in copies:
                yield Rejection(source, "duplicate", f"exact duplicate of {taken.entries[index].row.source}")


def _check_classes(source: Source, left: set[str], rejections: list[Rejection], step: Step) -> None:
    """Raise UserError if a class of `source` is not among the labels that are `left`."""
    for label in sorted(set(source.labels) - left):
        reasons = Counter(rejection.reason for rejection in rejections if label_of(rejection.source) == label)
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise UserError(
            f"--data: no image of class {label} can be used ({counts}; see {_path(step, 'quarantine.csv')}): "
            "add images or remove the folder"
        )


def _path(step: Step, name: str) -> str:
    return f"{step.storage.url.rstrip('/')}/{step.prefix}/{name}"


def _tell_quarantine(step: Step, rejections: list[Rejection], taken: Intake) -> None:
    """Log the number of files and slices in quarantine, by reason, and the readers' remarks."""
    where = _path(step, "quarantine.csv")
    counts = Counter(rejection.reason for rejection in rejections)
    for reason, count in sorted(counts.items()):
        log.info("quarantined as %s: %d (%s)", reason, count, where)
    lost = len(rejections) - counts["duplicate"]
    total = lost + len(taken.entries)
    if lost > MUCH * total:
        log.warning("%d of %d files and slices are not used, copies not counted: see %s", lost, total, where)
    for remark, count in sorted(Counter(remark for _, remark in taken.remarks).items()):
        log.warning("%s (files: %d, see %s)", remark, count, _path(step, "remarks.csv"))


def _tell_slices(entries: Sequence[Entry], step: int) -> None:
    """Log the number of slices that are taken from volumes, and which."""
    marks = [mark for entry in entries for mark in entry.marks if mark.kind == "volume"]
    if marks:
        which = "every slice with a head; see --slice-step" if step == 1 else f"--slice-step {step}"
        log.info("%d slices of %d volumes are used (%s)", len(marks), len(set(marks)), which)


def _facts(rows: list[Row], rejections: list[Rejection], folds: int, known: int) -> dict[str, Any]:
    groups = Counter(row.group for row in rows)
    by_fold = Counter((row.fold, row.label) for row in rows)
    labels = sorted({row.label for row in rows})
    return {
        "images": len(rows),
        "labels": {label: sum(by_fold[fold, label] for fold in range(folds)) for label in labels},
        "folds": [{label: by_fold[fold, label] for label in labels} for fold in range(folds)],
        "formats": dict(sorted(Counter(row.format for row in rows).items())),
        "quarantine": dict(sorted(Counter(rejection.reason for rejection in rejections).items())),
        "groups": len(groups),
        "largest_group": max(groups.values()),
        "large_groups": sum(_is_suspicious(size, len(rows)) for size in groups.values()),
        "patients": "all" if known == len(rows) else "some" if known else "none",
    }


def _is_suspicious(size: int, images: int) -> bool:
    return size >= SUSPICIOUS_IMAGES and size > SUSPICIOUS_SHARE * images


def _tell(prefix: str, facts: dict[str, Any]) -> None:
    labels = ", ".join(f"{count} {label}" for label, count in facts["labels"].items())
    log.info("%s: %d images (%s) in %d groups", prefix, facts["images"], labels, facts["groups"])
    if facts["large_groups"]:
        log.warning(
            "the largest group has %d of %d images, over %.0f %%: check in %s/index.csv whether they show one person",
            facts["largest_group"],
            facts["images"],
            100 * SUSPICIOUS_SHARE,
            prefix,
        )
    if facts["patients"] != "all":
        log.info(
            "%s of the images identify the patient: independence of patients cannot be shown (see --groups)",
            "not all" if facts["patients"] == "some" else "none",
        )
