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

from jobs.classifier import controls, metrics
from jobs.classifier.predictions import Predictions
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.step import Step, manifest_digest
from jobs.common.storage import Storage, open_storage
from jobs.mri.dataset import Dataset, open_dataset
from jobs.report import exhibits, findings, gather, page
from jobs.report.exhibits import Exhibits
from jobs.report.gather import Part
from jobs.settings import CONTROLS, EvaluateSettings

log = logging.getLogger("mrigan.evaluate")

REPORT_SCHEMA = 4
FILES = ("report.json", "report.html")
READ = 512  # images in memory at a time during a pass over all images
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
        copy(step, Path(settings.report_folder))
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
    parts = gather.classifiers(storage, settings.run, dataset, recipes, seeds, folds)
    if settings.controls:
        wrong = [(settings.networks[0], keys.controlled("real", control)) for control in CONTROLS]
        parts += gather.classifiers(storage, settings.run, dataset, wrong, seeds[:1], folds)
    if set(settings.regimes) != {"real"}:
        parts += gather.generators(storage, settings.run, dataset, folds)
    step = Step(
        storage,
        keys.report(settings.run),
        job="evaluate",
        # A report with an older schema is written again.
        settings=settings.result() | {"schema": REPORT_SCHEMA},
        inputs={"dataset": dataset.digest} | {part.prefix: manifest_digest(part.manifest) for part in parts},
    )
    return step, dataset, parts


def copy(step: Step, folder: Path) -> list[Path]:
    """Write the files of a finished report to a local folder; return their paths.

    Raises MachineError if a file in storage is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    for path in paths:
        path.write_bytes(step.read(path.name))
    return paths


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
    html = page.render(report, exhibits)
    step.forget()
    step.write("report.json", (json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    step.write("report.html", html.encode())
    headline = page.headline(report)
    step.finish(headline=headline)
    for sentence in headline:
        log.info("%s", sentence)
    log.info("report: %s/%s/report.html", storage.url.rstrip("/"), step.prefix)


def _evaluate(
    settings: EvaluateSettings, storage: Storage, dataset: Dataset, parts: list[Part]
) -> tuple[Json, "Exhibits"]:
    """Return the content of report.json, and the charts and images of the page."""

    def bootstrap(seeds: list[Predictions]) -> metrics.Bootstrap:
        return metrics.bootstrap(seeds, settings.resamples, settings.seed)

    # ---- predictions ----------------------------------------------------------------------------------------------
    found = {recipe: gather.predictions(storage, parts, *recipe) for recipe in gather.recipes(parts)}
    recipes = {recipe: seeds for recipe, seeds in found.items() if recipe[1] in settings.regimes}
    held_out = sorted((row.id, row.label) for row in dataset.rows)
    for x in (x for seeds in recipes.values() for x in seeds):
        if list(zip(x.ids, (x.labels[i] for i in x.truth), strict=True)) != held_out:
            raise UserError(
                "a classifier's predictions are for other images: delete the run's folder and run its jobs again"
            )
    bootstraps = {recipe: bootstrap(seeds) for recipe, seeds in recipes.items()}

    # ---- controls -------------------------------------------------------------------------------------------------
    rows = sorted(dataset.rows, key=lambda row: row.id)
    truth = np.array([dataset.labels.index(row.label) for row in rows])
    files = np.array([[row.bytes, row.width, row.height, row.width / row.height, row.border] for row in rows])
    blocks = [rows[start : start + READ] for start in range(0, len(rows), READ)]
    thumbnails = np.concatenate([controls.thumbnails(dataset.pixels(block)) for block in blocks])
    folds = np.array([row.fold for row in rows])
    cheap, similarity = findings.cheap_controls(
        next(iter(recipes.values()))[0], folds, thumbnails, files, truth, settings.seed
    )
    cheap |= gather.phantoms(storage, parts, *next(iter(recipes)))
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
        "dataset": {"name": settings.name} | gather.about(dataset) | {"examples": gather.quarantine(dataset)},
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
        values=exhibits.values(report),
        roc=exhibits.roc({recipe: findings.roc_curves(seeds) for recipe, seeds in recipes.items()}),
        reliability=exhibits.reliability({recipe: findings.reliability(seeds) for recipe, seeds in recipes.items()}),
        similarity=exhibits.similarity(report),
        samples=gather.samples(storage, dataset, parts),
        losses=[
            exhibits.gan(
                place, gather.tables(storage, parts, "losses.csv", label=place), gather.progress(storage, parts, place)
            )
            for place in dict.fromkeys(part.where["label"] for part in parts if part.job == "train-gan")
        ],
        histories=[
            exhibits.history(recipe, gather.tables(storage, parts, "history.csv", network=recipe[0], regime=recipe[1]))
            for recipe in recipes
        ],
    )
    return report, drawn
