"""The workflow's fan-out: what `pipeline` would do next, as JSON for pods that do it side by side.

    --stage run        prepares the dataset; the plan holds the generators and classifiers of every fold
    --stage promotion  reads the report; one plan for the model of all images (refit), one for the best recipe ever
                       where it has yet to be trained on this data (rival); give it the run's --dataset

Writes  into the plan's folder: state (`finished` if this run was reported and judged before, else `unfinished`), run
        (its name) and plan.json; or refit.json and rival.json. A plan has dataset, run, name, settings, pretrained
        (the networks that learn phantoms first), folds, generators, labels, real and synthetic (the classifiers, by
        whether they wait for synthetic images). Where nothing is to be trained it has no folds.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from jobs import evaluate, pipeline, promote
from jobs.common import activity, keys
from jobs.common.errors import UserError
from jobs.common.settings import NAME, setting
from jobs.common.step import Step, stored
from jobs.common.storage import open_storage
from jobs.evaluate import EvaluateSettings
from jobs.pipeline import PRESET_COSTS, PRESETS, Classifier, PipelineSettings
from jobs.promote import PromoteSettings

__all__ = ["PRESETS", "PRESET_COSTS", "PlanSettings", "run"]

log = logging.getLogger("mrigan.plan")

Plan = dict[str, Any]


class PlanSettings(PipelineSettings):
    """What plan can be told."""

    stage: Literal["run", "promotion"] = setting("run", "what is planned", result=False)
    dataset: str = setting(
        "",
        "id of the dataset to plan for: preprocess prints it; empty: it is prepared from the data as they are now",
        result=False,
        pattern=f"^$|{NAME}",
    )
    plan_folder: str = setting("plan", "folder on this machine that gets the plan", result=False, min_length=1)
    # Not --gpus, which counts the hours of those that a pod holds: this one holds none.
    gpus_of_each: int = setting(
        0, "GPUs that each pod which trains or draws will ask for, checked before one does", result=False, ge=0
    )


def run(settings: PlanSettings) -> None:
    """Prepare the dataset unless it is there, and write the stage's plan.

    Raises UserError for whatever would stop a later job.
    """
    prepared = None
    if settings.dataset:
        prepared = stored(open_storage(settings.storage), keys.dataset(settings.dataset))
        if prepared is None:
            raise UserError(f"--dataset: there is no dataset {settings.dataset} in {settings.storage}")
    dataset, name, settings = pipeline.prepare(settings, prepared)
    if settings.stage == "run":
        done, run = finished(settings, dataset, name), pipeline.name_of_run(dataset, settings)
        activity.note(dataset.storage, name, "began", *["succeeded"] * done)
        if done:
            log.info("the data are unchanged, and run %s was reported and judged before: nothing to do", run)
        wanted = pipeline.classifiers(settings, settings.networks, settings.regimes)
        if settings.controls:
            wanted += pipeline.controls(settings)
        whole = plan(settings, dataset, name, range(settings.folds), wanted)
        files = {"state": "finished" if done else "unfinished", "run": run, "plan.json": _json(whole)}
    else:
        files = {f"{kind}.json": _json(one) for kind, one in promotion_plans(settings, dataset, name).items()}
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


def promotion_plans(settings: PipelineSettings, dataset: Step, name: str) -> dict[str, Plan]:
    """Return what is to be trained between report and promotion: `refit` on all images, `rival` on all folds."""
    promotion = PromoteSettings.of(settings, **pipeline.place(settings, dataset), name=name)
    refitted = pipeline.refit(settings, promotion)
    plans = {
        "refit": plan(settings, dataset, name, ["all"] if refitted else [], refitted),
        "rival": plan(settings, dataset, name, [], []) | {"run": ""},
    }
    rival = pipeline.rival_recipe(settings, dataset, promotion)
    if rival:
        same, recipe, theirs = rival
        plans["rival"] = plan(recipe, same, name, range(recipe.folds), theirs)
    return plans


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
