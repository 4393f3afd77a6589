"""A run in cells, a fold's generators or one classifier each: side by side, resumable, each kept when it is done."""

import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from bench.quality import kept
from jobs import pipeline
from jobs.common import keys, logs
from jobs.common.errors import Interrupted, MachineError
from jobs.common.step import Step
from jobs.pipeline import Classifier, PipelineSettings


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
    for fold in folds:
        kept.put_back(dataset.storage, reusable(settings, dataset, fold, wanted, results), results)
    # A fold's generators come with the first classifier that needs them; the others that do wait, so that none is made
    # twice.
    first = next((one for one in wanted if one["regime"] != "real"), None)
    before = [(fold, first) for fold in folds] if first else []
    others = [(fold, one) for one in wanted if one is not first for fold in folds]
    before += [cell for cell in others if cell[1]["regime"] == "real"]
    after = [cell for cell in others if cell[1]["regime"] != "real"]
    work = partial(_work, settings, dataset, results)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=logs.setup, initargs=("text",)) as pool:
        try:
            for cells in (before, after):
                for _ in pool.map(work, cells):
                    pass
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise MachineError("a process of the run died, of too little memory perhaps: run it again") from error
            raise


def _work(settings: PipelineSettings, dataset: Step, results: Path, cell: tuple[int, Classifier]) -> None:
    fold, classifier = cell
    try:
        for step in pipeline.train(settings, dataset, [fold], [classifier]):
            kept.keep(dataset.storage, step.prefix, results)
    except Interrupted:
        # A pool's process that only raised would take the next cell.
        os._exit(Interrupted.exit_code)


def reusable(
    settings: PipelineSettings, dataset: Step, fold: int, wanted: Sequence[Classifier], results: Path
) -> Iterable[str]:
    """Return the kept steps of a fold that can be put back.

    Where a classifier is still to be trained on synthetic images these must be there, and images are not kept: their
    generator is trained again, and so are classifiers that learned from the old ones, unless it comes out the same.
    """
    run = pipeline.name_of_run(dataset, settings)
    place = results / "runs" / run / f"fold-{fold}"
    found = {path.parent.relative_to(results).as_posix() for path in place.rglob(kept.MANIFEST)}
    prefixes = {
        keys.classifier(run, fold, one["network"], keys.controlled(one["regime"], one["control"]), one["seed"]): one
        for one in wanted
    }
    if found >= prefixes.keys():
        return sorted(found)
    return sorted(prefix for prefix, one in prefixes.items() if prefix in found and one["regime"] == "real")
