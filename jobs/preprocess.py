"""Folders of images -> a dataset: cropped to the head, without duplicates, in groups and folds.

Reads   a folder or s3://bucket/prefix with one folder of images per class.
Writes  datasets/<id>/: images/<id>.png, index.csv, quarantine.csv, manifest.json.

The id is the digest of what is read and of the settings: the same input gives the same dataset, byte for byte, and
is not prepared twice.
"""

import hashlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.common import keys, metrics, tables
from jobs.common.errors import UserError
from jobs.common.settings import StorageSettings, setting
from jobs.common.step import RESULTS_VERSION, Step, digest
from jobs.common.storage import Storage, open_storage

if TYPE_CHECKING:
    import numpy as np

    from jobs.mri.dataset import Row
    from jobs.mri.intake import Intake, Refusal

log = logging.getLogger("mrigan.preprocess")

# A group this large is more likely a mistake (one placeholder for every patient's id, too loose a comparison).
SUSPICIOUS_SHARE, SUSPICIOUS_IMAGES = 0.05, 5


class PreprocessSettings(StorageSettings):
    """What preprocess can be told."""

    data: str = setting(
        ..., "folder or s3://bucket/prefix with one folder of images per class", result=False, min_length=1
    )
    groups: str = setting(
        "", "CSV file, no header: each line lists the files of one person, as paths below the data", result=False
    )
    image_size: int = setting(64, "side of the square images", unit="pixels", ge=32, le=256)
    folds: int = setting(5, "parts of which each is held out once", ge=2, le=100)
    seed: int = setting(0, "where all randomness comes from", ge=0)


def run(settings: PreprocessSettings) -> Step:
    """Prepare the dataset unless it is there; return its step, whose facts say what it holds.

    Raises UserError if the data cannot make a dataset: no folder, no classes, a class with too few groups.
    """
    from jobs.mri import sources

    if (_place(settings.storage) + "/").startswith(_place(settings.data) + "/"):
        raise UserError(f"--storage: {settings.storage} lies in the data, and would be taken for a class: name another")
    source, found = sources.find(settings.data)
    groups, lines_of = sources.read_groups(settings.groups, found) if settings.groups else (b"", {})
    files = sources.digests(source, found)
    content = digest({"files": files, "groups": hashlib.sha256(groups).hexdigest()})
    asked = {"content": content, "settings": settings.result(), "results_version": RESULTS_VERSION}
    id = digest(asked)[:12]
    storage = open_storage(settings.storage)
    step = Step(storage, keys.dataset(id), job="preprocess", settings=settings.result(), inputs={"data": content})
    if step.finished():
        log.info("dataset %s is there: nothing to do", id)
        return step
    _prepare(settings, step, source, dict(files), lines_of)
    return step


def _place(url: str) -> str:
    return url.rstrip("/") if url.startswith("s3://") else str(Path(url).resolve())


def _prepare(
    settings: PreprocessSettings, step: Step, source: Storage, found: dict[str, str], lines_of: dict[str, list[int]]
) -> None:
    from jobs.mri import duplicates, folds, intake
    from jobs.mri.dataset import to_csv
    from jobs.mri.slices import REASONS

    told = metrics.preprocessing(tuple(REASONS))
    with tempfile.TemporaryDirectory(prefix="mrigan-") as scratch:
        spool = intake.Spool(scratch, settings.image_size)
        with metrics.phase("read"):
            taken = intake.read_all(source, found, lines_of, spool)
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
        kept = [index for index in range(len(entries)) if index not in disputed]
        _check_classes(found, {entries[index].row.label for index in kept}, refusals)

        # Group what may show the same person, and hold out each group in one fold.
        person = folds.connect(len(entries), pairs, [entry.marks for entry in entries])
        names: dict[int, str] = {}
        groups = [names.setdefault(int(person[index]), entries[index].row.id) for index in kept]
        told.groups.set(len(names))
        labels = [entries[index].row.label for index in kept]
        held_out = folds.assign_folds(labels, groups, settings.folds, settings.seed)
        rows = [
            replace(entries[index].row, group=group, fold=int(fold))
            for index, group, fold in zip(kept, groups, held_out, strict=True)
        ]
        step.write_many((f"images/{entries[index].row.id}.png", _png(spool.pictures[index])) for index in kept)
        step.write("index.csv", to_csv(rows))

    known = sum(entries[index].person_known for index in kept)
    facts = _facts(rows, refusals, settings.folds, known)
    step.finish(near_duplicate_pairs=len(pairs), **facts)
    _tell(step.prefix, facts)


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


def _check_classes(found: Iterable[str], left: set[str], refusals: list["Refusal"]) -> None:
    """Raise UserError if a class has no image left."""
    for label in sorted({key.partition("/")[0] for key in found if "/" in key} - left):
        reasons = Counter(refusal.reason for refusal in refusals if refusal.source.startswith(label + "/"))
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise UserError(f"--data: no image of class {label} can be used ({counts}): add images or remove the folder")


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
    for reason, count in facts["quarantine"].items():
        log.info("quarantined as %s: %d (%s/quarantine.csv)", reason, count, prefix)
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
