"""Train a classifier on real images, synthetic images or both, and classify the held-out real images.

Reads   datasets/<id>/ and, if the regime needs them, runs/<run>/fold-K/<class>/synthetic/ of every class;
        with --healthy phantoms/<image size>/ and, unless the package has the weights, pretrained/<network>-<digest>/.
Writes  runs/<run>/fold-K/classifiers/<network>-<regime>-seed-<seed>/: classifier.safetensors, history.csv,
        predictions.csv (not for fold `all`, which has no held-out images), manifest.json; if the initial weights were
        pretrained on phantoms: phantoms.csv, the predictions of these weights for the same images.
"""

import logging
from collections import Counter

import numpy as np

from jobs.classifier import batches, healthy, networks, starting, training
from jobs.classifier.predictions import Predictions, of_rows, write_predictions
from jobs.common import keys
from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import UserError
from jobs.common.files import file_digest, local_file
from jobs.common.hardware import Hardware, configure
from jobs.common.seeds import derive
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.gan import synthetic
from jobs.mri import negative_controls
from jobs.mri.dataset import Dataset, Row, open_dataset
from jobs.phantoms import learning
from jobs.settings import PretrainSettings, TrainClassifierSettings

log = logging.getLogger("mrigan.train-classifier")


def run(settings: TrainClassifierSettings) -> Step:
    """Train the classifier unless it exists; return its step.

    Raises UserError for contradictory settings, a fold or class without images, missing synthetic images, weights that
    do not fit, and a loss that is not finite; Interrupted after a signal and a checkpoint.
    """
    if settings.control != "none" and (settings.regime != "real" or settings.fold == "all"):
        raise UserError(f"--control {settings.control} requires --regime real and a fold with held-out images")

    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    settings = healthy.resolved(settings, dataset.labels)
    generated = []
    if settings.regime != "real":
        generated = synthetic.find_images(storage, dataset.step, dataset.labels, settings.run, settings.fold)
    drawn = learning.drawn(storage, dataset.image_size, settings.phantoms) if settings.healthy else []
    kind = networks.NETWORKS[settings.network]
    pretrained = None
    if starting.is_used(settings.healthy, settings.phantom_epochs, settings.classifier_weights):
        pretrained = starting.start(storage, PretrainSettings.of(settings, image_size=dataset.image_size))
    regime = keys.controlled(settings.regime, settings.control)
    # The path of a weights file does not identify its content.
    weights, weights_digest = settings.classifier_weights, {}
    if weights not in ("none", "imagenet"):
        weights_digest["weights"] = file_digest("--classifier-weights", weights)
    # Permuted labels can only be memorized, and copies among the held-out images can only be detected if they are.
    # Memorization needs images without augmentation.
    augmentation = kind.phantom_augmentation if pretrained else 1.0
    if settings.control == "permuted" or not settings.classifier_augmentation:
        augmentation = 0.0
    hardware = configure(settings, depthwise=kind.depthwise)
    step = Step(
        storage,
        keys.classifier(settings.run, settings.fold, settings.network, regime, settings.seed),
        job="train-classifier",
        settings=settings.result() | {"augmentation": augmentation},
        inputs={
            "dataset": dataset.digest,
            **{_name(part): part.digest for part in generated},
            **{part.prefix: part.digest for part in drawn},
            **({"pretrained": pretrained.digest} if pretrained else {}),
            **weights_digest,
        },
        arithmetic=hardware.arithmetic(),
        restart=settings.other_arithmetic == "restart",
        shared=True,
    )
    if step.finished():
        log.info("%s exists: nothing to do", step.prefix)
        return step
    if not step.take():
        return step
    dataset = negative_controls.apply(settings.control, dataset, settings.seed)
    _train(settings, step, dataset, generated, drawn, pretrained, augmentation, hardware)
    return step


def _name(part: Step) -> str:
    """Return the prefix of synthetic images relative to the fold, the same in every run."""
    return part.prefix.partition("/fold-")[2].partition("/")[2]


def _train(
    settings: TrainClassifierSettings,
    step: Step,
    dataset: Dataset,
    generated: list[Step],
    drawn: list[Step],
    pretrained: starting.Start | None,
    augmentation: float,
    hardware: Hardware,
) -> None:
    # -- images --------------------------------------------------------------------------------------------------
    real = dataset.training(settings.fold)
    counts = Counter(row.label for row in real)
    frequencies = np.array([counts[label] / len(real) for label in dataset.labels])
    rows = dataset.held_out(settings.fold)
    held_out = batches.Images(dataset.pixels(rows), _indices(dataset, rows)) if rows else None
    pools = []
    if generated:
        pools.append(batches.Images(*synthetic.read_images(generated, dataset.image_size)))
    if settings.regime != "synthetic":
        pools.append(batches.Images(dataset.pixels(real), _indices(dataset, real)))
    by_heart = settings.control == "permuted"
    heads = None
    if drawn and not by_heart:
        heads = batches.Phantoms(*learning.read_phantoms(drawn), dataset.labels.index(settings.healthy))

    # -- training ------------------------------------------------------------------------------------------------
    architecture = networks.Architecture(settings.network, dataset.labels, dataset.image_size)
    weights = settings.classifier_weights
    if weights not in ("none", "imagenet"):
        weights = str(local_file("--classifier-weights", weights))
    initial = networks.initial_weights(architecture, weights, derive(settings.seed, "weights"))
    if pretrained:
        initial = networks.with_backbone_of(pretrained.data, initial)
    hyperparameters = training.Hyperparameters(
        epochs=settings.classifier_epochs,
        steps_per_epoch=settings.classifier_steps_per_epoch,
        batch=settings.classifier_batch,
        learning_rate=settings.classifier_learning_rate,
        augmentation=augmentation,
        seed=settings.seed,
    )
    what = f"fold {settings.fold}, {step.prefix.rpartition('/')[2]}"
    log.info("%s: training on %s images", what, ", then ".join(str(len(pool.labels)) for pool in pools))
    with Checkpoints(step, settings.checkpoint_steps, settings.checkpoint_seconds) as checkpoints:
        model, history = training.train(
            architecture,
            initial,
            pools,
            frequencies,
            held_out,
            hyperparameters,
            checkpoints,
            phantoms=heads,
            precision=hardware.precision,
            xla=hardware.xla,
        )

    # -- outputs -------------------------------------------------------------------------------------------------
    stored = networks.save_classifier(model, architecture)
    step.write("classifier.safetensors", stored)
    step.write("history.csv", training.history_csv(history))
    if held_out:
        if hardware.precision != "float32":
            # Predictions come from the stored classifier, so that the report covers the model that `predict` uses.
            model, _ = networks.load_classifier(stored)
        probabilities = networks.predict(model, held_out.pixels)
        step.write("predictions.csv", write_predictions(_predictions(dataset, rows, probabilities)))
        if pretrained and heads:
            # The predictions of the pretrained weights are a control in the report.
            lesions = networks.predict(networks.load_classifier(pretrained.data)[0], held_out.pixels)
            probabilities = lesions @ batches.meanings(frequencies, heads.healthy)
            step.write("phantoms.csv", write_predictions(_predictions(dataset, rows, probabilities)))
    step.finish(
        hardware=hardware.record(),
        labels=list(dataset.labels),
        images={
            "training_real": len(real) if settings.regime != "synthetic" else 0,
            "training_synthetic": len(pools[0].labels) if settings.regime != "real" else 0,
            "held_out": len(rows),
        },
        selection=_selection(settings),
        parameters=networks.parameter_count(model),
        **(
            {"learned": training.loss_and_accuracy(networks.predict(model, pools[0].pixels), pools[0].labels)[1]}
            if by_heart
            else {}
        ),
        # For the computing time in the report: the pretrained weights may no longer exist then.
        **({"pretraining_seconds": pretrained.seconds} if pretrained else {}),
    )
    checkpoints.clear()


def _selection(settings: TrainClassifierSettings) -> str:
    """Return sentences for the report that state which images were used for model selection."""
    text = (
        f"Every classifier was trained for all {settings.classifier_epochs} epochs, and its averaged weights were "
        "kept: no image was used for model selection, and the held-out images only give a loss curve."
    )
    if settings.healthy and settings.control != "permuted":
        text += (
            " In every regime, half of each batch consists of phantoms: drawn heads that contain no data of any image."
        )
    if settings.regime == "synthetic":
        text += (
            " For classifiers trained on synthetic images alone, real images were only used to train the generators."
        )
    return text


# -- inputs and outputs --------------------------------------------------------------------------------------


def _indices(dataset: Dataset, rows: list[Row]) -> np.ndarray:
    """The class indices of rows, int64 [n]."""
    return np.array([dataset.labels.index(row.label) for row in rows], np.int64)


def _predictions(dataset: Dataset, rows: list[Row], probabilities: np.ndarray) -> Predictions:
    return of_rows(rows, dataset.labels, _indices(dataset, rows), probabilities)
