"""Classification metrics with bootstrap intervals, and comparison of two classifiers on the same images.

The bootstrap (Efron and Tibshirani, 1993) draws groups, not images, with replacement within each fold, because the
images of a group (a patient, or near-duplicates) are not independent. If a classifier was trained with several seeds,
the seeds are drawn as well. A draw is a weight for each image (how often its group was drawn), and every metric here is
a function of weights, so that thousands of draws need only a few matrix products.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from jobs.classifier.predictions import Predictions
from jobs.common.errors import UserError
from jobs.common.seeds import derive

BINS = 15  # of the expected calibration error, as in Guo et al. (2017)
_BLOCK = 2_000_000  # weights held at once: 16 MB


class Metric(NamedTuple):
    """A metric's title, whether higher is better, and its definition."""

    title: str
    higher_is_better: bool
    meaning: str


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", True, "share of images classified correctly"),
    "balanced_accuracy": Metric("Balanced accuracy", True, "share classified correctly, averaged over the classes"),
    "roc_auc": Metric("ROC-AUC", True, "probability that an image of the class ranks above another; mean over folds"),
    "sensitivity": Metric("Sensitivity", True, "share of the positive images classified as positive"),
    "specificity": Metric("Specificity", True, "share of the negative images classified as negative"),
    "f1": Metric("F1", True, "harmonic mean of sensitivity and precision"),
    "brier": Metric("Brier score", False, "mean squared error of the probabilities"),
    "calibration_error": Metric("Calibration error", False, "mean difference between confidence and accuracy"),
}  # fmt: skip


class Bootstrap(NamedTuple):
    """The metrics of one classifier and their draws.

    value: metric -> its value on the images (mean over seeds), NaN where undefined;
    draws: metric -> float64 [resamples], NaN where a draw leaves the metric undefined;
    images: id, fold and group of each image.
    """

    value: dict[str, float]
    draws: dict[str, np.ndarray]
    images: list[tuple[str, str, str]]


class Estimate(NamedTuple):
    """A value and its 95 % percentile interval; NaN bounds where fewer than half of the draws are defined.

    n: images; undefined: draws left out because the metric has no value in them (a class is missing).
    """

    value: float
    low: float
    high: float
    n: int
    undefined: int


class Difference(NamedTuple):
    """First minus second on the same images, with its 95 % percentile interval of the paired bootstrap."""

    difference: float
    low: float
    high: float


def measure(predictions: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of METRICS under each row of image weights, float64 [draws, n] -> float64 [draws] each.

    Two classes: sensitivity, specificity and F1 take the last label in sorted order as the positive one, and
    the Brier score is the mean of (p - y)², in [0, 1]. More classes: sensitivity, specificity and F1 are one-vs-rest,
    averaged over the classes (sensitivity then equals balanced accuracy), ROC-AUC is the macro one-vs-rest
    average, and the Brier score sums over the classes (Brier, 1950), in [0, 2]. The calibration error compares
    the highest probability with the accuracy in 15 bins of equal width (Guo et al., 2017).

    Averages run over the classes that have weight, as in scikit-learn; a value is NaN where fewer than two
    classes have weight (balanced accuracy), in no fold both of a class's sides have (ROC-AUC), or the
    denominator is zero.
    """
    k, n = len(predictions.labels), len(predictions.ids)
    truth, predicted, p = predictions.truth, predictions.predicted, predictions.probabilities
    total = weights.sum(axis=1)
    confusion = _sums(truth * k + predicted, np.ones(n), k * k, weights).reshape(-1, k, k)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)  # [draws, k]: by true, by predicted class
    hit = np.diagonal(confusion, axis1=1, axis2=2)
    rest = total[:, None] - support
    recall = _ratio(hit, support)
    true_negative_rate = _ratio(rest - called + hit, rest)
    f1 = _ratio(2 * hit, support + called)
    balanced = np.where((support > 0).sum(axis=1) > 1, _mean(recall), np.nan)
    two = k == 2
    confidence, right = _confidence(predictions)
    squared = (p - np.eye(k)[truth]) ** 2
    return {
        "accuracy": hit.sum(axis=1) / total,
        "balanced_accuracy": balanced,
        "roc_auc": _mean(np.stack([_auc(predictions, fold, weights) for fold in sorted(set(predictions.folds))], 1)),
        "sensitivity": recall[:, 1] if two else _mean(recall),
        "specificity": true_negative_rate[:, 1] if two else _mean(np.where(support > 0, true_negative_rate, np.nan)),
        "f1": f1[:, 1] if two else _mean(f1),
        "brier": weights @ (squared[:, 1] if two else squared.sum(axis=1)) / total,
        "calibration_error": np.abs(_sums(_bins(confidence), right - confidence, BINS, weights)).sum(axis=1) / total,
    }  # fmt: skip


def score(predictions: Predictions, metric: str) -> float:
    """One metric of METRICS on all the images, without an interval. Raises UserError for an unknown metric."""
    _known(metric)
    return float(measure(predictions, np.ones((1, len(predictions.ids))))[metric][0])


def bootstrap(seeds: list[Predictions], resamples: int, seed: int) -> Bootstrap:
    """Draw groups within folds, and seeds, `resamples` times (0: values only).

    seeds: the predictions of one recipe, one for each seed, on the same images. The draws depend only on the groups and
    folds of the images, the number of seeds, and `seed`. Two recipes on the same images therefore have the same draws,
    and their difference is paired. Raises UserError when the seeds have predictions for different images.
    """
    first = seeds[0]
    if not first.ids:
        raise UserError("no predictions to evaluate; check that the folds hold images")
    if any((x.ids, x.folds, x.labels) != (first.ids, first.folds, first.labels) for x in seeds[1:]):
        raise UserError("the seeds' predictions are for different images; run train-classifier again")
    ones = np.ones((1, len(first.ids)))
    values = [measure(x, ones) for x in seeds]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for weights, share in draws(first, len(seeds), resamples, seed):
        measured = [measure(x, weights) for x in seeds]
        for name in METRICS:
            by_seed = np.stack([m[name] for m in measured], axis=1)
            parts[name].append(np.where(share > 0, by_seed * share, 0.0).sum(axis=1))
    return Bootstrap(
        value={name: float(np.mean([v[name][0] for v in values])) for name in METRICS},
        draws={name: np.concatenate(parts[name]) if parts[name] else np.empty(0) for name in METRICS},
        images=list(zip(first.ids, first.folds, first.groups, strict=True)),
    )


def estimate(result: Bootstrap, metric: str) -> Estimate:
    """A metric's value and 95 % interval."""
    low, high, undefined = interval(result.draws[metric])
    return Estimate(result.value[metric], low, high, len(result.images), undefined)


def difference(a: Bootstrap, b: Bootstrap, metric: str) -> Difference:
    """First minus second, from draws that `bootstrap` made with the same resamples and seed.

    Raises UserError when the two have different images, folds or groups.
    """
    if a.images != b.images:
        raise UserError("two classifiers can be compared only on the same images; evaluate both on one dataset")
    low, high, _ = interval(a.draws[metric] - b.draws[metric])
    return Difference(a.value[metric] - b.value[metric], low, high)


def paired_difference(a: list[Predictions], b: list[Predictions], metric: str, resamples: int, seed: int) -> Difference:
    """First minus second on the same images; each is a list with the predictions of one or more seeds.

    Raises UserError when the metric is unknown or the images differ.
    """
    _known(metric)
    return difference(bootstrap(a, resamples, seed), bootstrap(b, resamples, seed), metric)


def draws(predictions: Predictions, seeds: int, resamples: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of draws of groups: how often each image was drawn [block, n], each seed's share [block, seeds]."""
    strata = list(zip(predictions.folds, predictions.groups, strict=True))
    units = sorted(set(strata))
    position = {unit: i for i, unit in enumerate(units)}
    image_unit = np.array([position[x] for x in strata])
    unit_folds = np.array([fold for fold, _ in units])
    folds = [np.flatnonzero(unit_folds == fold) for fold in sorted(set(unit_folds))]
    rng = np.random.default_rng(derive(seed, "bootstrap", "groups"))
    seed_rng = np.random.default_rng(derive(seed, "bootstrap", "seeds", seeds))
    for start in range(0, resamples, block := max(1, _BLOCK // len(strata))):
        size = min(block, resamples - start)
        drawn = np.zeros((size, len(units)))
        for members in folds:
            drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=size)
        share = seed_rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
        yield drawn[:, image_unit], share


def interval(draws: np.ndarray) -> tuple[float, float, int]:
    """95 % percentile interval of the defined draws, NaN if at most half are defined; number of undefined draws."""
    defined = draws[np.isfinite(draws)]
    undefined = len(draws) - len(defined)
    if len(defined) * 2 <= len(draws):
        return float("nan"), float("nan"), undefined
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high), undefined


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """int64 [k, k]: rows are the true classes, columns the predicted ones."""
    k = len(predictions.labels)
    return np.bincount(predictions.truth * k + predictions.predicted, minlength=k * k).reshape(k, k)


def reliability(seeds: list[Predictions]) -> list[tuple[float, float, int]]:
    """For each non-empty bin of the calibration error: mean confidence, accuracy, number of predictions."""
    confidence, right = (np.concatenate(x) for x in zip(*map(_confidence, seeds), strict=True))
    bins = _bins(confidence)
    inside = [bins == b for b in range(BINS)]
    return [(float(confidence[x].mean()), float(right[x].mean()), int(x.sum())) for x in inside if x.any()]


def _confidence(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """The highest probability for each image, and whether it is that of the true class (1.0 or 0.0)."""
    return predictions.probabilities.max(axis=1), (predictions.truth == predictions.predicted).astype(float)


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def _auc(predictions: Predictions, fold: str, weights: np.ndarray) -> np.ndarray:
    """ROC-AUC [draws] within one fold; ties count half (Hanley and McNeil, 1982)."""
    inside = np.flatnonzero(np.array(predictions.folds) == fold)
    k = len(predictions.labels)
    by_class = []
    for label in [1] if k == 2 else range(k):
        scores = predictions.probabilities[inside, label]
        order = inside[np.argsort(scores, kind="stable")]
        starts = np.flatnonzero(np.diff(np.sort(scores), prepend=-1.0))
        positive = predictions.truth[order] == label
        w = weights[:, order]
        for_it = np.add.reduceat(w * positive, starts, axis=1)
        against = np.add.reduceat(w * ~positive, starts, axis=1)
        below = np.cumsum(against, axis=1) - against
        wins = (for_it * (below + against / 2)).sum(axis=1)
        by_class.append(_ratio(wins, for_it.sum(axis=1) * against.sum(axis=1)))
    return _mean(np.stack(by_class, axis=1))


def _sums(cell: np.ndarray, value: np.ndarray, cells: int, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of the images' values in each cell: [draws, cells]."""
    n = len(cell)
    return np.asarray((csr_array((value, (cell, np.arange(n))), shape=(cells, n)) @ weights.T).T)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of the defined values over the last axis; NaN if there are none."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(float))


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise UserError(f"there is no metric {metric!r}; choose one of {', '.join(METRICS)}")
