"""Run all jobs in order on this machine: from folders of MRI to a promoted classifier and its report.

    preprocess -> draw-phantoms -> pretrain -> for each fold: train-gan -> generate -> train-classifier
               -> evaluate -> promote

Several worker processes carry out the tasks in parallel. Results that are already in storage are reused. To resume an
interrupted pipeline, run the same command again.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from jobs import declaration, finished
from jobs import plan as planning
from jobs.common import activity, keys, logs, progress, scrapes
from jobs.common.loading import load_job
from jobs.common.machine import gpus, usable_cores
from jobs.common.step import Step, stored
from jobs.common.storage import open_storage
from jobs.common.workers import Setup, Watcher, Work, carry_out
from jobs.settings import PipelineSettings

log = logging.getLogger("mrigan.pipeline")


def run(settings: PipelineSettings) -> Step | None:
    """Carry out all tasks that are not done; return the step of the report.

    After a failure, tasks that do not depend on the failed task are still carried out; then its error is raised.
    """
    plan = planning.prepare(settings)
    storage = open_storage(settings.storage)
    log.info("run %s, in %s/runs/%s", plan.run, storage.url.rstrip("/"), plan.run)
    activity.note(storage, plan.name, "began")
    known = finished.done(storage, plan)
    finished.tidy(storage, plan, known)
    todo = [task for task in plan.tasks if task.place not in known]
    names = {task.place: task.name for task in todo}
    works = declaration.works(plan, todo)
    if works:
        estimates = finished.seconds(storage, plan, known)
        with _Display(len(plan.tasks), {names[place]: took for place, took in estimates.items()}, works) as display:
            found = setups(settings.workers)
            display.workers = len(found)
            carry_out(works, perform, found, display)
    else:
        log.info("all results exist: nothing to do")
    activity.note(storage, plan.name, "succeeded")
    return stored(storage, keys.report(plan.run))


def perform(task: tuple[str, Any, Sequence[str]]) -> None:
    """Carry out one task: a job, its settings and its needs. Worker processes call this function."""
    job, settings, needs = task
    finished.check_needs(open_storage(settings.storage), needs)
    with logs.about(job, settings):
        load_job(job).run(settings)


def setups(workers: int) -> list[Setup]:
    """Return how each worker is set up: one for each GPU, else one for each core, unless a number is given."""
    found = gpus()
    count = workers or len(found) or usable_cores()
    style, port = logs.style(), scrapes.port()
    return [
        Setup(style, port and port + 1 + number, found[number % len(found)] if found else None)
        for number in range(count)
    ]


class _Display(Watcher):
    """Shows running and remaining tasks, and the time left: bars on a terminal, otherwise a log line for each task."""

    def __init__(self, total: int, estimates: Mapping[str, float], works: Sequence[Work]) -> None:
        self.total = total
        self.estimates = dict(estimates)
        self.left = {work.name for work in works}
        self.workers = 1
        self.began: dict[str, float] = {}
        self.shown: dict[str, Any] = {}
        self.bars = progress.bars(rich.console.Console(stderr=True))
        self.whole = self.bars.add_task("", total=total, completed=total - len(works), told=True)

    def __enter__(self) -> "_Display":
        self.bars.start()
        self._tell_rest()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def started(self, name: str) -> None:
        """Show a line for this task."""
        self.began[name] = time.monotonic()
        self.shown[name] = self.bars.add_task(name, total=None)

    def told(self, name: str, done: int, total: int, text: str) -> None:
        """Update the task's bar."""
        self.bars.update(self.shown[name], completed=done, total=total, description=f"{name} {text}".strip())

    def ended(self, name: str, failed: bool) -> None:
        """Remove the task's line, and use its duration as an estimate for similar tasks."""
        self.bars.remove_task(self.shown.pop(name))
        self.left.discard(name)
        took = time.monotonic() - self.began[name]
        for other in self.left:
            # Tasks whose names differ only in numbers: in fold, seed or part.
            if re.sub(r"\d+", "", other) == re.sub(r"\d+", "", name):
                self.estimates.setdefault(other, took)
        rest = self._tell_rest()
        if not self.bars.console.is_terminal:
            log.info("%s %s after %s; %s", name, "failed" if failed else "done", progress.in_words(took), rest)

    def _tell_rest(self) -> str:
        """Show and return the number of finished tasks, and the time left if all other tasks have an estimate."""
        done = self.total - len(self.left)
        text = f"{done} of {self.total} tasks done"
        known = [self.estimates[name] for name in self.left if name in self.estimates]
        if known and len(known) == len(self.left):
            text += f", {progress.in_words(sum(known) / self.workers)} left"
        self.bars.update(self.whole, completed=done, description=text)
        return text
