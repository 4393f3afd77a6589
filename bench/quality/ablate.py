"""What each part of the recipe is worth: python -m bench.quality.ablate [VARIANT...] [--data FOLDER].

Trains variants of the recipe on two inner splits (see bench.quality.inner) and prints the table of all that are done,
so that the five folds are looked at by the chosen recipe alone. Cells that bench/results/quality holds are not done
again.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality import cells, command, protocol
from bench.quality.inner import inner_dataset
from jobs import pipeline
from jobs.classifier import metrics
from jobs.classifier.predictions import join_predictions, read_predictions
from jobs.common import keys
from jobs.common.step import Step, read_manifest, read_output
from jobs.common.storage import open_storage
from jobs.mri.dataset import open_dataset
from jobs.pipeline import PipelineSettings
from jobs.report import words

SPLITS = (0, 1)  # of inner_dataset's parts, the ones that are held out
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
            asked = protocol.RECIPE | protocol.STAGES[0] | protocol.VARIANTS[name]
            settings = PipelineSettings(data=given.data, storage=given.storage, **asked)
            print(table(run(name, settings, command.RESULTS, given.workers)), flush=True)

    return command.finish("bench.quality.ablate", work)


def run(name: str, settings: PipelineSettings, results: Path, workers: int) -> Json:
    """Do what `settings` ask for on the inner splits, add it to `results`/ablations.json as `name`; return all of that.

    Raises what the jobs raise, Interrupted after a signal; what was finished stays.
    """
    outer, _ = pipeline.prepare(settings)
    storage = open_storage(settings.storage)
    inner = inner_dataset(open_dataset(storage, outer.prefix.rpartition("/")[2]))
    wanted = pipeline.classifiers(settings, settings.networks, settings.regimes)
    cells.run(settings, inner, SPLITS, wanted, results, workers)
    one = {"commit": command.commit(), "settings": protocol.VARIANTS.get(name, {}), **_read(settings, inner)}
    path = results / "ablations.json"
    results.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    found = before | {name: one}
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _read(settings: PipelineSettings, inner: Step) -> Json:
    """Return the accuracy and ROC-AUC of each network and regime, and the mean figures of the synthetic images."""
    storage, run = inner.storage, pipeline.name_of_run(inner, settings)

    def output(prefix: str, name: str) -> bytes:
        return read_output(storage, prefix, read_manifest(storage, prefix) or {}, name)

    results = []
    for network in settings.networks:
        for regime in settings.regimes:
            pooled = [
                join_predictions(
                    [
                        read_predictions(output(keys.classifier(run, split, network, regime, seed), "predictions.csv"))
                        for split in SPLITS
                    ]
                )
                for seed in range(settings.seed, settings.seed + settings.seeds)
            ]
            draws = metrics.bootstrap(pooled, settings.resamples, settings.seed)
            for metric in ("accuracy", "roc_auc"):
                estimate = metrics.estimate(draws, metric)
                results.append(
                    {"network": network, "regime": regime, "metric": metric}
                    | {"value": estimate.value, "low": estimate.low, "high": estimate.high}
                )
    if set(settings.regimes) == {"real"}:
        return {"run": run, "results": results, "quality": {}}
    judged = [
        json.loads(output(keys.synthetic(run, split, label), "quality.json"))
        for split in SPLITS
        for label in inner.facts["labels"]
    ]
    quality: Json = {"copies": float(np.mean([one["memorization"]["copies"]["generated"] for one in judged]))}
    for metric in FIGURES:
        # Splits and classes are judged on images of their own: their errors are taken for independent.
        values = [f["generated"] for one in judged for f in one["figures"] if f["metric"] == metric]
        value = float(np.mean([x["value"] for x in values]))
        quality[metric] = {"value": value, "low": None, "high": None}
        # With fewer than four images of a class there is no error.
        if all(x["error"] is not None for x in values):
            error = float(np.sqrt(np.sum([x["error"] ** 2 for x in values])) / len(values))
            quality[metric] |= {"low": value - 1.96 * error, "high": value + 1.96 * error}
    return {"run": run, "results": results, "quality": quality}


def table(found: Json) -> str:
    """Return what `run` wrote as a Markdown table, a line for each variant, network and regime."""
    head = ["variant", "trained on", "accuracy", "ROC-AUC", "KID", "coverage", "recall", "copies"]
    lines = [head, ["---"] * len(head)]
    for name, one in found.items():
        quality = one["quality"]
        drawn = [_interval(quality[x], x) for x in FIGURES] + [f"{quality['copies']:.2f}"] if quality else [""] * 4
        cases = dict.fromkeys((x["network"], x["regime"]) for x in one["results"])
        for network, regime in cases:
            by_metric = {x["metric"]: x for x in one["results"] if (x["network"], x["regime"]) == (network, regime)}
            shown = [_interval(by_metric[x], x) for x in ("accuracy", "roc_auc")]
            lines.append([name, words.REGIMES[regime], *shown, *(drawn if regime != "real" else [""] * 4)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _interval(entry: Json, metric: str) -> str:
    value = words.number(entry["value"], metric).replace(words.SPACE, " ")
    return f"{value} [{words.bounds(entry['low'], entry['high'], metric)}]"


if __name__ == "__main__":
    sys.exit(main())
