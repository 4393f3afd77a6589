"""Phantoms -> the weights that classifiers start from: of a network that tells drawn heads with a lesion from others.

Reads   phantoms/<image size>-<count>/, which are drawn if they are not there.
Writes  pretrained/<network>-<digest of the settings>/: classifier.safetensors, history.csv, manifest.json.

train-classifier with --healthy does this itself if it was not done before; the workflow does it once for all folds.
"""

import logging
from typing import Literal

from jobs.common import keys
from jobs.common.seeds import derive
from jobs.common.settings import CheckpointSettings, ExecutionSettings, Settings, StorageSettings, setting
from jobs.common.step import RESULTS_VERSION, Step, digest
from jobs.common.storage import open_storage

log = logging.getLogger("mrigan.pretrain")

WEIGHTS = "classifier.safetensors"
LABELS = ("no lesion", "lesion")
LEARNING_RATES = {"mobilenetv2": 0.003, "resnet152v2": 0.001}  # what they bear from random weights
# Phantoms of any anatomy are various enough: under all of the augmentation a network needs several times the steps,
# and ResNet152V2's are dear. Classifiers that start from them go on at this strength (docs/quality.md).
AUGMENTATION = {"mobilenetv2": 1.0, "resnet152v2": 0.3}
# How a network starts: an input of its steps, so that those of the other network stay done when it changes.
STARTS = {
    "mobilenetv2": {},
    "resnet152v2": {"start": "residual branches at zero", "phantoms augmented": str(AUGMENTATION["resnet152v2"])},
}


class NetworkSettings(Settings):
    """What learning from phantoms and learning from images have in common."""

    classifier_steps_per_epoch: int = setting(100, "batches in an epoch, in every regime", unit="steps", ge=1)
    classifier_batch: int = setting(32, "images in a batch", unit="images", ge=2)
    classifier_stem_stride: int = setting(
        2, "stride of the first convolution; 1 keeps more detail of small images, at five times the cost", ge=1, le=2
    )
    phantoms: int = setting(8000, "drawn heads, half of them with a lesion; used with --healthy", unit="images", ge=2)
    phantom_epochs: int = setting(
        96, "epochs on phantoms alone before a classifier sees its images; used with --healthy", unit="epochs", ge=0
    )


class PretrainSettings(NetworkSettings, StorageSettings, ExecutionSettings, CheckpointSettings):
    """What pretrain can be told."""

    network: Literal["resnet152v2", "mobilenetv2"] = setting("mobilenetv2", "network of keras.applications")
    image_size: int = setting(64, "side of the square images", unit="pixels", ge=32, le=256)
    phantoms: int = setting(8000, "drawn heads, half of them with a lesion", unit="images", ge=2)
    phantom_epochs: int = setting(96, "epochs", unit="epochs", ge=1)


def run(settings: PretrainSettings) -> Step:
    """Train the network on phantoms unless that is done; return its step.

    Classifiers of every seed start from the same weights, as they would from downloaded ones. Raises UserError for a
    loss that is not finite, Interrupted after a signal and a checkpoint.
    """
    from jobs.mri import phantoms

    storage = open_storage(settings.storage)
    drawn = phantoms.make(storage, settings.image_size, settings.phantoms)
    name = f"{settings.network}-{digest([settings.result(), RESULTS_VERSION])[:12]}"
    step = Step(
        storage,
        keys.pretrained(name),
        job="pretrain",
        settings=settings.result(),
        inputs={"phantoms": drawn.digest} | STARTS[settings.network],
    )
    if step.finished():
        log.info("%s is there: nothing to do", step.prefix)
        return step
    step.forget()
    _train(settings, step, drawn)
    return step


def _train(settings: PretrainSettings, step: Step, drawn: Step) -> None:
    from jobs.common.hardware import configure

    # Before anything loads TensorFlow, which would greet between the lines of the log.
    hardware = configure(settings, depthwise=settings.network == "mobilenetv2")

    import numpy as np

    from jobs.classifier import networks, training
    from jobs.classifier.batches import Images
    from jobs.common.checkpoint import Checkpoints
    from jobs.mri import phantoms

    recipe = training.Recipe(
        epochs=settings.phantom_epochs,
        steps_per_epoch=settings.classifier_steps_per_epoch,
        batch=settings.classifier_batch,
        learning_rate=LEARNING_RATES[settings.network],
        augmentation=AUGMENTATION[settings.network],
        seed=0,
        remedy="set --precision float32, or give the pipeline --phantom-epochs 0",
    )
    architecture = networks.Architecture(settings.network, LABELS, settings.image_size, settings.classifier_stem_stride)
    log.info("%s: learns %d phantoms", settings.network, settings.phantoms)
    with Checkpoints(step, settings.checkpoint_steps, settings.checkpoint_seconds) as checkpoints:
        model, history = training.train(
            architecture,
            networks.initial_weights(architecture, "none", derive(recipe.seed, "weights")),
            [Images(*phantoms.read(drawn))],
            np.array([0.5, 0.5]),
            None,
            recipe,
            checkpoints,
            precision=hardware.precision,
            xla=hardware.xla,
        )
    step.write(WEIGHTS, networks.save_classifier(model, architecture))
    step.write("history.csv", training.history_csv(history))
    step.finish(hardware=hardware.record())
    checkpoints.clear()
