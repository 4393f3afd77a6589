"""What each part of the recipe is worth: python -m bench.quality.ablate [VARIANT...] [--data FOLDER].

Trains variants of the recipe on two inner splits (see bench.quality.inner) and prints the tables of all that are done,
so that the five folds are looked at by the chosen recipe alone. Cells that bench/results/quality holds are not done
again.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bench.quality import cells, command, kept, protocol, table
from bench.quality.inner import inner_dataset
from bench.quality.table import margin
from jobs import plan as planning
from jobs.classifier import metrics
from jobs.common.storage import open_storage
from jobs.mri.dataset import open_dataset
from jobs.report import findings
from jobs.report.findings import Recipe
from jobs.settings import PipelineSettings

SPLITS = (0, 1)  # of inner_dataset's parts, the ones that are held out
SCORES = ("accuracy", "roc_auc")
QUALITY = "quality.json"
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
            found = run(name, command.settings(given, asked), command.RESULTS)
            print(table.ablations(found), table.ablated_images(found), sep="\n\n", flush=True)

    return command.finish("bench.quality.ablate", work)


def run(name: str, settings: PipelineSettings, results: Path) -> Json:
    """Do what `settings` ask for on the inner splits; return all that was found so far, this under `name`.

    It is kept in `results`/<dataset's name>/ablations.json. Raises what the jobs raise, Interrupted after a signal;
    what was finished stays.
    """
    outer = planning.prepare(settings)
    results /= outer.name
    storage = open_storage(settings.storage)
    inner = inner_dataset(open_dataset(storage, outer.dataset))
    settings = planning.resolved(settings, inner.facts["labels"])
    off = protocol.OFF.get(name, ())
    plan = planning.make(settings, inner, outer.name, f"-{name}" if off else "")
    cells.run(storage, plan, SPLITS, results, settings.workers, off)

    steps = kept.read(results)
    path = results / "ablations.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    recipes = list(product(settings.networks, settings.regimes))
    found[name] = {
        "commit": command.commit(),
        "settings": protocol.VARIANTS.get(name, {}) | ({"off": off} if off else {}),
        "run": plan.run,
        "results": [
            one for one in findings.results(_draw(steps, plan.run, recipes, settings)) if one["metric"] in SCORES
        ],
        "quality": _quality(steps, plan.run),
    }
    _compare(found, steps, settings)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _draw(
    steps: kept.Steps, run: str, recipes: Sequence[Recipe], settings: PipelineSettings
) -> dict[Recipe, metrics.Bootstrap]:
    """Return the bootstraps of a run's recipes on both splits."""
    return cells.bootstraps(cells.predictions(steps, run, recipes, SPLITS, settings), settings)


def _quality(steps: kept.Steps, run: str) -> Json:
    """Return the mean figures of a run's synthetic images; nothing if there are none."""
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
    return quality


def _compare(found: Json, steps: kept.Steps, settings: PipelineSettings) -> None:
    """Say in each variant's results by how much they differ from protocol.REFERENCE's, on the same images."""
    drawn = {}
    for name, one in found.items():
        recipes = list(dict.fromkeys((x["network"], x["regime"]) for x in one["results"]))
        drawn[name] = _draw(steps, one["run"], recipes, settings)
    reference = drawn.get(protocol.REFERENCE, {})
    for name, one in found.items():
        for entry in one["results"]:
            recipe = entry["network"], entry["regime"]
            entry["beyond"] = None
            if name != protocol.REFERENCE and recipe in reference:
                beyond = metrics.difference(drawn[name][recipe], reference[recipe], entry["metric"])
                entry["beyond"] = {key: findings.tidy(value) for key, value in beyond._asdict().items()}


if __name__ == "__main__":
    sys.exit(main())
