"""Folders of images -> a dataset: cropped to the head, without duplicates, in groups and folds.

Reads   a folder or s3://bucket/prefix with one folder of images per class.
Writes  datasets/<id>/: images/<id>.png, index.csv, quarantine.csv, remarks.csv, manifest.json.

The id is the digest of what is read and of the settings: the same input gives the same dataset, byte for byte, and
is not prepared twice.
"""

import hashlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jobs.common import keys, metrics, tables
from jobs.common.errors import UserError
from jobs.common.settings import ReadingSettings, Several, StorageSettings, setting
from jobs.common.step import RESULTS_VERSION, Step, digest
from jobs.common.storage import Storage, open_storage

if TYPE_CHECKING:
    import numpy as np

    from jobs.mri.dataset import Row
    from jobs.mri.intake import Entry, Intake, Refusal, Spool
    from jobs.mri.sources import Source

log = logging.getLogger("mrigan.preprocess")

ID_NAMES = {"patient": "PatientID", "study": "StudyInstanceUID"}
# More files than this in quarantine, copies apart, are worth a warning.
MUCH = 0.1
# A group this large is more likely a mistake (one placeholder for every patient's id, too loose a comparison).
SUSPICIOUS_SHARE, SUSPICIOUS_IMAGES = 0.05, 5


class PreprocessSettings(ReadingSettings, StorageSettings):
    """What preprocess can be told."""

    data: str = setting(
        ..., "folder or s3://bucket/prefix with one folder of images per class", result=False, min_length=1
    )
    groups: str = setting(
        "", "CSV file, no header: each line lists the files of one person, as paths below the data", result=False
    )
    image_size: int = setting(64, "side of the square images", unit="pixels", ge=32, le=256)
    header_ids: Annotated[tuple[Literal["patient", "study"], ...], Several] = setting(
        ("patient", "study"), "what of a DICOM header says that images are of one person; none: believe neither"
    )
    folds: int = setting(5, "parts of which each is held out once", ge=2, le=100)
    seed: int = setting(0, "where all randomness comes from", ge=0)


def run(settings: PreprocessSettings) -> Step:
    """Prepare the dataset unless it is there; return its step, whose facts say what it holds.

    Files whose size and ETag (in a folder: size, inode and times) are those of the last run are not read to learn that
    nothing changed; all others are read once.

    Raises UserError if the data cannot make a dataset: no folder, no classes, a class with too few groups.
    """
    from jobs.mri import intake, sources

    if (_place(settings.storage) + "/").startswith(_place(settings.data) + "/"):
        raise UserError(f"--storage: {settings.storage} lies in the data, and would be taken for a class: name another")
    source = sources.find(settings.data)
    groups, lines_of = sources.read_groups(settings.groups, source.files) if settings.groups else (b"", {})
    storage = open_storage(settings.storage)
    known = sources.remembered(storage, settings.data, source.files)
    if len(known) == len(source.files):
        step = _step(storage, settings, source, known, groups)
        if step.finished():
            log.info("%s is there, and no file has changed: nothing to do", step.prefix)
            return step
    with tempfile.TemporaryDirectory(prefix="mrigan-") as scratch:
        spool = intake.Spool(scratch, settings.image_size)
        with metrics.phase("read"):
            taken = intake.read_all(
                source,
                lines_of,
                spool,
                size=settings.image_size,
                volume=settings.volume,
                ids=settings.header_ids,
            )
        step = _step(storage, settings, source, taken.digests, groups)
        if step.finished():
            log.info("%s is there: nothing to do", step.prefix)
        else:
            _prepare(settings, step, source, taken, spool)
    sources.remember(storage, settings.data, source.files, taken.digests)
    return step


def _step(
    storage: Storage, settings: PreprocessSettings, source: "Source", digests: Mapping[str, str], groups: bytes
) -> Step:
    """Return the dataset's step: its id is the digest of the files' names and content, and of the settings."""
    files = [[key, digests[key]] for key in source.files] + [[key, *why] for key, why in source.refused.items()]
    content = digest({"files": files, "groups": hashlib.sha256(groups).hexdigest()})
    asked = {"content": content, "settings": settings.result(), "results_version": RESULTS_VERSION}
    prefix = keys.dataset(digest(asked)[:12])
    return Step(storage, prefix, job="preprocess", settings=settings.result(), inputs={"data": content})


def _place(url: str) -> str:
    return url.rstrip("/") if url.startswith("s3://") else str(Path(url).resolve())


def _prepare(settings: PreprocessSettings, step: Step, source: "Source", taken: "Intake", spool: "Spool") -> None:
    from jobs.mri import duplicates, folds
    from jobs.mri.dataset import to_csv
    from jobs.mri.slices import REASONS

    told = metrics.preprocessing(tuple(REASONS))
    entries = taken.entries

    # Find what shows the same picture, and set aside what stands under two labels.
    pairs = duplicates.near_duplicates(spool.descriptors, spool.heads.__getitem__)
    same = folds.connect(len(entries), pairs, [()] * len(entries))
    disputed = _disputed(taken, same)
    refusals = sorted([*taken.refusals, *_set_aside(taken, disputed)])
    for refusal in refusals:
        told.quarantined.labels(refusal.reason).inc()
    told.read.inc(len(entries) + len(refusals) - len(disputed))
    told.pairs.set(len(pairs))
    step.write("quarantine.csv", tables.to_csv(("source", "reason", "detail"), map(astuple, refusals)))
    step.write("remarks.csv", tables.to_csv(("source", "remark"), taken.remarks))
    # Before any error that follows from it.
    _tell_quarantine(step, refusals, taken)
    kept = [index for index in range(len(entries)) if index not in disputed]
    _check_classes(source, {entries[index].row.label for index in kept}, refusals, step)

    # Group what may show the same person, and hold out each group in one fold.
    marks = [entry.marks for entry in entries]
    labels = [entries[index].row.label for index in kept]
    person = folds.connect(len(entries), pairs, marks)
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
    step.write_many((f"images/{entries[index].row.id}.png", _png(spool.pictures[index])) for index in kept)
    step.write("index.csv", to_csv(rows))

    known = sum(entries[index].person_known for index in kept)
    facts = _facts(rows, refusals, settings.folds, known)
    step.finish(near_duplicate_pairs=len(pairs), remarks=len(taken.remarks), **facts)
    _tell(step.prefix, facts)


def _cause(
    entries: Sequence["Entry"], pairs: Sequence[tuple[int, int]], kept: Sequence[int], settings: PreprocessSettings
) -> str:
    """Return why there are too few groups, if ids in the files' headers are the cause, and a way out; else nothing."""
    from jobs.mri import folds

    for kinds in (("patient",), ("study",), ("patient", "study")):
        marks = [[mark for mark in entry.marks if mark.kind not in kinds] for entry in entries]
        person = folds.connect(len(entries), pairs, marks)
        labels = [entries[index].row.label for index in kept]
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


def _disputed(taken: "Intake", same: "np.ndarray") -> dict[int, list[str]]:
    """Return, for each entry whose picture stands under two labels, all sources of that picture.

    Which label is right cannot be known, so that none of them is used. `same` numbers the sets of entries that show
    the same picture, altered or not.
    """
    sources: dict[int, list[tuple[str, str]]] = {}
    for index, entry in enumerate(taken.entries):
        copies = taken.copies.get(index, [])
        sources.setdefault(int(same[index]), []).extend([(entry.row.source, entry.row.label), *copies])
    disputed = {number: found for number, found in sources.items() if len({label for _, label in found}) > 1}
    return {
        index: [source for source, _ in disputed[int(number)]]
        for index, number in enumerate(same)
        if int(number) in disputed
    }


def _set_aside(taken: "Intake", disputed: dict[int, list[str]]) -> Iterator["Refusal"]:
    """Yield the refusals of pictures under two labels and of exact copies."""
    from jobs.mri.intake import Refusal

    for index, sources in disputed.items():
        row = taken.entries[index].row
        for source, label in [(row.source, row.label), *taken.copies.get(index, [])]:
            other = next(other for other in sources if not other.startswith(label + "/"))
            yield Refusal(source, "two-labels", f"shows the same picture as {other}")
    for index, copies in taken.copies.items():
        if index not in disputed:
            for source, _ in copies:
                yield Refusal(source, "duplicate", f"exact duplicate of {taken.entries[index].row.source}")


def _check_classes(source: "Source", left: set[str], refusals: list["Refusal"], step: Step) -> None:
    """Raise UserError if a class has no image left."""
    from jobs.mri.sources import label_of

    for label in source.labels:
        if label in left:
            continue
        reasons = Counter(refusal.reason for refusal in refusals if label_of(refusal.source) == label)
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise UserError(
            f"--data: no image of class {label} can be used ({counts}; see {_path(step, 'quarantine.csv')}): "
            "add images or remove the folder"
        )


def _path(step: Step, name: str) -> str:
    return f"{step.storage.url.rstrip('/')}/{step.prefix}/{name}"


def _tell_quarantine(step: Step, refusals: list["Refusal"], taken: "Intake") -> None:
    """Log how many files and slices are in quarantine, by reason, and what was not done as a file declares."""
    where = _path(step, "quarantine.csv")
    counts = Counter(refusal.reason for refusal in refusals)
    for reason, count in sorted(counts.items()):
        log.info("quarantined as %s: %d (%s)", reason, count, where)
    lost = len(refusals) - counts["duplicate"]
    if lost > MUCH * (lost + len(taken.entries)):
        log.warning(
            "%d of %d files and slices are not used, copies not counted: see %s", lost, lost + len(taken.entries), where
        )
    for remark, count in sorted(Counter(remark for _, remark in taken.remarks).items()):
        log.warning("%s (files: %d, see %s)", remark, count, _path(step, "remarks.csv"))


def _facts(rows: list["Row"], refusals: list["Refusal"], folds: int, known: int) -> dict[str, Any]:
    groups = Counter(row.group for row in rows)
    by_fold = Counter((row.fold, row.label) for row in rows)
    labels = sorted({row.label for row in rows})
    return {
        "images": len(rows),
        "labels": {label: sum(by_fold[fold, label] for fold in range(folds)) for label in labels},
        "folds": [{label: by_fold[fold, label] for label in labels} for fold in range(folds)],
        "formats": dict(sorted(Counter(row.format for row in rows).items())),
        "quarantine": dict(sorted(Counter(refusal.reason for refusal in refusals).items())),
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
            "the largest group has %d of %d images, over %.0f %%: see in %s/index.csv whether they are one person",
            facts["largest_group"],
            facts["images"],
            100 * SUSPICIOUS_SHARE,
            prefix,
        )
    if facts["patients"] != "all":
        log.info(
            "%s of the images say whose they are: independence of patients cannot be shown (--groups tells it)",
            "not all" if facts["patients"] == "some" else "none",
        )


def _png(pixels: "np.ndarray") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
