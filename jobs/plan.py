"""Plan a run: its tasks, how many of them are done, and how large a workflow is that carries it out in a cluster.

Reads   the data, which are first prepared as by preprocess if necessary.
Writes  plans/<id>.json, the input of the pods of a workflow. In --plan-folder: plan (its id), run, state (`finished`
        or `unfinished`) and for each stage of the workflow a JSON list of its items.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import preprocess
from jobs.argo import size
from jobs.classifier import champion, healthy
from jobs.common import activity, keys, shapes
from jobs.common.errors import MachineError, UserError
from jobs.common.files import local_file
from jobs.common.progress import in_words
from jobs.common.step import Step, seal, unseal
from jobs.common.storage import MissingKey, Storage, open_storage
from jobs.declaration import Plan, Task, name_of_folder, name_of_run, tasks
from jobs.finished import done, seconds, tidy
from jobs.gan import IMAGE_SIZES
from jobs.mri import testset
from jobs.settings import JOBS, PlanSettings, PreprocessSettings, RunOfTasksSettings

log = logging.getLogger("mrigan.plan")

# The stages of the workflow. All tasks of a stage belong to one job.
OF_ALL = "-of-all"  # suffix of the stages that leave out no fold
STAGES = (
    *("draw-phantoms", "pretrain", "train-gan", "generate", "on-real", "on-synthetic"),
    *("train-gan" + OF_ALL, "generate" + OF_ALL),
)


def prepare(settings: RunOfTasksSettings) -> Plan:
    """Prepare the dataset unless it exists, and return the plan of its run.

    Raises UserError for every mistake that would stop a later task.
    """
    if (settings.gan_of_all or set(settings.regimes) != {"real"}) and settings.image_size not in IMAGE_SIZES:
        raise UserError(
            f"--image-size: GANs support {', '.join(map(str, IMAGE_SIZES))} pixels; "
            "use one of these, or --regimes real without --gan-of-all"
        )
    if settings.classifier_weights not in ("none", "imagenet"):
        local_file("--classifier-weights", settings.classifier_weights)
    if settings.feature_weights:
        local_file("--feature-weights", settings.feature_weights)
    name = settings.name or name_of_folder(settings.data)
    step = preprocess.run(PreprocessSettings.of(settings))
    labels = sorted(step.facts["labels"])
    champion.check_labels(step.storage, name, labels)
    if settings.test:
        testset.read_test_set(settings.test, labels, settings.volume, settings.slice_step, settings.follow_links)
    return make(healthy.resolved(settings, labels), step, name)


def make(settings: RunOfTasksSettings, dataset: Step, name: str, variant: str = "") -> Plan:
    """Return the plan of a run on a dataset, from settings that are resolved for it.

    `variant` is added to the run's name: what its settings do not tell.
    """
    id, labels = dataset.prefix.rpartition("/")[2], sorted(dataset.facts["labels"])
    run = name_of_run(settings, id) + variant
    common = RunOfTasksSettings.of(settings).model_dump(mode="json")
    return Plan(id, run, name, common, tasks(settings, id, labels, run, name))


def read(storage: Storage, id: str) -> Plan:
    """Return a plan that `mrigan plan` wrote. Raises UserError if there is none, MachineError if it is damaged."""
    key = keys.plan(id)
    try:
        fields = shapes.checked(shapes.Plan, unseal(storage.read(key)))
        unknown = {one["job"] for one in fields["tasks"]} - JOBS.keys()
        if unknown:
            raise ValueError(f"there is no job {min(unknown)}")
    except MissingKey:
        raise UserError(f"--plan: there is no plan {id} in {storage.url}") from None
    except (ValueError, TypeError) as error:
        where = f"{storage.url.rstrip('/')}/{key}"
        raise MachineError(f"{where} is damaged ({error}): delete it and run mrigan plan again") from error
    found = [
        Task(one["job"], one["item"], one["settings"], one["place"], tuple(one["needs"])) for one in fields["tasks"]
    ]
    return Plan(**(fields | {"tasks": found}))


def run(settings: PlanSettings) -> None:
    """Print the plan, and write it for a workflow if a folder is given.

    Raises UserError for every mistake that would stop a later task.
    """
    plan = prepare(settings)
    storage = open_storage(settings.storage)
    known = done(storage, plan)
    items = stages(plan, known)
    tidy(storage, plan, known)
    finished = all(task.place in known for task in plan.tasks)
    if settings.plan_folder:
        if not finished:
            storage.write(keys.plan(plan.id), seal(plan.fields()))
        activity.note(storage, plan.name, "began", *["succeeded"] * finished)
        folder = Path(settings.plan_folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {"plan": plan.id, "run": plan.run, "state": "finished" if finished else "unfinished"}
        files |= {stage: json.dumps(its) for stage, its in items.items()}
        for file, text in files.items():
            (folder / file).write_text(text)
    print(table(plan, known, seconds(storage, plan, known)))
    workflow = size.of(items)
    print(size.words(workflow))
    if not workflow.fits:
        log.warning("%s", size.advice(workflow))


def stages(plan: Plan, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the items of each stage of the workflow, and `folds`. The items are the same for every fold.

    A finished run has no items. Finished phantoms and pretraining have none either.
    """
    found: dict[str, list[str]] = {stage: [] for stage in ("folds", *STAGES)}
    left = [task for task in plan.tasks if task.place not in known]
    for task in plan.tasks if left else ():
        if task.job in ("draw-phantoms", "pretrain") and task not in left:
            continue
        fold, colon, item = task.item.partition(":")
        stage = task.job
        if stage == "train-classifier":
            stage = "on-real" if task.settings["regime"] == "real" else "on-synthetic"
        if fold == "all":
            stage += OF_ALL
        elif colon:
            found["folds"].append(fold)
        if stage in found:
            found[stage].append(item or fold)
    return {stage: list(dict.fromkeys(items)) for stage, items in found.items()}


def table(plan: Plan, known: Mapping[str, Any], took: Mapping[str, float]) -> str:
    """Return the plan as readable lines: for each job the numbers of tasks and done tasks, and the remaining time."""
    lines = [f"run {plan.run} on dataset {plan.dataset}", f"{'job':<18}{'tasks':>6}{'done':>6}  time on one core"]
    jobs = Counter(task.job for task in plan.tasks)
    unknown = False
    for job, count in jobs.items():
        mine = [task for task in plan.tasks if task.job == job]
        left = [task for task in mine if task.place not in known]
        times = [took[task.place] for task in left if task.place in took]
        unknown |= len(times) < len(left)
        time = "" if not left else "not known" if len(times) < len(left) else in_words(sum(times))
        lines.append(f"{job:<18}{count:>6}{count - len(left):>6}  {time}".rstrip())
    left = [task for task in plan.tasks if task.place not in known]
    total = "" if unknown or not left else f"; about {in_words(sum(took[task.place] for task in left))} of one core"
    lines.append(f"{len(plan.tasks)} tasks, {len(left)} to do{total}")
    return "\n".join(lines)
