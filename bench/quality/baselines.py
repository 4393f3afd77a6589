"""A classical baseline for real images: histograms of oriented gradients (HOG) and logistic regression.

Dalal & Triggs, "Histograms of oriented gradients for human detection", CVPR 2005,
https://doi.org/10.1109/CVPR.2005.177
"""

import numpy as np
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression

from jobs import preprocess
from jobs.classifier.predictions import Predictions, of_rows
from jobs.mri.dataset import Dataset, open_dataset
from jobs.settings import PipelineSettings, PreprocessSettings

SIZE = 128  # pixels; the baseline is weaker at the 64 pixels of the recipe
CELL = 8  # as in the paper


def prepared(settings: PipelineSettings) -> Dataset:
    """Return the dataset with images of SIZE and the same folds. Raises the errors of preprocess."""
    step = preprocess.run(PreprocessSettings.of(settings, image_size=SIZE))
    return open_dataset(step.storage, step.prefix.rpartition("/")[2])


def predictions(dataset: Dataset) -> Predictions:
    """Return the predictions for each image of a dataset of SIZE, by a regression trained on the other folds."""
    rows = sorted(dataset.rows, key=lambda row: row.id)
    images = dataset.pixels(rows)
    features = np.array([hog(image, pixels_per_cell=(CELL, CELL), cells_per_block=(2, 2)) for image in images])
    truth = np.array([dataset.labels.index(row.label) for row in rows])
    folds = np.array([row.fold for row in rows])
    probabilities = np.zeros((len(rows), len(dataset.labels)))
    for fold in range(dataset.folds):
        model = LogisticRegression(max_iter=1000).fit(features[folds != fold], truth[folds != fold])
        probabilities[np.ix_(folds == fold, model.classes_)] = model.predict_proba(features[folds == fold])
    return of_rows(rows, dataset.labels, truth, probabilities)
