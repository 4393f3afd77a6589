"""Predictions of a candidate's models: out of fold for the images of its dataset, as an ensemble for other images."""

from collections.abc import Sequence

import numpy as np

from jobs.classifier import networks
from jobs.classifier.champion import Candidate, finished
from jobs.classifier.predictions import Predictions, join_predictions, read_predictions
from jobs.common.errors import MachineError
from jobs.common.step import read_manifest, read_output
from jobs.common.storage import Storage


def out_of_fold(storage: Storage, candidate: Candidate, seed: int) -> Predictions:
    """Return a candidate's predictions on all held-out images of its dataset, the folds pooled.

    Raises UserError if some are missing.
    """
    parts = []
    for fold in range(candidate.folds):
        prefix = candidate.model(fold, seed)
        manifest = finished(storage, prefix)
        parts.append(read_predictions(read_output(storage, prefix, manifest, "predictions.csv")))
    return join_predictions(parts)


def mean_prediction(storage: Storage, candidate: Candidate, images: np.ndarray) -> np.ndarray:
    """Return the mean prediction of a candidate's models: float64 [n, classes] for uint8 [n, image_size, image_size].

    Raises MachineError if a model is missing or damaged.
    """
    everywhere = [range(candidate.folds)] * len(images)
    several = [predict_by_folds(storage, candidate, seed, images, everywhere) for seed in candidate.seeds]
    return sum(several[1:], several[0]) / len(several)


def predict_by_folds(
    storage: Storage, candidate: Candidate, seed: int, images: np.ndarray, folds: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return for each image the mean prediction of the models of its `folds`, one or more.

    images: uint8 [n, image_size, image_size]. Returns float64 [n, classes]. Raises MachineError if a model is missing
    or damaged.
    """
    total = np.zeros((len(images), len(candidate.labels)))
    for fold in range(candidate.folds):
        asked = np.flatnonzero([fold in several for several in folds])
        if not len(asked):
            continue
        prefix = candidate.model(fold, seed)
        manifest = read_manifest(storage, prefix)
        if manifest is None:
            raise MachineError(f"the model {prefix} is missing: run mrigan pipeline again")
        model, _ = networks.load_classifier(read_output(storage, prefix, manifest, "classifier.safetensors"))
        total[asked] += networks.predict(model, images[asked])
    return total / np.array([len(several) for several in folds])[:, None]
