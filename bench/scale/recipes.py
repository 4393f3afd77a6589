"""The seconds of each task of a plan, from laws of growth and the numbers of steps and images in the settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.scale.growth import Law
from jobs import declaration
from jobs.classifier import healthy
from jobs.declaration import Task
from jobs.gan import training
from jobs.phantoms import learning
from jobs.settings import PipelineSettings


class Recipe(NamedTuple):
    """A run: how it is called, its images in all classes, its classes, and its settings."""

    name: str
    images: int
    classes: int
    settings: PipelineSettings

    def tasks(self) -> list[Task]:
        """Return the tasks after preprocess."""
        labels = ["healthy", *(f"lesion-{number}" for number in range(1, self.classes))]
        return declaration.tasks(self.settings, "dataset", labels, "run", "name")


def recipe(name: str, images: int, classes: int = 2, **settings: Any) -> Recipe:
    """Return a recipe with the defaults and these settings."""
    asked = PipelineSettings(data="x", healthy="healthy", **settings)
    return Recipe(name, images, classes, healthy.resolved(asked, ["healthy"]))


def seconds(of: Recipe, laws: Mapping[str, Law]) -> dict[str, float]:
    """Return the seconds of each task by place, and of preprocess by `preprocess`, on one core."""
    settings, pixels = of.settings, of.settings.image_size
    found = {"preprocess": laws["preprocess"].at(images=of.images, pixels=pixels, classes=of.classes)}
    training_images = of.images * (settings.folds - 1) / settings.folds
    for task in of.tasks():
        found[task.place] = _seconds(task, of, laws, training_images)
    return found


def _seconds(task: Task, of: Recipe, laws: Mapping[str, Law], images: float) -> float:
    """Return the seconds of a task; `images` are those that a fold is trained on."""
    settings, pixels = of.settings, of.settings.image_size
    steps = settings.classifier_steps_per_epoch
    if task.job == "draw-phantoms":
        parts = -(-settings.phantoms // learning.PART)
        return laws["draw-phantoms"].at(count=settings.phantoms / parts, pixels=pixels)
    if task.job == "train-gan":
        own = images if settings.gan_conditional else images / of.classes
        per_epoch = training.steps_per_epoch(round(own), settings.gan_batch)
        return laws["train-gan step"].at(settings.gan_epochs * per_epoch, pixels=pixels)
    if task.job == "generate":
        return laws["generate"].at(count=settings.synthetic_count, pixels=pixels, images=images)
    if task.job == "pretrain":
        return laws[f"{task.settings['network']} step"].at(settings.phantom_epochs * steps, pixels=pixels)
    if task.job == "train-classifier":
        law, predict = laws[f"{task.settings['network']} step"], laws["predict"]
        held_out = predict.at(count=of.images - images, pixels=pixels) - predict.start
        # Only MobileNetV2 predicts in the series: as much longer as a step takes.
        ours, theirs = (one.at(pixels=pixels) - one.start for one in (law, laws["mobilenetv2 step"]))
        return law.at(settings.classifier_epochs * steps, pixels=pixels) + held_out * ours / theirs
    if task.job == "evaluate":
        return laws["evaluate"].at(
            images=of.images,
            classes=of.classes,
            folds=settings.folds,
            seeds=settings.seeds,
            networks=len(settings.networks),
        )
    return laws["promote"].at(images=of.images)


def by_job(of: Recipe, found: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of all tasks of each job."""
    total = {"preprocess": found["preprocess"]}
    for task in of.tasks():
        total[task.job] = total.get(task.job, 0.0) + found[task.place]
    return total
