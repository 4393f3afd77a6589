"""The workflow's fan-out: what `pipeline` would do next, as JSON for pods that do it side by side.

Writes  into the plan's folder: state (`finished` if this run was reported and judged before, else `unfinished`), run
        (its name) and plan.json: dataset, run, name, settings, pretrained (the networks that learn phantoms first),
        folds, generators, labels, real and synthetic (the classifiers, by whether they wait for synthetic images).
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jobs import evaluate, pipeline, promote
from jobs.common import activity
from jobs.common.errors import UserError
from jobs.common.settings import setting
from jobs.common.step import Step
from jobs.evaluate import EvaluateSettings
from jobs.pipeline import PRESET_COSTS, PRESETS, Classifier, PipelineSettings
from jobs.promote import PromoteSettings

__all__ = ["PRESETS", "PRESET_COSTS", "PlanSettings", "run"]

log = logging.getLogger("mrigan.plan")

Plan = dict[str, Any]


class PlanSettings(PipelineSettings):
    """What plan can be told."""

    plan_folder: str = setting("plan", "folder on this machine that gets the plan", result=False, min_length=1)
    # Not --gpus, which counts the hours of those that a pod holds: this one holds none.
    gpus_of_each: int = setting(
        0, "GPUs that each pod which trains or draws will ask for, checked before one does", result=False, ge=0
    )


def run(settings: PlanSettings) -> None:
    """Prepare the dataset unless it is there, and write the plan.

    Raises UserError for whatever would stop a later job.
    """
    dataset, name, settings = pipeline.prepare(settings)
    done, run = finished(settings, dataset, name), pipeline.name_of_run(dataset, settings)
    activity.note(dataset.storage, name, "began", *["succeeded"] * done)
    if done:
        log.info("the data are unchanged, and run %s was reported and judged before: nothing to do", run)
    wanted = pipeline.classifiers(settings, settings.networks, settings.regimes)
    if settings.controls:
        wanted += pipeline.controls(settings)
    whole = plan(settings, dataset, name, range(settings.folds), wanted)
    files = {"state": "finished" if done else "unfinished", "run": run, "plan.json": _json(whole)}
    folder = Path(settings.plan_folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)


def finished(settings: PipelineSettings, dataset: Step, name: str) -> bool:
    """Return whether this run's report is there and was judged, so that a workflow has nothing to do."""
    where = pipeline.place(settings, dataset) | {"name": name}
    try:
        report, _, _ = evaluate.find(EvaluateSettings.of(settings, **where))
    except UserError:
        # A classifier is missing.
        return False
    return report.finished() and promote.judged(PromoteSettings.of(settings, **where))


def plan(
    settings: PipelineSettings, dataset: Step, name: str, folds: Iterable[int | str], wanted: Sequence[Classifier]
) -> Plan:
    """Return the fan-out of `wanted` classifiers over `folds`. `settings` is JSON in a string, as jobs read it."""
    return {
        **pipeline.place(settings, dataset),
        "name": name,
        "settings": _json(PipelineSettings.of(settings).model_dump(mode="json")),
        "pretrained": pipeline.pretrained(settings, wanted),
        "folds": [str(fold) for fold in folds],
        "generators": pipeline.generators(settings, dataset, wanted),
        "labels": list(dataset.facts["labels"]),
        "real": [one for one in wanted if one["regime"] == "real"],
        "synthetic": [one for one in wanted if one["regime"] != "real"],
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
