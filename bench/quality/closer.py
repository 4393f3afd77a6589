"""Accuracies looked at more closely than by report.json: where nothing was chosen, by seed, beside a baseline."""

from typing import Any

import numpy as np

from bench.quality.cells import Predicted
from bench.quality.inner import OUTER
from jobs.classifier import metrics
from jobs.classifier.predictions import Predictions, take
from jobs.report import findings

Json = dict[str, Any]


def results(
    recipes: Predicted, baselines: dict[str, metrics.Bootstrap], resamples: int, seed: int
) -> dict[str, list[Json]]:
    """Return what recipes' predictions, a list with those of each seed, say in detail.

    Returns:
        untouched: the metrics on the images of fold OUTER alone. The recipe is chosen on inner splits of the others, so
            these are the only ones that had no say in it.
        seeds: accuracy with each seed.
        beyond: each recipe minus each of `baselines`, drawn alike, in balanced accuracy on the same images.
    """

    def bootstrap(seeds: list[Predictions]) -> metrics.Bootstrap:
        return metrics.bootstrap(seeds, resamples, seed)

    apart = {
        name: [take(x, np.flatnonzero(np.array(x.folds) == str(OUTER))) for x in seeds]
        for name, seeds in recipes.items()
    }
    return {
        "untouched": findings.results({name: bootstrap(seeds) for name, seeds in apart.items()}),
        "seeds": [
            {
                "network": network,
                "regime": regime,
                "accuracy": [findings.tidy(metrics.score(x, "accuracy")) for x in seeds],
            }
            for (network, regime), seeds in recipes.items()
        ],
        "beyond": findings.beyond_controls({name: bootstrap(seeds) for name, seeds in recipes.items()}, baselines),
    }
