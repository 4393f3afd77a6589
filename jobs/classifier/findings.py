"""Results from the predictions of a run, as the values of report.json (see docs/report.md)."""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from jobs.classifier import controls, metrics, selection
from jobs.classifier.predictions import Predictions, take

COMPARED = ("accuracy", "balanced_accuracy", "roc_auc")
SIMILARITY_BINS = 4

Recipe = tuple[str, str]  # network, regime
Json = dict[str, Any]


def results(bootstraps: dict[Recipe, metrics.Bootstrap]) -> list[Json]:
    """Each recipe's metrics with their intervals."""
    return [
        {"regime": regime, "network": network, "metric": metric} | _estimate(found, metric)
        for (network, regime), found in bootstraps.items()
        for metric in metrics.METRICS
    ]


def selected(recipes: dict[Recipe, list[Predictions]], resamples: int, seed: int) -> Json:
    """The best recipe, its metric on these images, and the metric corrected for selection bias."""
    candidates = list(recipes.values())
    best = selection.best(candidates)
    value = sum(metrics.score(one, selection.METRIC) for one in candidates[best]) / len(candidates[best])
    found = selection.without_luck(candidates, resamples, seed)
    network, regime = list(recipes)[best]
    return {
        "network": network,
        "regime": regime,
        "metric": selection.METRIC,
        "candidates": len(candidates),
        "value": tidy(value),
        "corrected": tidy(found.value),
        "low": tidy(found.low),
        "high": tidy(found.high),
        "luck": tidy(value - found.value),
        "n": found.n,
        "undefined": found.undefined,
    }


def comparisons(bootstraps: dict[Recipe, metrics.Bootstrap]) -> list[Json]:
    """Regimes in pairs for each network, and networks in pairs for each regime: second minus first."""
    # Only pairs that share either the network or the regime.
    pairs = [(a, b) for a, b in itertools.combinations(bootstraps, 2) if (a[0] == b[0]) != (a[1] == b[1])]
    return [
        {side: {"network": network, "regime": regime} for side, (network, regime) in (("first", a), ("second", b))}
        | {"metric": metric}
        | _difference(bootstraps[b], bootstraps[a], metric)
        for a, b in pairs
        for metric in COMPARED
    ]


def cheap_controls(
    about: Predictions, folds: np.ndarray, thumbnails: np.ndarray, files: np.ndarray, truth: np.ndarray, seed: int
) -> tuple[dict[str, Predictions], np.ndarray]:
    """Return the predictions of the controls without network training, and similarities to the nearest training image.

    about: any predictions on the n images; in the same order folds int [n], thumbnails float32 [n, d],
    files float [n, 5] and truth int [n]. In each fold the controls are trained on the images of the other folds.
    The similarities are float [n].
    """
    k = len(about.labels)
    answers = {name: np.zeros((len(truth), k)) for name in ("majority", "file-only", "nearest-pixels")}
    similarity = np.zeros(len(truth))
    for fold in np.unique(folds):
        here, there = folds == fold, folds != fold
        neighbour, similarity[here] = controls.most_similar(thumbnails[there], thumbnails[here])
        answers["majority"][here] = controls.majority(truth[there], k, int(here.sum()))
        answers["file-only"][here] = controls.file_only(files[there], truth[there], files[here], k, seed)
        answers["nearest-pixels"][here] = np.eye(k)[truth[there][neighbour]]
    return {name: about._replace(probabilities=found) for name, found in answers.items()}, similarity


def control_results(bootstraps: dict[str, metrics.Bootstrap]) -> list[Json]:
    """The controls' metrics with their intervals; metrics that a constant prediction leaves undefined are null."""
    return [
        {"control": control, "metric": metric} | _estimate(found, metric)
        for control, found in bootstraps.items()
        for metric in COMPARED
    ]


def beyond_controls(bootstraps: dict[Recipe, metrics.Bootstrap], cheap: dict[str, metrics.Bootstrap]) -> list[Json]:
    """Each recipe minus each control, in balanced accuracy on the same images."""
    return [
        {"network": network, "regime": regime, "control": control, "metric": "balanced_accuracy"}
        | _difference(found, of_control, "balanced_accuracy")
        for (network, regime), found in bootstraps.items()
        for control, of_control in cheap.items()
    ]


def similarity_curve(seeds: list[Predictions], similarity: np.ndarray, resamples: int, seed: int) -> list[Json]:
    """Accuracy in bins of similarity to the nearest training image (each bin a quarter of the images)."""
    curve = []
    for inside in controls.similarity_bins(similarity, SIMILARITY_BINS):
        found = metrics.bootstrap([take(x, inside) for x in seeds], resamples, seed)
        curve.append({"similarity": tidy(similarity[inside].mean())} | _estimate(found, "accuracy"))
    return curve


def permuted_checks(network: str, found: metrics.Bootstrap, classes: int, learned: float, largest: float) -> list[Json]:
    """Check that a classifier trained on labels permuted by group is at chance level.

    The interval of balanced accuracy must contain 1 / classes, that of ROC-AUC 1/2. ROC-AUC is checked too because a
    constant prediction always has the balanced accuracy of chance. `learned` is the accuracy on the permuted labels of
    the training images, `largest` the share of the largest class. A copy among the held-out images can only be
    detected if its label was memorized: if `learned` is below the midpoint of `largest` and 1, the check is undecided.
    """
    needed = (1 + largest) / 2
    checks = []
    for metric, chance in (("balanced_accuracy", 1 / classes), ("roc_auc", 0.5)):
        entry = _estimate(found, metric)
        told = entry["low"] is not None and learned >= needed
        passed = entry["low"] <= chance <= entry["high"] if told else None
        check = {"check": "permuted", "network": network, "metric": metric, "passed": passed, "expected": chance}
        checks.append(check | entry | {"learned": tidy(learned), "needed": tidy(needed)})
    return checks


def leaky_check(
    network: str, leaky: list[Predictions], real: list[Predictions], resamples: int, seed: int
) -> list[Json]:
    """Check that an intentionally leaky split gives a higher accuracy than the normal split, by a paired interval.

    Both predictions are for the same images, with the folds and groups of the normal split. Only images that share a
    group with another image are compared, since only they can have copies in the training part. Without such images
    the list is empty.
    """
    sizes = Counter(real[0].groups)
    shared = np.flatnonzero([sizes[group] > 1 for group in real[0].groups])
    if not len(shared):
        return []
    torn, honest = (metrics.bootstrap([take(x, shared) for x in seeds], resamples, seed) for seeds in (leaky, real))
    metric = "accuracy"
    difference = metrics.difference(torn, honest, metric)
    passed = None if difference.low <= 0 <= difference.high else difference.low > 0
    expected = tidy(metrics.estimate(honest, metric).value)
    check = {"check": "leaky", "network": network, "metric": metric, "passed": passed, "expected": expected}
    return [check | _estimate(torn, metric)]


def confusions(recipes: dict[Recipe, list[Predictions]]) -> list[Json]:
    """Confusion matrices, rows true and columns predicted, summed over seeds."""
    return [
        {
            "network": network,
            "regime": regime,
            "matrix": np.sum([*map(metrics.confusion_matrix, seeds)], axis=0).tolist(),
        }
        for (network, regime), seeds in recipes.items()
    ]


def roc_curves(seeds: list[Predictions]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each fold's (and seed's) ROC curve; more than two classes: the mean of the one-vs-rest curves (Fawcett, 2006)."""
    grid = np.linspace(0, 1, 201)
    curves = []
    for predictions in seeds:
        k, folds = len(predictions.labels), np.array(predictions.folds)
        for fold in sorted(set(predictions.folds)):
            truth, p = predictions.truth[folds == fold], predictions.probabilities[folds == fold]
            of_class = [
                roc_curve(truth == c, p[:, c])[:2]
                for c in ([1] if k == 2 else range(k))
                if 0 < np.sum(truth == c) < len(truth)
            ]
            if len(of_class) == 1:
                curves.append(of_class[0])
            elif of_class:
                mean = np.mean([np.interp(grid, x, y) for x, y in of_class], axis=0)
                curves.append((np.r_[0, grid], np.r_[0, mean]))
    return curves


def tidy(value: Any) -> float | None:
    """A number for JSON: rounded to 6 digits, None where undefined."""
    return round(float(value), 6) if math.isfinite(value) else None


def _estimate(found: metrics.Bootstrap, metric: str) -> Json:
    value, low, high, n, undefined = metrics.estimate(found, metric)
    return {"value": tidy(value), "low": tidy(low), "high": tidy(high), "n": n, "undefined": undefined}


def _difference(a: metrics.Bootstrap, b: metrics.Bootstrap, metric: str) -> Json:
    value, low, high = metrics.difference(a, b, metric)
    return {"difference": tidy(value), "low": tidy(low), "high": tidy(high), "n": len(a.images)}
