"""`predictions.csv`: the predictions of a classifier for the held-out images.

Columns: `id`, `group`, `fold`, `label` (the true one), `prediction` (the most probable one) and one
`p:<label>` per class, in sorted order of the class names. Rows are sorted by id.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jobs.common import tables
from jobs.common.errors import UserError

COLUMNS = ["id", "group", "fold", "label", "prediction"]


class Predictions(NamedTuple):
    """Predictions on n images among k classes, in order of image id.

    ids, groups, folds: lists of n strings (a fold is `"0"`, `"1"`, …, or `"test"`);
    labels: the k class names, sorted;
    truth: int64 [n], index of the true class;
    probabilities: float64 [n, k], each row in [0, 1] and summing to 1.
    """

    ids: list[str]
    groups: list[str]
    folds: list[str]
    labels: list[str]
    truth: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """int64 [n]: index of the most probable class, the first one for ties."""
        return np.argmax(self.probabilities, axis=1)


def of_rows(rows: Sequence[Any], labels: Sequence[str], truth: np.ndarray, probabilities: np.ndarray) -> Predictions:
    """Return the predictions for rows of a dataset's index, in their order.

    truth: int [n], indices of `labels`; probabilities: float64 [n, labels].
    """
    return Predictions(
        ids=[row.id for row in rows],
        groups=[row.group for row in rows],
        folds=[str(row.fold) for row in rows],
        labels=list(labels),
        truth=truth,
        probabilities=probabilities,
    )


def write_predictions(predictions: Predictions) -> bytes:
    """The bytes of `predictions.csv`; the same predictions always give the same bytes."""
    predicted = predictions.predicted
    rows = [
        [
            predictions.ids[i],
            predictions.groups[i],
            predictions.folds[i],
            predictions.labels[int(predictions.truth[i])],
            predictions.labels[int(predicted[i])],
            *(format(float(p), ".9g") for p in predictions.probabilities[i]),
        ]
        for i in sorted(range(len(predictions.ids)), key=lambda i: predictions.ids[i])
    ]
    return tables.to_csv([*COLUMNS, *(f"p:{x}" for x in predictions.labels)], rows)


def read_predictions(data: bytes) -> Predictions:
    """Read a `predictions.csv`.

    Raises UserError when a column is missing, a label has no probability column, an id occurs twice, or
    a row's probabilities are not finite, lie outside [0, 1] or do not sum to 1 within 1 %.
    """
    header, rows = tables.from_csv(data)
    labels = [name[2:] for name in header if name.startswith("p:")]
    if header[:5] != COLUMNS or header[5:] != [f"p:{x}" for x in labels]:
        raise UserError(f"predictions.csv has the columns {header}; run train-classifier again")
    if len(labels) < 2 or labels != sorted(set(labels)):
        raise UserError(f"predictions.csv needs two or more classes, sorted; it has {labels}")
    rows.sort()
    index = {label: i for i, label in enumerate(labels)}
    for row in rows:
        if len(row) != len(header) or row[3] not in index:
            raise UserError(f"predictions.csv: a damaged row {row}; run train-classifier again")
    if len({row[0] for row in rows}) != len(rows):
        raise UserError("predictions.csv has an image twice; run train-classifier again")
    try:
        probabilities = np.array([[float(p) for p in row[5:]] for row in rows]).reshape(-1, len(labels))
    except ValueError as error:
        raise UserError(f"predictions.csv: {error}; run train-classifier again") from None
    fine = np.isfinite(probabilities) & (probabilities >= 0) & (probabilities <= 1 + 1e-6)
    if not fine.all() or (np.abs(probabilities.sum(axis=1) - 1) > 0.01).any():
        raise UserError("predictions.csv has values that are no probabilities; run train-classifier again")
    return Predictions(
        ids=[row[0] for row in rows],
        groups=[row[1] for row in rows],
        folds=[row[2] for row in rows],
        labels=labels,
        truth=np.array([index[row[3]] for row in rows], dtype=np.int64),
        probabilities=probabilities,
    )


def take(predictions: Predictions, indices: np.ndarray) -> Predictions:
    """The predictions on some of the images, in the order of `indices`, int [m]."""
    ids, groups, folds = ([column[i] for i in indices] for column in predictions[:3])
    truth, probabilities = (column[indices] for column in predictions[4:])
    return Predictions(ids, groups, folds, predictions.labels, truth, probabilities)


def join_predictions(parts: list[Predictions]) -> Predictions:
    """Pool the predictions of several folds (of one network, regime and seed), in order of id.

    Raises UserError when the classes differ or an image occurs in two parts.
    """
    labels = parts[0].labels
    if any(part.labels != labels for part in parts):
        raise UserError("the folds' predictions are about different classes; run train-classifier again")
    pooled = Predictions(
        ids=[x for part in parts for x in part.ids],
        groups=[x for part in parts for x in part.groups],
        folds=[x for part in parts for x in part.folds],
        labels=labels,
        truth=np.concatenate([part.truth for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )
    if len(set(pooled.ids)) != len(pooled.ids):
        raise UserError("an image is predicted in two folds; run train-classifier again")
    return take(pooled, np.array(sorted(range(len(pooled.ids)), key=pooled.ids.__getitem__), dtype=np.int64))
