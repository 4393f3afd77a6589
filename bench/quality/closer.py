"""Accuracies looked at more closely than by report.json: where nothing was chosen, by seed, beside a baseline."""

from typing import Any

import numpy as np

from bench.quality.cells import Predicted, bootstraps
from bench.quality.inner import OUTER
from jobs.classifier import metrics
from jobs.classifier.predictions import Predictions, take
from jobs.report import findings
from jobs.settings import PipelineSettings


def results(said: Predicted, baselines: dict[str, metrics.Bootstrap], settings: PipelineSettings) -> dict[str, Any]:
    """Return what the predictions of each recipe and seed say in detail.

    Returns:
        untouched: the metrics on the images of fold OUTER alone. The recipe is chosen on inner splits of the others, so
            these are the only ones that had no say in it.
        seeds: accuracy with each seed.
        beyond: each recipe minus each of `baselines`, drawn alike, in balanced accuracy on the same images.
    """

    def apart(x: Predictions) -> Predictions:
        return take(x, np.flatnonzero(np.array(x.folds) == str(OUTER)))

    alone = {recipe: [*map(apart, seeds)] for recipe, seeds in said.items()}
    return {
        "untouched": findings.results(bootstraps(alone, settings)),
        "seeds": [
            {"network": network, "regime": regime}
            | {"accuracy": [findings.tidy(metrics.score(x, "accuracy")) for x in seeds]}
            for (network, regime), seeds in said.items()
        ],
        "beyond": findings.beyond_controls(bootstraps(said, settings), baselines),
    }
