"""Real images, synthetic ones or both -> a classifier, and what it says about the real images it never saw.

Reads   datasets/<id>/ and, where the regime needs them, runs/<run>/fold-K/<class>/synthetic/ of every class;
        phantoms/<image size>-<count>/ and pretrained/<network>-<digest>/ with --healthy, which are made if they are
        not there.
Writes  runs/<run>/fold-K/classifiers/<network>-<regime>-seed-<seed>/: classifier.safetensors, history.csv,
        predictions.csv (not for fold `all`, which holds nothing out), manifest.json; phantoms.csv, what the weights
        it started from say of the same images, where they were learned from phantoms.
"""

import logging
from collections import Counter
from typing import TYPE_CHECKING, Literal

from jobs import pretrain
from jobs.classifier import healthy
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.files import file_digest, local_file
from jobs.common.seeds import derive
from jobs.common.settings import NAME, CheckpointSettings, ExecutionSettings, StorageSettings, setting
from jobs.common.step import Step, manifest_digest
from jobs.common.storage import open_storage
from jobs.pretrain import NetworkSettings, PretrainSettings

if TYPE_CHECKING:
    import numpy as np

    from jobs.classifier.predictions import Predictions
    from jobs.mri.dataset import Dataset, Row
    from jobs.mri.synthetic import Part

log = logging.getLogger("mrigan.train-classifier")


class ClassifierSettings(NetworkSettings):
    """How a classifier is trained, whatever it is trained on."""

    classifier_weights: str = setting(
        "none",
        "initial weights: none (random), imagenet (downloaded), or a Keras .h5 file (path or s3://) of the network "
        "without top",
    )
    classifier_epochs: int = setting(20, "epochs of a classifier", unit="epochs", ge=1)
    classifier_learning_rate: float = setting(0.003, "peak learning rate of AdamW", gt=0)
    classifier_augmentation: bool = setting(
        True, "turn, scale, shear, shift, mirror, re-expose, cover and mix the training images"
    )
    healthy: str = setting(
        "",
        "class of the heads without a lesion, auto: the one called no, normal, healthy or alike; classifiers then "
        "learn phantoms, drawn heads without and with one, first alone and later in half of each batch; empty: no "
        "phantoms",
    )


class TrainClassifierSettings(ClassifierSettings, StorageSettings, ExecutionSettings, CheckpointSettings):
    """What train-classifier can be told."""

    dataset: str = setting(..., "dataset's id: preprocess prints it", result=False, pattern=NAME)
    run: str = setting(..., "name of the run that this classifier belongs to", result=False, pattern=NAME)
    fold: int | Literal["all"] = setting(..., "fold whose images are held out; all: none are")
    network: Literal["resnet152v2", "mobilenetv2"] = setting("mobilenetv2", "network of keras.applications")
    regime: Literal["synthetic", "real", "real+synthetic"] = setting(
        "real",
        "which images change the weights; real+synthetic: synthetic ones in a third of the steps, then real ones",
    )
    control: Literal["none", "permuted", "leaky"] = setting(
        "none", "wrong on purpose: labels permuted by group, or folds that ignore groups; regime real only"
    )
    seed: int = setting(0, "where all randomness comes from", ge=0)


def run(settings: TrainClassifierSettings) -> Step:
    """Train the classifier unless it is there; return its step.

    Raises UserError for settings that do not go together, a fold or class without images, synthetic images that were
    not made, weights that do not fit, and a loss that is not finite; Interrupted after a signal and a checkpoint.
    """
    if settings.control != "none" and (settings.regime != "real" or settings.fold == "all"):
        raise UserError(f"--control {settings.control} goes with --regime real and a fold that is held out")

    from jobs.mri import negative_controls, phantoms, synthetic
    from jobs.mri.dataset import open_dataset

    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    settings = settings.model_copy(update={"healthy": healthy.resolve(settings.healthy, dataset.labels)})
    generated = [] if settings.regime == "real" else synthetic.find(storage, dataset, settings.run, settings.fold)
    drawn = phantoms.make(storage, dataset.image_size, settings.phantoms) if settings.healthy else None
    pretrained = None
    if starts_from_phantoms(settings):
        pretrained = pretrain.run(PretrainSettings.of(settings, image_size=dataset.image_size))
    regime = keys.controlled(settings.regime, settings.control)
    augmentation = _augmentation(settings)
    step = Step(
        storage,
        keys.classifier(settings.run, settings.fold, settings.network, regime, settings.seed),
        job="train-classifier",
        settings=settings.result(),
        inputs={
            "dataset": dataset.digest,
            **{part.name: manifest_digest(part.manifest) for part in generated},
            **({"phantoms": drawn.digest} if drawn else {}),
            **({"pretrained": pretrained.digest} if pretrained else {}),
            **_weights_digest(settings.classifier_weights),
            **pretrain.STARTS[settings.network],
            **({"images augmented": str(augmentation)} if 0 < augmentation < 1 else {}),
            **({"learned": "by heart"} if settings.control == "permuted" else {}),
        },
        shared=True,
    )
    if step.finished():
        log.info("%s is there: nothing to do", step.prefix)
        return step
    step.forget()
    dataset = negative_controls.apply(settings.control, dataset, settings.seed)
    _train(settings, step, dataset, generated, drawn, pretrained, augmentation)
    return step


def starts_from_phantoms(settings: ClassifierSettings) -> bool:
    """Return whether these classifiers start from weights that `pretrain` learned."""
    return bool(settings.healthy and settings.phantom_epochs and settings.classifier_weights == "none")


def _augmentation(settings: TrainClassifierSettings) -> float:
    """Return to what strength augmentation grows, 0 to 1."""
    # What says nothing can only be learned by heart, and without that a copy among the held-out images stays unseen:
    # permuted labels are learned from the plain images alone.
    if settings.control == "permuted" or not settings.classifier_augmentation:
        return 0.0
    return pretrain.AUGMENTATION[settings.network] if starts_from_phantoms(settings) else 1.0


def _train(
    settings: TrainClassifierSettings,
    step: Step,
    dataset: "Dataset",
    generated: "list[Part]",
    drawn: Step | None,
    pretrained: Step | None,
    augmentation: float,
) -> None:
    from jobs.common.hardware import configure

    # Before anything loads TensorFlow, which would greet between the lines of the log.
    hardware = configure(settings, depthwise=settings.network == "mobilenetv2")

    import numpy as np

    from jobs.classifier import batches, networks, training
    from jobs.classifier.predictions import write_predictions
    from jobs.common.checkpoint import Checkpoints
    from jobs.mri import phantoms, synthetic

    # -- images --------------------------------------------------------------------------------------------------
    real = dataset.training(settings.fold)
    counts = Counter(row.label for row in real)
    frequencies = np.array([counts[label] / len(real) for label in dataset.labels])
    rows = dataset.held_out(settings.fold)
    held_out = batches.Images(dataset.pixels(rows), _indices(dataset, rows)) if rows else None
    pools = []
    if generated:
        pools.append(batches.Images(*synthetic.read(step.storage, dataset, generated)))
    if settings.regime != "synthetic":
        pools.append(batches.Images(dataset.pixels(real), _indices(dataset, real)))
    by_heart = settings.control == "permuted"
    heads = None
    if drawn and not by_heart:
        heads = batches.Phantoms(*phantoms.read(drawn), dataset.labels.index(settings.healthy))

    # -- training ------------------------------------------------------------------------------------------------
    architecture = networks.Architecture(
        settings.network, dataset.labels, dataset.image_size, settings.classifier_stem_stride
    )
    weights = settings.classifier_weights
    if weights not in ("none", "imagenet"):
        weights = str(local_file("--classifier-weights", weights))
    initial = networks.initial_weights(architecture, weights, derive(settings.seed, "weights"))
    if pretrained:
        start = pretrained.read(pretrain.WEIGHTS)
        initial = networks.with_backbone_of(start, initial)
    recipe = training.Recipe(
        epochs=settings.classifier_epochs,
        steps_per_epoch=settings.classifier_steps_per_epoch,
        batch=settings.classifier_batch,
        learning_rate=settings.classifier_learning_rate,
        augmentation=augmentation,
        seed=settings.seed,
    )
    what = f"fold {settings.fold}, {step.prefix.rpartition('/')[2]}"
    log.info("%s: learns %s images", what, ", then ".join(str(len(pool.labels)) for pool in pools))
    with Checkpoints(step, settings.checkpoint_steps, settings.checkpoint_seconds) as checkpoints:
        model, history = training.train(
            architecture,
            initial,
            pools,
            frequencies,
            held_out,
            recipe,
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
            # The report must speak of the very thing that `predict` uses, on whatever machine.
            model, _ = networks.load_classifier(stored)
        probabilities = networks.predict(model, held_out.pixels)
        step.write("predictions.csv", write_predictions(_predictions(dataset, rows, probabilities)))
        if pretrained and heads:
            # What phantoms alone teach, to compare with.
            lesions = networks.predict(networks.load_classifier(start)[0], held_out.pixels)
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
        **({"learned": _share_right(networks.predict(model, pools[0].pixels), pools[0].labels)} if by_heart else {}),
        # For the report's cost: whoever reports has the classifiers, not always what they started from.
        **({"pretraining_seconds": pretrained.manifest["seconds"]} if pretrained else {}),
    )
    checkpoints.clear()


def _selection(settings: TrainClassifierSettings) -> str:
    """In a sentence for the report: on which images anything was chosen."""
    text = (
        f"Every classifier took all {settings.classifier_epochs} epochs and its averaged weights were kept: no image "
        "chose anything, and the held-out images only draw a curve."
    )
    if settings.healthy and settings.control != "permuted":
        text += (
            " Half of each batch, in every regime, are phantoms: drawn heads, in which there is nothing of any image."
        )
    if settings.regime == "synthetic":
        text += (
            " Of classifiers that learned from synthetic images alone, real images changed no weight, but those of the "
            "generators."
        )
    return text


# -- inputs and outputs --------------------------------------------------------------------------------------


def _weights_digest(weights: str) -> dict[str, str]:
    """The digest of a file of weights: its path does not say what is in it."""
    return {} if weights in ("none", "imagenet") else {"weights": file_digest("--classifier-weights", weights)}


def _indices(dataset: "Dataset", rows: list["Row"]) -> "np.ndarray":
    """The class indices of rows, int64 [n]."""
    import numpy as np

    number = {label: index for index, label in enumerate(dataset.labels)}
    return np.array([number[row.label] for row in rows], np.int64)


def _share_right(probabilities: "np.ndarray", labels: "np.ndarray") -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _predictions(dataset: "Dataset", rows: list["Row"], probabilities: "np.ndarray") -> "Predictions":
    from jobs.classifier.predictions import Predictions

    return Predictions(
        ids=[row.id for row in rows],
        groups=[row.group for row in rows],
        folds=[str(row.fold) for row in rows],
        labels=list(dataset.labels),
        truth=_indices(dataset, rows),
        probabilities=probabilities,
    )
