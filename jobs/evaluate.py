"""Evaluate all predictions of a run: write a report as JSON and as an HTML page.

Reads   datasets/<id>/; runs/<run>/fold-K/: every classifier's predictions.csv and history.csv, every generator's
        losses.csv and samples/, every class's synthetic images and quality.json.
Writes  runs/<run>/report/: report.json (documented in docs/report.md), report.html, manifest.json.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from jobs.classifier import controls, findings, metrics
from jobs.classifier.predictions import Predictions, join_predictions, read_predictions
from jobs.common import keys, tables
from jobs.common.errors import UserError
from jobs.common.step import Step, manifest_digest
from jobs.common.storage import Storage, open_storage
from jobs.mri.dataset import Dataset, open_dataset
from jobs.report import exhibits, gather, page
from jobs.report.exhibits import Exhibits
from jobs.report.gather import Part
from jobs.settings import CONTROLS, EvaluateSettings

log = logging.getLogger("mrigan.evaluate")

REPORT_SCHEMA = 4
Json = dict[str, Any]


def run(settings: EvaluateSettings) -> Step:
    """Write the report unless it exists; return its step, whose facts contain the headline.

    Raises UserError if a classifier is missing or was trained on another dataset, MachineError if an output is damaged.
    """
    step, dataset, parts = find(settings)
    if step.finished():
        log.info("%s exists: nothing to do", step.prefix)
    else:
        _write(settings, step, dataset, parts)
    if settings.report_folder:
        gather.copy(step, Path(settings.report_folder))
    return step


def find(settings: EvaluateSettings) -> tuple[Step, Dataset, list[Part]]:
    """Return the report's step, finished or not, with the dataset and the steps that the report covers.

    Raises UserError if a classifier is missing or was trained on another dataset.
    """
    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    recipes = [(network, regime) for network in settings.networks for regime in settings.regimes]
    seeds = range(settings.seed, settings.seed + settings.seeds)
    folds = range(dataset.folds)
    parts = gather.classifiers(storage, settings.run, dataset.step, recipes, seeds, folds)
    if settings.controls:
        wrong = [(settings.networks[0], keys.controlled("real", control)) for control in CONTROLS]
        parts += gather.classifiers(storage, settings.run, dataset.step, wrong, seeds[:1], folds)
    if set(settings.regimes) != {"real"}:
        parts += gather.generators(storage, settings.run, dataset.step, folds)
    step = Step(
        storage,
        keys.report(settings.run),
        job="evaluate",
        # A report with an older schema is written again.
        settings=settings.result() | {"schema": REPORT_SCHEMA},
        inputs={"dataset": dataset.digest} | {part.prefix: manifest_digest(part.manifest) for part in parts},
    )
    return step, dataset, parts


def _write(settings: EvaluateSettings, step: Step, dataset: Dataset, parts: list[Part]) -> None:
    """Write the report's files and finish the step."""
    storage = step.storage
    log.info("evaluating %d classifiers", sum(part.job == "train-classifier" for part in parts))
    for job, network in dict.fromkeys((part.job, part.where.get("network", "")) for part in parts):
        alike = [part.manifest for part in parts if (part.job, part.where.get("network", "")) == (job, network)]
        used = gather.distinct(manifest.get("arithmetic", {}) for manifest in alike)
        if len(used) > 1:
            log.warning(
                "tasks of %s %s used different arithmetic, which changes results slightly: %s", job, network, used
            )
    report, exhibits = _evaluate(settings, storage, dataset, parts)
    html = page.render(report, exhibits, metrics.METRICS, metrics.BINS)
    if not step.take():
        return
    step.write("report.json", (json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    step.write("report.html", html.encode())
    headline = page.headline(report)
    step.finish(headline=headline)
    for sentence in headline:
        log.info("%s", sentence)
    log.info("report: %s/%s/report.html", storage.url.rstrip("/"), step.prefix)


def _evaluate(
    settings: EvaluateSettings, storage: Storage, dataset: Dataset, parts: list[Part]
) -> tuple[Json, Exhibits]:
    """Return the content of report.json, and the charts and images of the page."""

    def bootstrap(seeds: list[Predictions]) -> metrics.Bootstrap:
        return metrics.bootstrap(seeds, settings.resamples, settings.seed)

    # ---- predictions ----------------------------------------------------------------------------------------------
    found = {recipe: _predictions(storage, parts, recipe) or [] for recipe in gather.recipes(parts)}
    recipes = {recipe: seeds for recipe, seeds in found.items() if recipe[1] in settings.regimes}
    expected = sorted((row.id, row.label) for row in dataset.rows)
    for x in (x for seeds in recipes.values() for x in seeds):
        if list(zip(x.ids, (x.labels[i] for i in x.truth), strict=True)) != expected:
            raise UserError(
                "a classifier's predictions are for other images: delete the run's folder and run its jobs again"
            )
    bootstraps = {recipe: bootstrap(seeds) for recipe, seeds in recipes.items()}

    # ---- controls -------------------------------------------------------------------------------------------------
    rows = sorted(dataset.rows, key=lambda row: row.id)
    truth = np.array([dataset.labels.index(row.label) for row in rows])
    files = np.array([[row.bytes, row.width, row.height, row.width / row.height, row.border] for row in rows])
    thumbnails = np.empty((len(rows), controls.THUMBNAIL_SIDE**2), np.float32)
    for number, image in dataset.each(rows):
        thumbnails[number] = controls.thumbnails(image[None])
    folds = np.array([row.fold for row in rows])
    cheap, similarity = findings.cheap_controls(
        next(iter(recipes.values()))[0], folds, thumbnails, files, truth, settings.seed
    )
    pretrained = _predictions(storage, parts, next(iter(recipes)), "phantoms.csv")
    if pretrained:
        cheap["phantoms"] = pretrained[0]
    cheap_bootstraps = {name: bootstrap([answers]) for name, answers in cheap.items()}
    network = settings.networks[0]
    checks = []
    if settings.controls:
        permuted, leaky = (found[network, keys.controlled("real", control)] for control in CONTROLS)
        learned = gather.learned(parts, network, keys.controlled("real", "permuted"))
        largest = float(np.bincount(truth).max() / len(truth))
        checks += findings.permuted_checks(network, bootstrap(permuted), len(dataset.labels), learned, largest)
        if (network, "real") in bootstraps:
            # The folds of the leaky split divide groups, and the bootstrap must draw whole groups.
            real = recipes[network, "real"]
            torn = [x._replace(folds=real[0].folds) for x in leaky]
            checks += findings.leaky_check(network, torn, real, settings.resamples, settings.seed)

    # ---- report ---------------------------------------------------------------------------------------------------
    quality = [gather.quality(storage, part) for part in parts if part.job == "generate"]
    report = {
        "schema": REPORT_SCHEMA,
        "run": settings.run,
        "settings": settings.result(),
        "dataset": {"name": settings.name} | _about(dataset),
        "positive": dataset.labels[-1] if len(dataset.labels) == 2 else None,
        "results": findings.results(bootstraps),
        "selected": findings.selected(recipes, settings.resamples, settings.seed),
        "comparisons": findings.comparisons(bootstraps),
        "controls": {
            "results": findings.control_results(cheap_bootstraps),
            "beyond": findings.beyond_controls(bootstraps, cheap_bootstraps),
            "similarity": [
                {"network": network, "regime": regime}
                | {"bins": findings.similarity_curve(seeds, similarity, settings.resamples, settings.seed)}
                for (network, regime), seeds in recipes.items()
            ],
            "checks": checks,
        },
        "confusion": findings.confusions(recipes),
        "quality": quality,
        "selection": gather.selection(parts),
        "cost": gather.cost(parts),
        "recipe": gather.recipe(parts),
        "hardware": gather.distinct(part.manifest.get("hardware", {}) for part in parts),
        "versions": gather.distinct(part.manifest.get("versions", {}) for part in parts),
    }

    # ---- exhibits -------------------------------------------------------------------------------------------------
    drawn = exhibits.Exhibits(
        values=exhibits.values_panels(report),
        roc=exhibits.roc_panels({recipe: findings.roc_curves(seeds) for recipe, seeds in recipes.items()}),
        reliability=exhibits.reliability_panels(
            {recipe: metrics.reliability(seeds) for recipe, seeds in recipes.items()}
        ),
        similarity=exhibits.similarity_panels(report),
        samples=gather.samples(storage, parts, lambda label: _some_held_out(dataset, label)),
        losses=[
            exhibits.gan_training(
                place,
                gather.tables(storage, parts, "losses.csv", label=place),
                gather.sample_grids(storage, parts, place),
            )
            for place in dict.fromkeys(part.where["label"] for part in parts if part.job == "train-gan")
        ],
        histories=[
            exhibits.history(recipe, gather.tables(storage, parts, "history.csv", network=recipe[0], regime=recipe[1]))
            for recipe in recipes
        ],
    )
    return report, drawn


def _predictions(
    storage: Storage, parts: list[Part], recipe: tuple[str, str], name: str = "predictions.csv"
) -> list[Predictions] | None:
    """Return for each seed the pooled predictions of the folds; None if a classifier has no file `name`."""
    files = gather.outputs(storage, parts, name, network=recipe[0], regime=recipe[1])
    if files is None:
        return None
    return [join_predictions([read_predictions(data) for data in of_seed]) for of_seed in files.values()]


def _some_held_out(dataset: Dataset, label: str) -> np.ndarray:
    """Return up to gather.TILES images of a class that are held out in fold 0, at equal distances in the index."""
    rows = [row for row in dataset.held_out(0) if row.label == label]
    count = min(gather.TILES, len(rows))
    return dataset.pixels([rows[number * len(rows) // count] for number in range(count)])


def _about(dataset: Dataset) -> Json:
    """Return the properties of the dataset in numbers, and up to three excluded files for each reason."""
    _, excluded = tables.from_csv(dataset.read("quarantine.csv"))
    examples: dict[str, list[Json]] = {}
    for source, reason, detail in excluded:
        examples.setdefault(reason, []).append({"source": source, "detail": detail})
    names = ("patients", "largest_group", "large_groups", "near_duplicate_pairs", "formats", "quarantine")
    by_label = {label: [row.group for row in dataset.rows if row.label == label] for label in dataset.labels}
    return {
        "id": dataset.id,
        "digest": dataset.digest,
        "image_size": dataset.image_size,
        "folds": dataset.folds,
        "images": len(dataset.rows),
        "groups": len({row.group for row in dataset.rows}),
        "labels": [
            {"label": label, "images": len(groups), "groups": len(set(groups))} for label, groups in by_label.items()
        ],
        **{name: dataset.facts[name] for name in names if name in dataset.facts},
        "examples": [{"reason": reason, "files": found[:3]} for reason, found in sorted(examples.items())],
    }
