"""Pretrain a classifier on phantoms: train a network to distinguish drawn heads with and without a lesion.

Reads   phantoms/<image size>/, written by draw-phantoms.
Writes  pretrained/<network>-<digest of the settings>/: classifier.safetensors, history.csv, manifest.json.
"""

import logging

import numpy as np

from jobs.classifier import networks, starting, training
from jobs.classifier.batches import Images
from jobs.common.checkpoint import Checkpoints
from jobs.common.hardware import configure
from jobs.common.seeds import derive
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.phantoms import learning
from jobs.settings import PretrainSettings

log = logging.getLogger("mrigan.pretrain")


def run(settings: PretrainSettings) -> Step:
    """Train the network on phantoms unless that is done; return its step.

    Classifiers of all seeds start from the same pretrained weights. Raises UserError for a loss that is not finite,
    Interrupted after a signal and a checkpoint.
    """
    storage = open_storage(settings.storage)
    drawn = learning.drawn(storage, settings.image_size, settings.phantoms)
    kind = networks.NETWORKS[settings.network]
    strategy = {"learning_rate": kind.phantom_learning_rate, "augmentation": kind.phantom_augmentation}
    hardware = configure(settings, depthwise=kind.depthwise)
    step = Step(
        storage,
        starting.place(settings.result()),
        job="pretrain",
        settings=settings.result() | strategy,
        inputs={part.prefix: part.digest for part in drawn},
        arithmetic=hardware.arithmetic(),
        restart=settings.other_arithmetic == "restart",
    )
    if step.finished():
        log.info("%s exists: nothing to do", step.prefix)
        return step
    if not step.take():
        return step

    # ---- training --------------------------------------------------------------------------------------------------
    hyperparameters = training.Hyperparameters(
        epochs=settings.phantom_epochs,
        steps_per_epoch=settings.classifier_steps_per_epoch,
        batch=settings.classifier_batch,
        learning_rate=kind.phantom_learning_rate,
        augmentation=kind.phantom_augmentation,
        seed=0,
        remedy="set --precision float32, or give the pipeline --phantom-epochs 0",
    )
    architecture = networks.Architecture(settings.network, starting.LABELS, settings.image_size)
    log.info("%s: training on %d phantoms", settings.network, settings.phantoms)
    with Checkpoints(step, settings.checkpoint_steps, settings.checkpoint_seconds) as checkpoints:
        model, history = training.train(
            architecture,
            networks.initial_weights(architecture, "none", derive(hyperparameters.seed, "weights")),
            [Images(*learning.read_phantoms(drawn))],
            np.array([0.5, 0.5]),
            None,
            hyperparameters,
            checkpoints,
            precision=hardware.precision,
            xla=hardware.xla,
        )

    # ---- outputs ---------------------------------------------------------------------------------------------------
    step.write(starting.WEIGHTS, networks.save_classifier(model, architecture))
    step.write("history.csv", training.history_csv(history))
    step.finish(hardware=hardware.record())
    checkpoints.clear()
    return step
