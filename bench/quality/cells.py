"""A run in cells, a fold's generators or one classifier each: side by side, resumable, each kept when it is done."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import product
from pathlib import Path

from bench.quality import kept
from jobs import pipeline, pretrain
from jobs.classifier.predictions import Predictions
from jobs.common import keys, logs
from jobs.common.errors import Interrupted, MachineError
from jobs.common.step import Step
from jobs.common.storage import Storage
from jobs.mri.dataset import Dataset
from jobs.pipeline import Classifier, PipelineSettings
from jobs.pretrain import PretrainSettings
from jobs.report import gather
from jobs.report.findings import Recipe

Cell = Callable[[], Iterable[Step]]
Predicted = dict[Recipe, list[Predictions]]


def run(
    settings: PipelineSettings,
    dataset: Step,
    folds: Sequence[int],
    wanted: Sequence[Classifier],
    results: Path,
    workers: int,
) -> None:
    """Do what is not yet done of the classifiers `wanted` in each fold, and of the generators they need.

    `workers` processes share the cells; each finished step is kept in `results`, and what is kept there is not done
    again. Raises Interrupted after SIGTERM or Ctrl-C, with checkpoints written, and what the jobs raise.
    """
    steps, todo = kept.read(results), {}
    for fold in folds:
        usable, todo[fold] = reusable(settings, dataset, fold, wanted, steps)
        kept.put_back(dataset.storage, usable)
    left = [(fold, one) for one in wanted for fold in folds if one in todo[fold]]
    if not left:
        return
    drawn_for = {fold: ones for fold, ones in todo.items() if any(one["regime"] != "real" for one in ones)}
    _forget_hollow(dataset.storage, pipeline.name_of_run(dataset, settings), drawn_for)
    # What several classifiers start from comes before them, so that none is made twice.
    shared: list[Cell] = [partial(_pretrain, settings, network) for network in pipeline.pretrained(settings, wanted)]
    shared += [partial(pipeline.draw, settings, dataset, *one) for one in drawn_for.items()]
    own: list[Cell] = [partial(pipeline.train, settings, dataset, [fold], [one]) for fold, one in left]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=logs.setup, initargs=("text",)) as pool:
        try:
            for cells in (shared, own):
                for _ in pool.map(partial(_do, dataset.storage, results), cells):
                    pass
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise MachineError("a process of the run died, of too little memory perhaps: run it again") from error
            raise


def predictions(settings: PipelineSettings, dataset: Dataset, run: str, folds: Sequence[int]) -> Predicted:
    """Return what each network and regime of a run said of the folds' held-out images, with each seed.

    Raises UserError if a classifier is missing or stands on another dataset.
    """
    recipes = list(product(settings.networks, settings.regimes))
    seeds = range(settings.seed, settings.seed + settings.seeds)
    parts = gather.classifiers(dataset.storage, run, dataset, recipes, seeds, folds)
    return {recipe: gather.predictions(dataset.storage, parts, *recipe) for recipe in recipes}


def _do(storage: Storage, results: Path, cell: Cell) -> None:
    try:
        for step in cell():
            kept.keep(storage, step.prefix, results)
    except Interrupted:
        # A pool's process that only raised would take the next cell.
        os._exit(Interrupted.exit_code)


def _pretrain(settings: PipelineSettings, network: str) -> list[Step]:
    """Return no step to keep: weights alone come of it."""
    pretrain.run(PretrainSettings.of(settings, network=network))
    return []


def _forget_hollow(storage: Storage, run: str, folds: Iterable[int]) -> None:
    """Take back what classifiers are still to learn from and what lies there without images or weights.

    Classifiers themselves stay: nothing but their predictions is asked of them.
    """
    for fold in folds:
        manifests = [key for key in storage.list(f"runs/{run}/fold-{fold}") if key.endswith(f"/{kept.MANIFEST}")]
        for key in manifests:
            prefix = key.removesuffix(f"/{kept.MANIFEST}")
            if "/classifiers/" not in prefix and kept.hollow(storage, prefix):
                storage.delete(key)


def reusable(
    settings: PipelineSettings, dataset: Step, fold: int, wanted: Sequence[Classifier], steps: kept.Steps
) -> tuple[kept.Steps, list[Classifier]]:
    """Return which of the kept steps of a fold can be put back, and the classifiers to train beside them.

    Where a classifier is still to be trained on synthetic images these must be there, and images are not kept: their
    generator is trained again, and so are classifiers that learned from the old ones, unless it comes out the same.
    """
    run = pipeline.name_of_run(dataset, settings)
    prefixes = {
        keys.classifier(run, fold, one["network"], keys.controlled(one["regime"], one["control"]), one["seed"]): one
        for one in wanted
    }
    missing = [one for prefix, one in prefixes.items() if prefix not in steps]
    if all(one["regime"] == "real" for one in missing):
        return {
            prefix: files for prefix, files in steps.items() if prefix.startswith(f"runs/{run}/fold-{fold}/")
        }, missing
    real = (prefix for prefix, one in prefixes.items() if one["regime"] == "real")
    return {prefix: steps[prefix] for prefix in real if prefix in steps}, [*wanted]
