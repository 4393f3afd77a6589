"""Reads the finished steps of a run, and their outputs, from storage for the report."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jobs.classifier.predictions import Predictions, join_predictions, read_predictions
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.step import read_listing, read_manifest, read_output, read_outputs
from jobs.common.storage import Storage
from jobs.common.tables import from_csv
from jobs.mri.dataset import Dataset
from jobs.report import exhibits, words

SHOWN = 8  # images of a class side by side
Json = dict[str, Any]


class Part(NamedTuple):
    """A finished step of the run: its job, its position in the run (fold, label, network, ...), and its manifest."""

    job: str
    where: Json
    prefix: str
    manifest: Json


# ---- the run's steps ----------------------------------------------------------------------------------------------


def classifiers(
    storage: Storage,
    run: str,
    dataset: Dataset,
    recipes: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    folds: Sequence[int],
) -> list[Part]:
    """Return the classifiers of every (network, regime), seed and fold.

    Raises UserError if one is missing or was trained on another dataset.
    """
    parts = []
    for (network, regime), seed, fold in itertools.product(recipes, seeds, folds):
        prefix = keys.classifier(run, fold, network, regime, seed)
        manifest = read_manifest(storage, prefix)
        if manifest is None:
            raise UserError(
                f"{storage.url.rstrip('/')}/{prefix} is missing: run train-classifier, or exclude this classifier with "
                "--networks, --regimes, --seeds or --no-controls"
            )
        if manifest["inputs"].get("dataset") != dataset.digest:
            raise UserError(
                f"{prefix} was trained on another dataset than {dataset.id}: train it again on {dataset.id}"
            )
        where = {"fold": fold, "network": network, "regime": regime, "seed": seed}
        parts.append(Part("train-classifier", where, prefix, manifest))
    return parts


def generators(storage: Storage, run: str, dataset: Dataset, folds: Sequence[int]) -> list[Part]:
    """Return the generators and the synthetic images of each fold and class, if they were made from this dataset."""
    parts = []
    for fold, label in itertools.product(folds, [*dataset.labels, keys.CLASS_CONDITIONAL]):
        steps = {"train-gan": keys.gan(run, fold, label), "generate": keys.synthetic(run, fold, label)}
        for job, prefix in steps.items():
            manifest = read_manifest(storage, prefix)
            if manifest is not None and manifest["inputs"].get("dataset") == dataset.digest:
                parts.append(Part(job, {"fold": fold, "label": label}, prefix, manifest))
    return parts


def recipes(parts: list[Part]) -> list[tuple[str, str]]:
    """Return the (network, regime) of the classifiers, including those of controls (`real-permuted`, ...)."""
    return list(dict.fromkeys((x.where["network"], x.where["regime"]) for x in parts if x.job == "train-classifier"))


def _chosen(parts: list[Part], job: str, **where: Any) -> list[Part]:
    return [part for part in parts if part.job == job and where.items() <= part.where.items()]


# ---- outputs of the steps -----------------------------------------------------------------------------------------


def predictions(
    storage: Storage, parts: list[Part], network: str, regime: str, name: str = "predictions.csv"
) -> list[Predictions]:
    """Return for each seed the pooled predictions of the folds."""
    by_seed: dict[int, list[Predictions]] = {}
    for part in _chosen(parts, "train-classifier", network=network, regime=regime):
        found = read_predictions(read_output(storage, part.prefix, part.manifest, name))
        by_seed.setdefault(part.where["seed"], []).append(found)
    return [join_predictions(folds) for folds in by_seed.values()]


def phantoms(storage: Storage, parts: list[Part], network: str, regime: str) -> dict[str, Predictions]:
    """Return the predictions of the network pretrained on phantoms, as the control `phantoms`; {} if there are none."""
    chosen = _chosen(parts, "train-classifier", network=network, regime=regime)
    if not all("phantoms.csv" in part.manifest["outputs"] for part in chosen):
        return {}
    return {"phantoms": predictions(storage, parts, network, regime, "phantoms.csv")[0]}


def learned(parts: list[Part], network: str, regime: str) -> float:
    """Return the mean training accuracy of the classifiers, 0 to 1; 0 if it was not recorded."""
    chosen = _chosen(parts, "train-classifier", network=network, regime=regime)
    return sum(part.manifest["facts"].get("learned", 0.0) for part in chosen) / max(1, len(chosen))


def tables(storage: Storage, parts: list[Part], name: str, **where: Any) -> list[dict[str, list[float]]]:
    """Return a CSV file of numbers of each chosen part, by column."""
    tables = []
    job = "train-gan" if name == "losses.csv" else "train-classifier"
    for part in _chosen(parts, job, **where):
        header, rows = from_csv(read_output(storage, part.prefix, part.manifest, name))
        tables.append({column: [float(row[place]) for row in rows] for place, column in enumerate(header)})
    return tables


def samples(storage: Storage, dataset: Dataset, parts: list[Part]) -> list[exhibits.Samples]:
    """Return for each class real images, synthetic images, and the nearest training images of the latter, of fold 0."""
    shown = []
    for part in _chosen(parts, "generate", fold=0):
        label = part.where["label"]
        real = [row for row in dataset.held_out(0) if row.label == label]
        chosen = [real[i * len(real) // SHOWN] for i in range(SHOWN)] if len(real) > SHOWN else real
        count = min(part.manifest["facts"].get("count", 0), SHOWN)
        names = [keys.synthetic_image(number) for number in range(count)]
        nearest = read_left(storage, part, ["nearest.png"])
        shown.append(
            exhibits.samples(
                label,
                list(dataset.pixels(chosen)),
                list(read_left(storage, part, names).values()),
                nearest.get("nearest.png"),
            )
        )
    return shown


def read_left(storage: Storage, part: Part, names: Iterable[str]) -> dict[str, bytes]:
    """Return outputs of a step by name, without outputs that no longer exist.

    Synthetic images may be deleted to save space once the classifiers are trained. Raises MachineError if an existing
    file is damaged.
    """
    left = [name for name in names if storage.exists(f"{part.prefix}/{name}")]
    digests = dict(part.manifest["outputs"])
    for folder in {name.partition("/")[0] for name in left if "/" in name}:
        digests |= read_listing(storage, part.prefix, part.manifest, folder)
    return dict(zip(left, read_outputs(storage, part.prefix, digests, left), strict=True))


def progress(storage: Storage, parts: list[Part], label: str) -> list[tuple[int, bytes]]:
    """Return (epoch, sample grid) of up to four epochs of a generator of fold 0, including the last one."""
    for part in _chosen(parts, "train-gan", fold=0, label=label):
        found = (key.removeprefix(f"{part.prefix}/") for key in storage.list(f"{part.prefix}/samples"))
        names = [name for name in found if name.endswith(".png")]
        chosen = sorted({names[(len(names) - 1) * i // 3] for i in range(4)}) if names else []
        shown = read_left(storage, part, chosen)
        return [(int(name.rpartition("-")[2].removesuffix(".png")), data) for name, data in shown.items()]
    return []


def quarantine(dataset: Dataset) -> list[Json]:
    """Return up to three examples of excluded files for each reason."""
    _, rows = from_csv(dataset.read("quarantine.csv"))
    examples: dict[str, list[Json]] = {}
    for source, reason, detail in rows:
        examples.setdefault(reason, []).append({"source": source, "detail": detail})
    return [{"reason": reason, "files": found[:3]} for reason, found in sorted(examples.items())]


def about(dataset: Dataset) -> Json:
    """Return the properties of the dataset, in numbers."""
    names = ("patients", "largest_group", "large_groups", "near_duplicate_pairs", "formats", "quarantine")
    groups = {label: len({row.group for row in dataset.rows if row.label == label}) for label in dataset.labels}
    return {
        "id": dataset.id,
        "digest": dataset.digest,
        "image_size": dataset.image_size,
        "folds": dataset.folds,
        "images": len(dataset.rows),
        "groups": len({row.group for row in dataset.rows}),
        "labels": [
            {"label": label, "images": sum(row.label == label for row in dataset.rows), "groups": groups[label]}
            for label in dataset.labels
        ],
    } | {name: dataset.facts[name] for name in names if name in dataset.facts}


def recipe(parts: list[Part]) -> Json:
    """Return each job's settings, without those that only select a part of the run."""
    return {
        part.job: {name: value for name, value in part.manifest["settings"].items() if name not in keys.PLACES}
        for part in parts
    }


def cost(parts: list[Part]) -> list[Json]:
    """Return how long each step took, and the pretraining that all classifiers of a network share."""
    shared = {
        part.where["network"]: part.manifest["facts"]["pretraining_seconds"]
        for part in parts
        if "pretraining_seconds" in part.manifest["facts"]
    }
    pretraining = [{"job": "pretrain", "network": network, "seconds": took} for network, took in shared.items()]
    return [{"job": part.job} | part.where | {"seconds": _seconds(part)} for part in parts] + pretraining


def _seconds(part: Part) -> float:
    # A resumed step only records the seconds since its last start; train-gan also records the total.
    return max(part.manifest.get("seconds", 0.0), part.manifest["facts"].get("training_seconds", 0.0))


def selection(parts: list[Part]) -> list[str]:
    """Return sentences that state on which data classifiers were selected (see `words.merged`)."""
    return words.merged(
        str(part.manifest["facts"]["selection"]) for part in parts if "selection" in part.manifest["facts"]
    )


def distinct(values: Iterable[Json]) -> list[Json]:
    """Return the values without repetitions, sorted by their JSON text."""
    seen: dict[str, Json] = {}
    for value in values:
        seen.setdefault(json.dumps(value, sort_keys=True), value)
    return [seen[text] for text in sorted(seen)]


def quality(storage: Storage, part: Part) -> Json:
    """Return the content of a quality.json without the list of single images."""
    found = json.loads(read_output(storage, part.prefix, part.manifest, "quality.json"))
    return part.where | {name: value for name, value in found.items() if name not in ("schema", "nearest")}
