"""What each part of the recipe is worth: python -m bench.quality.ablate [VARIANT...] [--data FOLDER].

Trains variants of the recipe on two inner splits (see bench.quality.inner) and prints the tables of all that are done,
so that the five folds are looked at by the chosen recipe alone. Cells that bench/results/quality holds are not done
again.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bench.quality import cells, command, kept, protocol, table
from bench.quality.inner import inner_dataset
from bench.quality.table import margin
from jobs import pipeline
from jobs.classifier import metrics
from jobs.classifier.predictions import Predictions, join_predictions, read_predictions
from jobs.common import keys
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.mri.dataset import open_dataset
from jobs.pipeline import PipelineSettings
from jobs.report import findings, gather
from jobs.report.findings import Recipe

SPLITS = (0, 1)  # of inner_dataset's parts, the ones that are held out
SCORES = ("accuracy", "roc_auc")
FIGURES = ("kid", "coverage", "recall")
Json = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the variants; return the exit code of mrigan's jobs."""
    parser = command.parser("python -m bench.quality.ablate", __doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(protocol.VARIANTS))
    given = parser.parse_args(arguments)
    unknown = set(given.variants) - protocol.VARIANTS.keys()
    if unknown:
        parser.error(f"there is no variant {', '.join(sorted(unknown))}")

    def work() -> None:
        for name in given.variants or protocol.VARIANTS:
            asked = protocol.RECIPE | protocol.ONE_SEED | protocol.VARIANTS[name]
            found = run(name, command.settings(given, asked), command.RESULTS, given.workers)
            print(table.ablations(found), table.ablated_images(found), sep="\n\n", flush=True)

    return command.finish("bench.quality.ablate", work)


def run(name: str, settings: PipelineSettings, results: Path, workers: int) -> Json:
    """Do what `settings` ask for on the inner splits; return all that was found so far, this under `name`.

    It is kept in `results`/<dataset's name>/ablations.json. Raises what the jobs raise, Interrupted after a signal;
    what was finished stays.
    """
    outer, of = command.prepared(settings)
    results /= of
    storage = open_storage(settings.storage)
    inner = inner_dataset(open_dataset(storage, pipeline.dataset_id(outer)))
    wanted = pipeline.classifiers(settings, settings.networks, settings.regimes)
    cells.run(settings, inner, SPLITS, wanted, results, workers)
    one = {"commit": command.commit(), "settings": protocol.VARIANTS.get(name, {}), **_read(settings, inner)}
    path = results / "ablations.json"
    results.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    found = {other: one if other == name else before[other] for other in protocol.VARIANTS if other in {name, *before}}
    if protocol.REFERENCE in found:
        _compare(found, settings, results)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _read(settings: PipelineSettings, inner: Step) -> Json:
    """Return the accuracy and ROC-AUC of each network and regime, and the mean figures of the synthetic images."""
    place = pipeline.place(settings, inner)
    run, dataset = place["run"], open_dataset(inner.storage, place["dataset"])
    said = cells.predictions(settings, dataset, run, SPLITS)
    results = [one for one in findings.results(_bootstraps(said, settings)) if one["metric"] in SCORES]
    if set(settings.regimes) == {"real"}:
        return {"run": run, "results": results, "quality": {}}
    drawn = gather.generators(dataset.storage, run, dataset, SPLITS)
    judged = [gather.quality(dataset.storage, part) for part in drawn if part.job == "generate"]
    memorized = [one["memorization"] for one in judged]
    quality: Json = {
        "copies": float(np.mean([one["copies"]["generated"] for one in memorized])),
        "distance": float(np.mean([one["distance"]["generated"] / one["distance"]["real"] for one in memorized])),
    }
    images = sum(one["images"]["compared"] for one in judged)
    for metric in FIGURES:
        # Splits and classes are judged on images of their own, which are taken for independent.
        values = [f["generated"] for one in judged for f in one["figures"] if f["metric"] == metric]
        value = float(np.mean([x["value"] for x in values]))
        quality[metric] = {"value": value, "low": None, "high": None}
        if metric != "kid":
            # Shares of the held-out images: what half as many say of the error is worth little beside k neighbours.
            low, high = binomtest(round(value * images), images).proportion_ci(method="wilson")
            quality[metric] |= {"low": float(low), "high": float(high)}
        elif (half := margin([x["error"] for x in values])) is not None:
            quality[metric] |= {"low": value - half, "high": value + half}
    return {"run": run, "results": results, "quality": quality}


def _compare(found: Json, settings: PipelineSettings, results: Path) -> None:
    """Say in each variant's results by how much they differ from protocol.REFERENCE's, on the same images."""

    steps = kept.read(results)
    seeds = range(settings.seed, settings.seed + settings.seeds)

    def read(place: str) -> Predictions:
        return read_predictions(steps[place]["predictions.csv"])

    def bootstraps(one: Json) -> dict[Recipe, metrics.Bootstrap]:
        said = {
            recipe: [
                join_predictions([read(keys.classifier(one["run"], x, *recipe, seed)) for x in SPLITS])
                for seed in seeds
            ]
            for recipe in dict.fromkeys((x["network"], x["regime"]) for x in one["results"])
        }
        return _bootstraps(said, settings)

    reference = bootstraps(found[protocol.REFERENCE])
    for name, one in found.items():
        mine = bootstraps(one) if name != protocol.REFERENCE else {}
        for entry in one["results"]:
            recipe = entry["network"], entry["regime"]
            entry["beyond"] = None
            if recipe in mine and recipe in reference:
                beyond = metrics.difference(mine[recipe], reference[recipe], entry["metric"])
                entry["beyond"] = {key: findings.tidy(value) for key, value in beyond._asdict().items()}


def _bootstraps(said: cells.Predicted, settings: PipelineSettings) -> dict[Recipe, metrics.Bootstrap]:
    return {recipe: metrics.bootstrap(seeds, settings.resamples, settings.seed) for recipe, seeds in said.items()}


if __name__ == "__main__":
    sys.exit(main())
