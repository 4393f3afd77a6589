"""What a job needs that another job would take long to make: a generator and a champion, both without training."""

import keras

from jobs.classifier import networks as classifiers
from jobs.classifier.champion import Candidate, Record, to_json
from jobs.common import keys
from jobs.common.step import Step, manifest_digest, read_manifest
from jobs.common.storage import open_storage
from jobs.gan import networks
from jobs.settings import GanSettings

NAME = "made"  # of the champion


def write_generator(url: str, dataset: str, labels: tuple[str, ...], pixels: int, run: str) -> None:
    """Write the generator of fold 0 for all classes, of the recipe's width.

    Its weights are enlarged: as they are drawn, all images would be of one gray.
    """
    storage, given = open_storage(url), GanSettings()
    keras.utils.set_random_seed(0)
    config = networks.GanConfig(pixels, given.gan_width, given.latent, labels)
    model = networks.build_generator(config, seed=0)
    for variable in model.trainable_variables:
        variable.assign(variable * 20)
    inputs = {"dataset": manifest_digest(read_manifest(storage, keys.dataset(dataset)) or {})}
    step = Step(storage, keys.gan(run, 0, keys.CLASS_CONDITIONAL), job="train-gan", settings={}, inputs=inputs)
    step.write(networks.GENERATOR, networks.save_generator(model, config))
    step.finish()


def write_champion(url: str, pixels: int) -> None:
    """Write a champion of two MobileNetV2 with random weights, one of each fold, for `mrigan predict`."""
    storage, labels = open_storage(url), ["no", "yes"]
    champion = Candidate("mobilenetv2", "real", labels, pixels, "d1", "r1", 2, [0])
    architecture = classifiers.Architecture("mobilenetv2", tuple(labels), pixels)
    stored = classifiers.save_classifier(classifiers.build(architecture), architecture)
    for fold in range(champion.folds):
        step = Step(storage, champion.model(fold, 0), job="train-classifier", settings={}, inputs={})
        step.write("classifier.safetensors", stored)
        step.finish()
    storage.write(keys.champion(NAME), to_json(Record(champion, {}, 0.0, [])))
