"""The best of several classifiers, and its metric corrected for selection bias.

The best of several classifiers on the same images is likely to be one that these images favour by chance, so that its
metric is too high. BBC-CV corrects this bias (Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the
out-of-sample predictions for efficient and accurate cross-validation", Machine Learning 107, 2018,
https://doi.org/10.1007/s10994-018-5714-4): in each bootstrap draw the best is chosen on the images that were drawn, and
scored on those that were not. Here groups are drawn within folds, as in jobs.classifier.metrics.
"""

import numpy as np

from jobs.classifier.metrics import Estimate, bootstrap, draws, estimate, interval
from jobs.classifier.predictions import Predictions

METRIC = "balanced_accuracy"


def best(candidates: list[list[Predictions]]) -> int:
    """Return the index of the candidate with the highest balanced accuracy, the first one for ties.

    Each candidate is a list with the predictions of one or more seeds; its value is the mean over seeds.
    """
    ones = np.ones((1, len(candidates[0][0].ids)))
    return int(np.argmax([_balanced_accuracy(seeds, ones)[0] for seeds in candidates]))


def without_luck(candidates: list[list[Predictions]], resamples: int, seed: int) -> Estimate:
    """Return the expected balanced accuracy of the best candidate on other images, with its 95 % interval.

    Mean and percentiles of the draws. A draw is undefined if the images drawn, or those not drawn, are of fewer than
    two classes. With one candidate there is no selection, and the estimate is that of metrics.bootstrap.
    """
    if len(candidates) == 1:
        return estimate(bootstrap(candidates[0], resamples, seed), METRIC)
    parts = []
    for drawn, _ in draws(candidates[0][0], 1, resamples, seed):
        left = (drawn == 0).astype(float)
        within = np.stack([_balanced_accuracy(seeds, drawn) for seeds in candidates])
        beyond = np.stack([_balanced_accuracy(seeds, left) for seeds in candidates])
        chosen = np.argmax(within, axis=0)[None]
        scores = np.take_along_axis(beyond, chosen, axis=0)[0]
        # Whether a draw has two classes does not depend on the candidate.
        parts.append(np.where(np.isfinite(within[0]), scores, np.nan))
    scores = np.concatenate(parts)
    defined = scores[np.isfinite(scores)]
    value = float(defined.mean()) if len(defined) else float("nan")
    return Estimate(value, *interval(scores)[:2], n=len(candidates[0][0].ids), undefined=len(scores) - len(defined))


def _balanced_accuracy(seeds: list[Predictions], weights: np.ndarray) -> np.ndarray:
    """Return float64 [draws], the mean over seeds under each row of image weights, NaN with fewer than two classes.

    The same as metrics.measure, of which only this is needed here.
    """
    of_class = np.eye(len(seeds[0].labels))[seeds[0].truth]
    right = np.mean([one.predicted == one.truth for one in seeds], axis=0)
    support = weights @ of_class
    there = support > 0
    recall = np.divide(weights @ (of_class * right[:, None]), support, out=np.zeros_like(support), where=there)
    classes = there.sum(axis=1)
    return np.where(classes > 1, recall.sum(axis=1) / np.maximum(classes, 1), np.nan)
