"""A classical classifier of real images, to be beaten: histograms of oriented gradients and logistic regression.

Dalal & Triggs, "Histograms of oriented gradients for human detection", CVPR 2005,
https://doi.org/10.1109/CVPR.2005.177
"""

import numpy as np
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression

from jobs.classifier import metrics
from jobs.classifier.predictions import Predictions
from jobs.mri.dataset import Dataset
from jobs.report import findings

CELLS = 8  # across the image


def descriptors(images: np.ndarray) -> np.ndarray:
    """Return nine orientations in CELLS x CELLS cells, blocks of 2 x 2 normalized: uint8 [n, s, s] -> float [n, d]."""
    cell = images.shape[1] // CELLS
    return np.array([hog(image, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)) for image in images])


def predictions(dataset: Dataset) -> Predictions:
    """Return what each image is taken for by a regression that learned from the other folds' real images."""
    rows = sorted(dataset.rows, key=lambda row: row.id)
    features = descriptors(dataset.pixels(rows))
    truth = np.array([dataset.labels.index(row.label) for row in rows])
    folds = np.array([row.fold for row in rows])
    probabilities = np.zeros((len(rows), len(dataset.labels)))
    for fold in range(dataset.folds):
        model = LogisticRegression(max_iter=1000).fit(features[folds != fold], truth[folds != fold])
        probabilities[np.ix_(folds == fold, model.classes_)] = model.predict_proba(features[folds == fold])
    return Predictions(
        ids=[row.id for row in rows],
        groups=[row.group for row in rows],
        folds=[str(row.fold) for row in rows],
        labels=list(dataset.labels),
        truth=truth,
        probabilities=probabilities,
    )


def results(dataset: Dataset, resamples: int, seed: int) -> list[findings.Json]:
    """Return the baseline's metrics with their intervals, in the form of report.json's controls, named `hog`."""
    return findings.control_results({"hog": metrics.bootstrap([predictions(dataset)], resamples, seed)})
