"""Find the finished steps of a run in storage, and read their outputs for the report."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.shards import Shards
from jobs.common.step import LISTING, Step, read_listing, read_manifest, read_output, read_outputs
from jobs.common.storage import Storage
from jobs.common.tables import from_csv
from jobs.report import exhibits, words

TILES = 8  # images of a class side by side
FILES = ("report.json", "report.html")
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
    dataset: Step,
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
            id = dataset.prefix.rpartition("/")[2]
            raise UserError(f"{prefix} was trained on another dataset than {id}: train it again on {id}")
        where = {"fold": fold, "network": network, "regime": regime, "seed": seed}
        parts.append(Part("train-classifier", where, prefix, manifest))
    return parts


def generators(storage: Storage, run: str, dataset: Step, folds: Sequence[int]) -> list[Part]:
    """Return the generators and the synthetic images of each fold and class, if they were made from this dataset."""
    parts = []
    for fold, label in itertools.product(folds, [*sorted(dataset.facts["labels"]), keys.CLASS_CONDITIONAL]):
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


def outputs(storage: Storage, parts: list[Part], name: str, **where: Any) -> dict[int, list[bytes]] | None:
    """Return the files `name` of the chosen classifiers by seed; None if a classifier has none."""
    chosen = _chosen(parts, "train-classifier", **where)
    if not all(name in part.manifest["outputs"] for part in chosen):
        return None
    by_seed: dict[int, list[bytes]] = {}
    for part in chosen:
        by_seed.setdefault(part.where["seed"], []).append(read_output(storage, part.prefix, part.manifest, name))
    return by_seed


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


def samples(storage: Storage, parts: list[Part], real: Callable[[str], np.ndarray]) -> list[exhibits.Samples]:
    """Return for each class the images on show, real and synthetic, of fold 0.

    `real` returns held-out images of a class, uint8 [n, size, size]. Synthetic images are shown alone, and above their
    nearest training images.
    """
    shown = []
    for part in _chosen(parts, "generate", fold=0):
        label = part.where["label"]
        synthetic = Shards(storage, part.prefix, part.manifest, "images").first(TILES)
        nearest = read_left(storage, part, ["nearest.png"]).get("nearest.png")
        shown.append(exhibits.tiles(label, real(label), synthetic, nearest))
    return shown


def read_left(storage: Storage, part: Part, names: Iterable[str]) -> dict[str, bytes]:
    """Return outputs of a step by name, without those that no longer exist.

    Raises MachineError if an existing file is damaged.
    """
    left = [name for name in names if storage.exists(f"{part.prefix}/{name}")]
    digests = dict(part.manifest["outputs"])
    for folder in {name.partition("/")[0] for name in left if "/" in name}:
        digests |= read_listing(storage, part.prefix, part.manifest, folder)
    return dict(zip(left, read_outputs(storage, part.prefix, digests, left), strict=True))


def sample_grids(storage: Storage, parts: list[Part], label: str) -> list[tuple[int, bytes]]:
    """Return (epoch, sample grid) of up to four epochs of a generator of fold 0, including the last one.

    None if the grids no longer exist.
    """
    for part in _chosen(parts, "train-gan", fold=0, label=label):
        if not storage.exists(f"{part.prefix}/samples{LISTING}"):
            return []
        names = list(read_listing(storage, part.prefix, part.manifest, "samples"))
        chosen = sorted({names[(len(names) - 1) * i // 3] for i in range(4)})
        shown = read_left(storage, part, chosen)
        return [(int(name.rpartition("-")[2].removesuffix(".png")), data) for name, data in shown.items()]
    return []


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


# ---- the report itself --------------------------------------------------------------------------------------------


def copy(step: Step, folder: Path) -> list[Path]:
    """Write the files of a finished report to a local folder; return their paths.

    Raises MachineError if a file in storage is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    for path in paths:
        path.write_bytes(step.read(path.name))
    return paths
