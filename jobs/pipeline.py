"""All jobs in the workflow's order, on this machine: from folders of MRI to a promoted classifier and its report.

    preprocess -> for each fold: train-gan, generate for each class; train-classifier for each network and regime
               -> evaluate -> promote

What is already in storage is not done again; a pipeline that was stopped anywhere goes on where it was.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from jobs import evaluate, generate, preprocess, pretrain, promote, train_classifier, train_gan
from jobs.classifier import healthy
from jobs.common import activity, keys, logs
from jobs.common.errors import UserError
from jobs.common.files import local_file
from jobs.common.settings import NAME, CheckpointSettings, ExecutionSettings, Settings, setting
from jobs.common.step import RESULTS_VERSION, Step, digest
from jobs.evaluate import EvaluateSettings, EvaluationSettings
from jobs.gan import IMAGE_SIZES
from jobs.generate import GenerateSettings, SyntheticSettings
from jobs.preprocess import PreprocessSettings
from jobs.promote import PromoteSettings, PromotionSettings
from jobs.train_classifier import ClassifierSettings, TrainClassifierSettings
from jobs.train_gan import GanSettings, TrainGanSettings

log = logging.getLogger("mrigan.pipeline")

Classifier = dict[str, Any]


class RecipeSettings(GanSettings, SyntheticSettings, ClassifierSettings, ExecutionSettings):
    """How a classifier is made, whatever it is made from."""


class PipelineSettings(RecipeSettings, EvaluationSettings, PromotionSettings, PreprocessSettings, CheckpointSettings):
    """What pipeline can be told: the settings of its jobs."""

    name: str = setting(
        "",
        "dataset's name, under which its champion is kept; empty: that of the data's folder",
        result=False,
        pattern=f"^$|{NAME}",
    )


P = TypeVar("P", bound=PipelineSettings)

PRESET_COSTS = {
    "demo": "32 px, 2 folds, MobileNetV2: three minutes on 2 cores; shows the way, teaches little",
    "quick": "64 px, 2 folds, MobileNetV2: under an hour on 2 cores for 250 images; a first impression",
    "recipe": "64 px, 5 folds, MobileNetV2: as in docs/results.md; 2.5 hours of one core",
    "full": "128 px, 5 folds, both networks, 3 seeds, controls: for a GPU; not measured",
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "image_size": 32,
        "folds": 2,
        "networks": ("mobilenetv2",),
        "gan_width": 16,
        "gan_epochs": 120,
        "sample_every": 40,
        "synthetic_count": 128,
        "classifier_epochs": 6,
        "classifier_steps_per_epoch": 20,
    },
    "quick": {
        "image_size": 64,
        "folds": 2,
        "networks": ("mobilenetv2",),
        "gan_width": 16,
        "gan_epochs": 500,
        "synthetic_count": 500,
        "classifier_epochs": 15,
        "classifier_steps_per_epoch": 60,
    },
    "recipe": {
        "image_size": 64,
        "folds": 5,
        "networks": ("mobilenetv2",),
        "gan_conditional": True,
        "gan_width": 16,
        "gan_epochs": 400,
        "sample_every": 200,
        "synthetic_count": 2000,
        "classifier_epochs": 12,
        "classifier_steps_per_epoch": 100,
        "classifier_learning_rate": 1e-3,
        "healthy": healthy.AUTO,
    },
    "full": {
        "image_size": 128,
        "folds": 5,
        "networks": ("mobilenetv2", "resnet152v2"),
        "seeds": 3,
        "controls": True,
        "synthetic_count": 2000,
        "classifier_epochs": 50,
    },
}


def run(settings: PipelineSettings) -> Step:
    """Do what is not yet done; return the report's step.

    Raises what the jobs raise; whatever was finished before stays, and the next run goes on from there.
    """
    dataset, name, settings = prepare(settings)
    activity.note(dataset.storage, name, "began")
    steps = [dataset]
    folds = range(settings.folds)
    steps += train(settings, dataset, folds, classifiers(settings, settings.networks, settings.regimes))
    if settings.controls:
        steps += train(settings, dataset, folds, controls(settings))
    report = evaluate.run(EvaluateSettings.of(settings, **place(settings, dataset), name=name))
    steps.append(report)
    promote.run(PromoteSettings.of(settings, **place(settings, dataset), name=name))

    if all(step.reused for step in steps):
        log.info("everything was there already: nothing was computed again")
    return report


def prepare(settings: P) -> tuple[Step, str, P]:
    """Return the dataset's step, its name, and the settings as this dataset resolves them.

    The dataset is prepared if it was not.

    Raises UserError for whatever would stop a later job: better known before training.
    """
    if set(settings.regimes) != {"real"} and settings.image_size not in IMAGE_SIZES:
        raise UserError(
            f"--image-size: generators draw {', '.join(map(str, IMAGE_SIZES))} pixels; or use --regimes real"
        )
    if settings.classifier_weights not in ("none", "imagenet"):
        local_file("--classifier-weights", settings.classifier_weights)
    if settings.feature_weights:
        local_file("--feature-weights", settings.feature_weights)
    name = settings.name or name_of_folder(settings.data)
    dataset = preprocess.run(PreprocessSettings.of(settings))
    labels = sorted(dataset.facts["labels"])
    settings = resolved(settings, labels)
    if _is_rate_after_phantoms(settings) and not train_classifier.starts_from_phantoms(settings):
        log.warning(
            "--classifier-learning-rate %g is low for a MobileNetV2 that starts from random weights: give 0.003, or "
            "--healthy CLASS, that without lesions (of %s), and it learns phantoms first",
            settings.classifier_learning_rate,
            ", ".join(labels),
        )
    promote.check(dataset.storage, name, labels, settings.test)
    if settings.healthy:
        from jobs.mri import phantoms

        # Here, because pods that train side by side would each draw them.
        phantoms.make(dataset.storage, settings.image_size, settings.phantoms)
    return dataset, name, settings


def resolved(settings: P, labels: Iterable[str]) -> P:
    """Return `settings` with the class itself where `healthy` is `auto`: the run of either has the same name.

    Where no class is the one without lesions by its name, a rate for networks that know phantoms is replaced. Raises
    UserError if `healthy` is no class.
    """
    found = healthy.resolve(settings.healthy, labels)
    changes: dict[str, Any] = {"healthy": found}
    if settings.healthy and not found and _is_rate_after_phantoms(settings):
        changes["classifier_learning_rate"] = pretrain.LEARNING_RATES["mobilenetv2"]
        log.info("classifier learning rate: %g, without phantoms", changes["classifier_learning_rate"])
    return settings.model_copy(update=changes)


def _is_rate_after_phantoms(settings: PipelineSettings) -> bool:
    """Return whether the classifiers' rate is low for a MobileNetV2 that starts from random weights."""
    mobilenet = "mobilenetv2" in settings.networks and settings.classifier_weights == "none"
    return mobilenet and settings.classifier_learning_rate == PRESETS["recipe"]["classifier_learning_rate"]


def name_of_folder(data: str) -> str:
    """Return the last part of a folder's path or an S3 prefix, spelled so that it can be part of a key."""
    last = data.rstrip("/").rpartition("/")[2] if data.startswith("s3://") else Path(data).resolve().name
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "data"


def name_of_run(dataset: Step, settings: PipelineSettings) -> str:
    """Return the run's name: the digest of the dataset's id, the recipe's settings, the seed and the results version.

    Which networks, regimes and seeds are carried out is not in it: a run grows when more of them are asked for.
    """
    recipe = RecipeSettings.of(settings).result()
    return digest([dataset_id(dataset), recipe, settings.seed, RESULTS_VERSION])[:12]


def place(settings: PipelineSettings, dataset: Step) -> dict[str, str]:
    """Return the settings that say where a run lies: `dataset` and `run`."""
    return {"dataset": dataset_id(dataset), "run": name_of_run(dataset, settings)}


# -- what a fold's fan-out is ----------------------------------------------------------------------------------


def classifiers(
    settings: PipelineSettings, networks: Sequence[str], regimes: Sequence[str], control: str = "none"
) -> list[Classifier]:
    """Return the classifiers that each fold trains, as settings of train-classifier, one for each seed."""
    seeds = range(settings.seed, settings.seed + settings.seeds)
    return [
        {"network": network, "regime": regime, "control": control, "seed": seed}
        for network, regime, seed in product(networks, regimes, seeds)
    ]


def controls(settings: PipelineSettings) -> list[Classifier]:
    """Return the classifiers that are wrong on purpose: of one seed, for they are checks and no figures to publish."""
    wrong = {"network": settings.networks[0], "regime": "real", "seed": settings.seed}
    return [wrong | {"control": kind} for kind in ("permuted", "leaky")]


def generators(settings: PipelineSettings, dataset: Step, wanted: Sequence[Classifier]) -> list[str]:
    """Return the labels of the GANs that each fold trains for these classifiers: none if all learn from real images."""
    if all(one["regime"] == "real" for one in wanted):
        return []
    return [keys.CLASS_CONDITIONAL] if settings.gan_conditional else list(dataset.facts["labels"])


def pretrained(settings: PipelineSettings, wanted: Sequence[Classifier]) -> list[str]:
    """Return the networks that learn phantoms first for these classifiers: none if they start from other weights."""
    if not train_classifier.starts_from_phantoms(settings):
        return []
    return list(dict.fromkeys(one["network"] for one in wanted))


# -- the jobs of a fold ----------------------------------------------------------------------------------------


def train(
    settings: PipelineSettings, dataset: Step, folds: Iterable[int | str], wanted: Sequence[Classifier]
) -> Iterator[Step]:
    """Yield the steps of every fold: generators and their images where a regime needs them, then the classifiers."""
    for fold in folds:
        yield from draw(settings, dataset, fold, wanted)
        where = place(settings, dataset) | {"fold": fold}
        for one in wanted:
            yield _run("train-classifier", train_classifier, TrainClassifierSettings.of(settings, **where, **one))


def draw(settings: PipelineSettings, dataset: Step, fold: int | str, wanted: Sequence[Classifier]) -> Iterator[Step]:
    """Yield the steps of a fold's generators and their images: none if the classifiers learn from real images alone."""
    where = place(settings, dataset) | {"fold": fold}
    labels = generators(settings, dataset, wanted)
    for label in labels:
        yield _run("train-gan", train_gan, TrainGanSettings.of(settings, **where, label=label))
    for label in dataset.facts["labels"] if labels else ():
        yield _run("generate", generate, GenerateSettings.of(settings, **where, label=label))


def _run(job: str, module: ModuleType, settings: Settings) -> Step:
    with logs.about(job, settings):
        return module.run(settings)


def dataset_id(dataset: Step) -> str:
    """Return the id of the dataset that a step of preprocess prepared."""
    return dataset.prefix.rpartition("/")[2]
