"""A run as separate tasks: in parallel, resumable, and each kept when it is finished."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.quality import kept
from jobs import declaration, pipeline
from jobs.classifier import metrics
from jobs.classifier.findings import Recipe
from jobs.classifier.predictions import Predictions, join_predictions, read_predictions
from jobs.common import keys, logs
from jobs.common.loading import load_job
from jobs.common.storage import Storage
from jobs.common.workers import Watcher, carry_out
from jobs.declaration import Plan, Task
from jobs.settings import PipelineSettings

Predicted = dict[Recipe, list[Predictions]]  # one of each seed


def run(
    storage: Storage, plan: Plan, folds: Sequence[int], results: Path, workers: int, off: Sequence[str] = ()
) -> None:
    """Train the plan's classifiers of `folds`, with all tasks that they need, unless they are finished.

    Each finished task of a fold is kept in `results`, and kept tasks are not repeated. Generators are trained without
    the stabilizers `off`. Raises the errors of the jobs, and Interrupted after a signal, with checkpoints written.
    """
    steps = kept.read(results)
    here = (task.place for task in plan.tasks if task.settings.get("fold") in folds)
    kept.put_back(storage, {place: steps[place] for place in here if place in steps})
    left = todo(plan, folds, steps)
    for task in left:
        # Classifiers may stay incomplete: only their predictions are used.
        if task.job in ("train-gan", "generate") and kept.incomplete(storage, task.place):
            storage.delete(f"{task.place}/{kept.MANIFEST}")
    keeper = _Keeper(storage, {task.name: task.place for task in left if "fold" in task.settings}, results)
    carry_out(declaration.works(plan, left), partial(_perform, off), pipeline.setups(workers), keeper)


def todo(plan: Plan, folds: Sequence[int], known: Container[str]) -> list[Task]:
    """Return the tasks that are necessary for the classifiers of `folds` that are not at `known` places.

    Images are not kept. If a classifier still needs them, their generator is trained again, and the images may differ.
    The result then contains all classifiers of the fold that are trained on its images.
    """
    trained = [task for task in plan.tasks if task.job == "train-classifier" and task.settings["fold"] in folds]
    on_synthetic = [task for task in trained if task.settings["regime"] != "real"]
    again = {task.settings["fold"] for task in on_synthetic if task.place not in known}
    wanted = {task.place for task in trained if task.place not in known}
    wanted |= {task.place for task in on_synthetic if task.settings["fold"] in again}
    for task in reversed(plan.tasks):
        if task.place in wanted:
            wanted |= set(task.needs)
    return [task for task in plan.tasks if task.place in wanted]


def predictions(
    steps: kept.Steps, run: str, recipes: Iterable[Recipe], folds: Sequence[int], settings: PipelineSettings
) -> Predicted:
    """Return the predictions of each recipe of a run for the held-out images of `folds`, one by seed."""

    def read(fold: int, recipe: Recipe, seed: int) -> Predictions:
        return read_predictions(steps[keys.classifier(run, fold, *recipe, seed)]["predictions.csv"])

    seeds = range(settings.seed, settings.seed + settings.seeds)
    return {
        recipe: [join_predictions([read(fold, recipe, seed) for fold in folds]) for seed in seeds] for recipe in recipes
    }


def bootstraps(predicted: Predicted, settings: PipelineSettings) -> dict[Recipe, metrics.Bootstrap]:
    """Return the bootstrap of each recipe's predictions."""
    return {recipe: metrics.bootstrap(seeds, settings.resamples, settings.seed) for recipe, seeds in predicted.items()}


@dataclass
class _Keeper(Watcher):
    """Keeps each finished task that has a place in `places`."""

    storage: Storage
    places: dict[str, str]
    results: Path

    def ended(self, name: str, failed: bool) -> None:
        if not failed and name in self.places:
            kept.keep(self.storage, self.places[name], self.results)


def _perform(off: Sequence[str], work: tuple[str, Any, Sequence[str]]) -> None:
    job, settings, _ = work
    with logs.about(job, settings):
        load_job(job).run(settings, **({"off": off} if off and job == "train-gan" else {}))
