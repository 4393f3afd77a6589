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
from typing import Any

from jobs import evaluate, generate, preprocess, promote, train_classifier, train_gan
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.settings import NAME, ExecutionSettings, setting, validate
from jobs.common.step import RESULTS_VERSION, Step, digest
from jobs.evaluate import EvaluateSettings, EvaluationSettings
from jobs.gan import IMAGE_SIZES
from jobs.generate import GenerateSettings, SyntheticSettings
from jobs.preprocess import PreprocessSettings
from jobs.promote import PromoteSettings, PromotionSettings
from jobs.train_classifier import ClassifierSettings, TrainClassifierSettings
from jobs.train_gan import GanSettings, TrainGanSettings

log = logging.getLogger("mrigan.pipeline")


class RecipeSettings(GanSettings, SyntheticSettings, ClassifierSettings, ExecutionSettings):
    """How a classifier is made, whatever it is made from."""


class PipelineSettings(RecipeSettings, EvaluationSettings, PromotionSettings, PreprocessSettings):
    """What pipeline can be told: the settings of its jobs."""

    name: str = setting(
        "",
        "dataset's name, under which its champion is kept; empty: that of the data's folder",
        result=False,
        pattern=f"^$|{NAME}",
    )


PRESET_COSTS = {
    "demo": "32 px, 2 folds, MobileNetV2: two minutes on 2 cores; shows the way, teaches little",
    "quick": "64 px, 2 folds, MobileNetV2: under an hour on 2 cores for 250 images; a first impression",
    "full": "128 px, 5 folds, both networks, 3 seeds, controls: for a GPU, not measured; figures to publish",
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
        "gan_width": 32,
        "gan_epochs": 500,
        "synthetic_count": 500,
        "classifier_epochs": 15,
        "classifier_steps_per_epoch": 60,
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
    if set(settings.regimes) != {"real"} and settings.image_size not in IMAGE_SIZES:
        raise UserError(
            f"--image-size: generators draw {', '.join(map(str, IMAGE_SIZES))} pixels; or use --regimes real"
        )
    weights = {"--classifier-weights": settings.classifier_weights, "--feature-weights": settings.feature_weights}
    for flag, path in weights.items():
        if path not in ("", "none", "imagenet") and not Path(path).is_file():
            raise UserError(f"{flag}: there is no file {path}")
    name = settings.name or _name_of_folder(settings.data)
    dataset = preprocess.run(PreprocessSettings.of(settings))
    promote.check(dataset.storage, name, sorted(dataset.facts["labels"]), settings.test)

    steps = [dataset]
    folds = range(settings.folds)
    steps += train(settings, dataset, folds, settings.networks, settings.regimes)
    if settings.controls:
        for fold, control in product(folds, ("permuted", "leaky")):
            steps += classify(settings, dataset, fold, settings.networks[0], "real", control)

    where = {"dataset": _id(dataset), "run": name_of_run(dataset, settings), "name": name}
    report = evaluate.run(EvaluateSettings.of(settings, **where))
    steps.append(report)

    promotion = PromoteSettings.of(settings, **where)
    if settings.final_model == "refit":
        challenger = promote.best_candidate(dataset.storage, promotion.dataset, promotion.run)
        steps += train(settings, dataset, ["all"], [challenger.network], [challenger.regime])
    rival = promote.rival(promotion)
    if rival is not None:
        log.info("the best recipe ever, %s %s, is trained on this data to be judged on it", rival.network, rival.regime)
        recipe = validate(PipelineSettings, settings.model_dump() | rival.settings)
        same = preprocess.run(PreprocessSettings.of(recipe))
        steps += train(recipe, same, folds, [rival.network], [rival.regime])
        promotion = promotion.model_copy(update={"rival_run": name_of_run(same, recipe)})
    promote.run(promotion)

    if all(step.reused for step in steps):
        log.info("everything was there already: nothing was computed again")
    return report


def _name_of_folder(data: str) -> str:
    """Return the last part of a folder's path or an S3 prefix, spelled so that it can be part of a key."""
    last = data.rstrip("/").rpartition("/")[2] if data.startswith("s3://") else Path(data).resolve().name
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "data"


def name_of_run(dataset: Step, settings: PipelineSettings) -> str:
    """Return the run's name: the digest of the dataset's id, the recipe's settings, the seed and the results version.

    Which networks, regimes and seeds are carried out is not in it: a run grows when more of them are asked for.
    """
    recipe = RecipeSettings.of(settings).result()
    return digest([_id(dataset), recipe, settings.seed, RESULTS_VERSION])[:12]


def train(
    settings: PipelineSettings,
    dataset: Step,
    folds: Iterable[int | str],
    networks: Sequence[str],
    regimes: Sequence[str],
) -> Iterator[Step]:
    """Yield the steps of every fold: generators and their images where a regime needs them, then the classifiers."""
    for fold in folds:
        if set(regimes) != {"real"}:
            yield from synthesize(settings, dataset, fold)
        for network, regime in product(networks, regimes):
            yield from classify(settings, dataset, fold, network, regime)


def synthesize(settings: PipelineSettings, dataset: Step, fold: int | str) -> Iterator[Step]:
    """Yield a fold's generators and, for each class, its synthetic images."""
    where = {"dataset": _id(dataset), "run": name_of_run(dataset, settings), "fold": fold}
    labels = list(dataset.facts["labels"])
    for label in [keys.CLASS_CONDITIONAL] if settings.gan_conditional else labels:
        yield train_gan.run(TrainGanSettings.of(settings, **where, label=label))
    for label in labels:
        yield generate.run(GenerateSettings.of(settings, **where, label=label))


def classify(
    settings: PipelineSettings, dataset: Step, fold: int | str, network: str, regime: str, control: str = "none"
) -> Iterator[Step]:
    """Yield a fold's classifiers of one network and regime, one for each seed."""
    where = {"dataset": _id(dataset), "run": name_of_run(dataset, settings), "fold": fold}
    which = {"network": network, "regime": regime, "control": control}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        yield train_classifier.run(TrainClassifierSettings.of(settings, **where, **which, seed=seed))


def _id(dataset: Step) -> str:
    return dataset.prefix.rpartition("/")[2]
