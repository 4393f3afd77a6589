"""Measure the effect of each part of the recipe: python -m bench.quality.ablate [VARIANT...] --data FOLDER.

Trains variants of the recipe on two inner splits (see bench.quality.inner), so that only the chosen recipe is evaluated
on the five folds. Prints the tables of all finished variants. Steps in bench/results/quality are not repeated.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bench.quality import cells, command, kept, protocol, table
from bench.quality.inner import inner_dataset
from bench.quality.table import margin
from jobs import plan as planning
from jobs.classifier import findings, healthy, metrics
from jobs.classifier.findings import Recipe
from jobs.common.storage import open_storage
from jobs.mri.dataset import open_dataset
from jobs.settings import PipelineSettings

SPLITS = (0, 1)  # the splits of inner_dataset that are held out, one after the other
SCORES = ("accuracy", "roc_auc")
QUALITY = "quality.json"
FIGURES = ("kid", "coverage", "recall")
Json = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and evaluate the variants; return the exit code of mrigan's jobs."""
    parser = command.parser("python -m bench.quality.ablate", __doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(protocol.VARIANTS))
    given = parser.parse_args(arguments)
    command.check_names(parser, "variant", given.variants, protocol.VARIANTS)

    def work() -> None:
        for name in given.variants or protocol.VARIANTS:
            recipe = protocol.RECIPE | protocol.ONE_SEED | protocol.VARIANTS[name]
            found = run(name, command.settings(given, recipe), command.RESULTS)
            print(table.ablations(found), table.ablated_images(found), sep="\n\n", flush=True)

    return command.finish("bench.quality.ablate", work)


def run(name: str, settings: PipelineSettings, results: Path) -> Json:
    """Train and evaluate with `settings` on the inner splits; return the results of all variants, with this as `name`.

    The results are in `results`/<name of the dataset>/ablations.json. Raises the errors of the jobs, and Interrupted
    after a signal. Finished steps are kept.
    """
    outer = planning.prepare(settings)
    results /= outer.name
    storage = open_storage(settings.storage)
    inner = inner_dataset(open_dataset(storage, outer.dataset))
    settings = healthy.resolved(settings, inner.facts["labels"])
    off = protocol.OFF.get(name, ())
    plan = planning.make(settings, inner, outer.name, f"-{name}" if off else "")
    cells.run(storage, plan, SPLITS, results, settings.workers, off)

    steps = kept.read(results)
    path = results / "ablations.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    drawn = _bootstraps(steps, plan.run, product(settings.networks, settings.regimes), settings)
    found[name] = {
        "commit": command.commit(),
        "settings": protocol.VARIANTS.get(name, {}) | ({"off": off} if off else {}),
        "run": plan.run,
        "results": [one for one in findings.results(drawn) if one["metric"] in SCORES],
        "quality": _quality(steps, plan.run),
    }
    _compare(found, steps, settings)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _bootstraps(
    steps: kept.Steps, run: str, recipes: Iterable[Recipe], settings: PipelineSettings
) -> dict[Recipe, metrics.Bootstrap]:
    """Return the bootstraps of the recipes of a run, on both splits."""
    return cells.bootstraps(cells.predictions(steps, run, recipes, SPLITS, settings), settings)


def _quality(steps: kept.Steps, run: str) -> Json:
    """Return the mean quality figures of the synthetic images of a run; empty without images."""
    places = (prefix for prefix, files in steps.items() if prefix.startswith(f"runs/{run}/") and QUALITY in files)
    judged = [json.loads(steps[place][QUALITY]) for place in places]
    if not judged:
        return {}
    memorized = [one["memorization"] for one in judged]
    quality: Json = {
        "copies": float(np.mean([one["copies"]["generated"] for one in memorized])),
        "distance": float(np.mean([one["distance"]["generated"] / one["distance"]["real"] for one in memorized])),
    }
    images = sum(one["images"]["compared"] for one in judged)
    for metric in FIGURES:
        # Splits and classes have different images, which are assumed to be independent.
        values = [f["generated"] for one in judged for f in one["figures"] if f["metric"] == metric]
        value = float(np.mean([x["value"] for x in values]))
        quality[metric] = {"value": value, "low": None, "high": None}
        if metric != "kid":
            # A share of the held-out images. `error` comes from half as many images, where these shares differ.
            low, high = binomtest(round(value * images), images).proportion_ci(method="wilson")
            quality[metric] |= {"low": float(low), "high": float(high)}
        elif (half := margin([x["error"] for x in values])) is not None:
            quality[metric] |= {"low": value - half, "high": value + half}
    return quality


def _compare(found: Json, steps: kept.Steps, settings: PipelineSettings) -> None:
    """Add to each variant's results their difference to those of protocol.REFERENCE, on the same images."""
    drawn = {}
    for name, one in found.items():
        recipes = dict.fromkeys((entry["network"], entry["regime"]) for entry in one["results"])
        own = settings.model_copy(update={"seeds": one["settings"].get("seeds", 1)})
        drawn[name] = _bootstraps(steps, one["run"], recipes, own)
    reference = drawn.get(protocol.REFERENCE, {})
    for name, one in found.items():
        for entry in one["results"]:
            recipe = entry["network"], entry["regime"]
            entry["beyond"] = None
            # Classifiers of other numbers of seeds have no paired draws.
            if name != protocol.REFERENCE and recipe in reference and "seeds" not in one["settings"]:
                beyond = metrics.difference(drawn[name][recipe], reference[recipe], entry["metric"])
                entry["beyond"] = {key: findings.tidy(value) for key, value in beyond._asdict().items()}


if __name__ == "__main__":
    sys.exit(main())
