"""Plan a run: its tasks, how many of them are done, and how large a workflow is that carries it out in a cluster.

    preprocess -> draw-phantoms -> pretrain -> for each fold: train-gan -> generate -> train-classifier
               -> evaluate -> promote

Reads   the data, which are first prepared as by preprocess if necessary.
Writes  plans/<id>.json, the input of the pods of a workflow. In --plan-folder: plan (its id), run, state (`finished`
        or `unfinished`) and for each stage of the workflow a JSON list of its items.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from jobs import preprocess
from jobs.argo import size
from jobs.classifier import champion, healthy, starting
from jobs.common import activity, again, keys, shapes
from jobs.common.checkpoint import CHECKPOINTS
from jobs.common.errors import MachineError, UserError
from jobs.common.fields import validate
from jobs.common.files import local_file
from jobs.common.step import RESULTS_VERSION, Step, digest, manifest_digest, read_manifest, seal, unseal
from jobs.common.storage import MissingKey, Storage, open_storage
from jobs.common.workers import Work
from jobs.gan import IMAGE_SIZES
from jobs.mri import testset
from jobs.phantoms import learning
from jobs.settings import (
    CONTROLS,
    JOBS,
    ClassifierSettings,
    ExecutionSettings,
    GanSettings,
    PlanSettings,
    PreprocessSettings,
    PretrainSettings,
    RunOfTasksSettings,
    SyntheticSettings,
)

log = logging.getLogger("mrigan.plan")

# Settings that name files; only the job reads their content.
FILES = ("classifier_weights", "feature_weights")
ON_GPU = frozenset({"train-gan", "generate", "pretrain", "train-classifier"})
# The stages of the workflow. All tasks of a stage belong to one job.
OF_ALL = "-of-all"  # suffix of the stages that leave out no fold
STAGES = (
    *("draw-phantoms", "pretrain", "train-gan", "generate", "on-real", "on-synthetic"),
    *("train-gan" + OF_ALL, "generate" + OF_ALL),
)


class Task(NamedTuple):
    """One task: its job, its item, its settings beyond those of the run, and its place (prefix) in storage.

    `needs` are the places of its inputs. The task can start once all of them are finished.
    """

    job: str
    item: str
    settings: dict[str, Any]
    place: str
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The displayed name: `train-gan(0:yes)`."""
        return f"{self.job}({self.item})" if self.item else self.job

    @property
    def takes(self) -> str:
        """The device: `gpu` (used if there is one) or `cpu`."""
        return "gpu" if self.job in ON_GPU else "cpu"


class Plan(NamedTuple):
    """The tasks of a run in a valid order, and their common settings.

    `settings` are those of the run, resolved for the classes of the dataset; `name` is the name of the dataset.
    """

    dataset: str
    run: str
    name: str
    settings: dict[str, Any]
    tasks: list[Task]

    @property
    def id(self) -> str:
        """The digest of all fields of the plan."""
        return digest(self.fields())[:12]

    def fields(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        tasks = [task._asdict() | {"name": task.name, "takes": task.takes} for task in self.tasks]
        return json.loads(json.dumps(self._asdict() | {"tasks": tasks}))


# ---- the declaration of a run ----------------------------------------------------------------------------------------


def tasks(settings: RunOfTasksSettings, dataset: str, labels: Sequence[str], run: str, name: str) -> list[Task]:
    """Return the tasks after preprocess for a dataset with these classes; `settings` must be resolved for them."""
    found: list[Task] = []

    def add(job: str, item: str, place: str, needs: Iterable[str], **own: Any) -> str:
        found.append(Task(job, item, own, place, tuple(needs)))
        return place

    data = keys.dataset(dataset)
    where = {"dataset": dataset, "run": run}

    # Phantoms, and the weights that classifiers start from.
    phantoms = []
    if settings.healthy:
        for number, part in enumerate(learning.parts(settings.phantoms)):
            place = keys.phantoms(settings.image_size, part.start, len(part))
            phantoms.append(add("draw-phantoms", str(number), place, (), part=number))
    starts: dict[str, list[str]] = dict.fromkeys(settings.networks, phantoms)
    if starting.is_used(settings.healthy, settings.phantom_epochs, settings.classifier_weights):
        for network in settings.networks:
            wanted = PretrainSettings.of(settings, network=network).result()
            if not starting.are_packaged(wanted):
                place = starting.place(wanted)
                starts[network] = [*phantoms, add("pretrain", network, place, phantoms, network=network)]

    # The folds, and in each its generators, their images and its classifiers.
    classifiers, images = [], []
    seeds = range(settings.seed, settings.seed + settings.seeds)
    kinds = [(*one, "none") for one in product(settings.networks, settings.regimes, seeds)]
    if settings.controls:
        # One seed is enough: controls only validate the evaluation.
        kinds += [(settings.networks[0], "real", settings.seed, control) for control in CONTROLS]
    generators = [keys.CLASS_CONDITIONAL] if settings.gan_conditional else list(labels)

    def add_images(fold: int | str) -> tuple[list[str], list[str]]:
        """Add the generators of a fold and their images; return the places of both."""
        here = where | {"fold": fold}
        gans = {
            label: add("train-gan", f"{fold}:{label}", keys.gan(run, fold, label), [data], **here, label=label)
            for label in generators
        }
        synthetic = []
        for label in labels:
            needs = [data, gans.get(label) or gans[keys.CLASS_CONDITIONAL]]
            place = keys.synthetic(run, fold, label)
            synthetic.append(add("generate", f"{fold}:{label}", place, needs, **here, label=label))
        return list(gans.values()), synthetic

    for fold in range(settings.folds):
        here = where | {"fold": fold}
        gans, synthetic = add_images(fold) if set(settings.regimes) != {"real"} else ([], [])
        images += [*gans, *synthetic]
        for network, regime, seed, control in kinds:
            place = keys.classifier(run, fold, network, keys.controlled(regime, control), seed)
            item = f"{fold}:{place.rpartition('/')[2]}"
            needs = [data, *starts[network], *(synthetic if regime != "real" else ())]
            own = {"network": network, "regime": regime, "seed": seed, "control": control}
            classifiers.append(add("train-classifier", item, place, needs, **here, **own))

    # No classifier and no report uses the generators of all images: they leave no image out to judge on.
    if settings.gan_of_all:
        add_images("all")

    report = add("evaluate", "", keys.report(run), [data, *images, *classifiers], **where, name=name)
    add("promote", "", keys.champion(name), [report], **where, name=name)
    return found


def name_of_run(settings: RunOfTasksSettings, dataset: str) -> str:
    """Return the run's name: the digest of the dataset's id, the recipe's settings, the seed and the results version.

    The networks, regimes, seeds and gan_of_all do not affect the name, so that they can be added to a run later.
    """
    recipe: dict[str, Any] = {"gan_conditional": settings.gan_conditional}
    for group in (GanSettings, SyntheticSettings, ClassifierSettings, ExecutionSettings):
        recipe |= group.of(settings).result()
    return digest([dataset, recipe, settings.seed, RESULTS_VERSION])[:12]


def name_of_folder(data: str) -> str:
    """Return the name of the data's folder, with all characters valid in a storage key."""
    last = data.rstrip("/").rpartition("/")[2] if data.startswith("s3://") else Path(data).resolve().name
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "data"


def settings_of(plan: Plan, task: Task) -> Any:
    """Return the settings of a task's job."""
    kind = JOBS[task.job].settings
    return validate(
        kind, {name: value for name, value in plan.settings.items() if name in kind.model_fields} | task.settings
    )


def works(plan: Plan, tasks: Sequence[Task]) -> list[Work]:
    """Return these tasks of a plan as works; the payload of each is its job, the job's settings and its needs."""
    names = {task.place: task.name for task in tasks}
    return [
        Work(
            task.name,
            frozenset(names[need] for need in task.needs if need in names),
            (task.job, settings_of(plan, task), task.needs),
        )
        for task in tasks
    ]


def check_needs(storage: Storage, needs: Iterable[str]) -> None:
    """Raise MachineError if an input of a task is missing: once its turn has come, that is no mistake of the user."""
    for place in needs:

        def read(place: str = place) -> None:
            if read_manifest(storage, place) is None:
                raise MissingKey(place)

        try:
            again.twice(read, place, MissingKey)
        except MissingKey:
            where = f"{storage.url.rstrip('/')}/{place}"
            raise MachineError(f"{where} is missing, although the task that makes it is done: run again") from None


# ---- what is done, and how long the others take ----------------------------------------------------------------------


def done(storage: Storage, plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the manifests of the tasks that are known to be done, by place, and that of the dataset.

    A task is done if its manifest has the task's settings and the digests of all its inputs. Tasks that read files of
    the user are not included: only their jobs check these files.
    """
    data = keys.dataset(plan.dataset)
    found = {data: read_manifest(storage, data) or {}}
    for task in plan.tasks:
        if not all(need in found for need in task.needs):
            continue
        settings = settings_of(plan, task)
        own = settings.result()
        if task.job == "promote":
            if storage.exists(task.place):
                rules = own | testset.identity(settings.test, settings.follow_links)
                if champion.challenge(storage, plan.dataset, plan.run, plan.name, rules).is_decided:
                    found[task.place] = {}
            continue
        manifest = read_manifest(storage, task.place)
        if not manifest:
            continue
        if any(own.get(name) not in (None, "", "none", "imagenet") for name in FILES):
            continue
        same = manifest["results_version"] == RESULTS_VERSION
        same &= all(manifest["settings"].get(name, value) == value for name, value in own.items())
        digests = {manifest_digest(found[need]) for need in task.needs}
        if same and digests <= set(manifest["inputs"].values()):
            found[task.place] = manifest
    return found


def tidy(storage: Storage, plan: Plan, known: Container[str]) -> None:
    """Delete what killed jobs have left at the places `known` to be done: checkpoints and half-written files."""
    for key in (*storage.list(keys.run(plan.run)), *storage.list(keys.pretrained(""))):
        place, found, _ = key.partition(f"/{CHECKPOINTS}/")
        if found and place in known:
            storage.delete(key)
    for task in plan.tasks:
        if task.place in known:
            storage.tidy(task.place)


def seconds(storage: Storage, plan: Plan, known: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return estimates in seconds for the tasks that are not done, by place, from similar tasks if there are any.

    `known` are the manifests of this run's tasks. Similar tasks are searched in this run, and in the run of the
    dataset's champion.
    """
    manifests = dict(known)
    record = champion.stored_record(storage, plan.name)
    if record:
        report = read_manifest(storage, keys.report(champion.parse_record(record, plan.name).champion.run)) or {}
        for place in report.get("inputs", {}):
            manifests.setdefault(place, read_manifest(storage, place) or {})
    took: dict[str, list[float]] = {}
    for manifest in manifests.values():
        if manifest and manifest["job"] in JOBS and "seconds" in manifest:
            took.setdefault(_kind(manifest["job"], manifest["settings"]), []).append(manifest["seconds"])
    found = {}
    for task in plan.tasks:
        if task.place not in known:
            several = sorted(took.get(_kind(task.job, settings_of(plan, task).result()), ()))
            if several:
                found[task.place] = several[len(several) // 2]
    return found


def _kind(job: str, settings: Mapping[str, Any]) -> str:
    """Return a digest that is equal for tasks of about the same duration."""
    kind = JOBS[job].settings.model_fields
    counts = {"network", "regime"} | kind.keys() - keys.PLACES - {"name", "part", "first", "healthy"}
    return digest([job, {name: value for name, value in settings.items() if name in counts}])


def in_words(amount: float) -> str:
    """Return seconds as readable text: `40 s`, `12 min`, `3 h 20 min`."""
    minutes = round(amount / 60)
    if minutes < 2:
        return f"{amount:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


# ---- the job ---------------------------------------------------------------------------------------------------------


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
