"""The tasks of a run: what each makes, from what, and where. One declaration for one machine and for Argo.

preprocess -> draw-phantoms -> pretrain -> for each fold: train-gan -> generate -> train-classifier
           -> evaluate -> promote
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from jobs.classifier import starting
from jobs.common import keys
from jobs.common.fields import validate
from jobs.common.step import RESULTS_VERSION, digest
from jobs.common.workers import Work
from jobs.phantoms import learning
from jobs.settings import (
    CONTROLS,
    JOBS,
    ClassifierSettings,
    ExecutionSettings,
    GanSettings,
    PretrainSettings,
    RunOfTasksSettings,
    SyntheticSettings,
)

ON_GPU = frozenset({"train-gan", "generate", "pretrain", "train-classifier"})


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
