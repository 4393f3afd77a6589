"""The whole protocol: python -m bench.quality --data FOLDER [--storage FOLDER].

Trains and evaluates the recipe on five folds, stage by stage. After each stage it prints the table of the README from
all stages that are done. It continues where it stopped; steps in bench/results/quality are not repeated.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality import baselines, cells, command, kept, protocol, table
from bench.quality.cells import Predicted, bootstraps
from bench.quality.inner import OUTER
from jobs import declaration, evaluate
from jobs import plan as planning
from jobs.classifier import findings, metrics
from jobs.classifier.predictions import take
from jobs.common import keys, png
from jobs.common.step import RESULTS_VERSION, stored
from jobs.common.storage import Storage, open_storage
from jobs.gan import grid, synthetic
from jobs.settings import PipelineSettings

SCHEMA = 2
# Fields that identify a dataset. Its id also depends on the image size and the version of the results.
SAME = ("images", "groups", "labels", "folds")
COLUMNS, LINES = 12, 2  # of each class in the picture of samples
LEFT_OUT = ("schema", "run", "dataset", "positive", "cost")  # fields of report.json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit code of mrigan's jobs."""
    given = command.parser("python -m bench.quality", __doc__).parse_args(arguments)

    def work() -> None:
        found: dict[str, dict[str, Any]] = {}
        for name, stage in protocol.STAGES:
            found[name] = run(command.settings(given, protocol.RECIPE | stage), command.RESULTS, name)
            print(table.markdown(*found.values()), table.differences(*found.values()), sep="\n\n", flush=True)

    return command.finish("bench.quality", work)


def run(settings: PipelineSettings, results: Path, called: str = "quality") -> dict[str, Any]:
    """Train and evaluate with `settings`; write and return `results`/<name of the dataset>/<called>.json.

    Raises the errors of the jobs, and Interrupted after a signal. Finished steps are kept.
    """
    plan, storage = planning.prepare(settings), open_storage(settings.storage)
    results /= plan.name
    folds = range(settings.folds)
    cells.run(storage, plan, folds, results, settings.workers)
    [last] = [task for task in plan.tasks if task.job == "evaluate"]
    report = json.loads(evaluate.run(declaration.settings_of(plan, last)).read("report.json"))
    recipes = product(settings.networks, settings.regimes)
    predicted = cells.predictions(kept.read(results), plan.run, recipes, folds, settings)
    hog = baselines.predictions(baselines.prepared(settings))
    cheap = {"hog": metrics.bootstrap([hog], settings.resamples, settings.seed)}
    result = {
        "schema": SCHEMA,
        "commit": command.commit(),
        "results_version": RESULTS_VERSION,
        "run": plan.run,
        "dataset": {name: report["dataset"][name] for name in ("id", *SAME)},
        "looks": looks(results, report["dataset"], plan.run),
        "seconds": round(sum(cost["seconds"] for cost in report["cost"])),
        # A part of `seconds`; 0 if its duration is not known.
        "pretraining_seconds": round(sum(cost["seconds"] for cost in report["cost"] if cost["job"] == "pretrain")),
        "baselines": findings.control_results(cheap),
        "closer": closer(predicted, cheap, settings),
    } | {name: value for name, value in report.items() if name not in LEFT_OUT}
    (results / f"{called}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    drawn = samples(storage, plan.run, [one["label"] for one in report["dataset"]["labels"]])
    if len(drawn):
        (results / "samples.png").write_bytes(grid.grid_png(drawn, COLUMNS))
    return result


def closer(predicted: Predicted, baselines: dict[str, metrics.Bootstrap], settings: PipelineSettings) -> dict[str, Any]:
    """Return details of the results of each recipe.

    Returns:
        untouched: the metrics on the images of fold OUTER alone. The recipe was chosen on inner splits of the other
            folds, so that only these images had no influence on the choice.
        seeds: the accuracy of each seed.
        beyond: each recipe minus each of `baselines`, in balanced accuracy on the same images.
    """
    untouched = {
        recipe: [take(x, np.flatnonzero(np.array(x.folds) == str(OUTER))) for x in seeds]
        for recipe, seeds in predicted.items()
    }
    return {
        "untouched": findings.results(bootstraps(untouched, settings)),
        "seeds": [
            {"network": network, "regime": regime}
            | {"accuracy": [findings.tidy(metrics.score(x, "accuracy")) for x in seeds]}
            for (network, regime), seeds in predicted.items()
        ],
        "beyond": findings.beyond_controls(bootstraps(predicted, settings), baselines),
    }


def samples(storage: Storage, run: str, labels: Sequence[str]) -> np.ndarray:
    """Return the first synthetic images of each class in fold 0, uint8 [n, size, size]; n is 0 if there are none."""
    steps = (stored(storage, keys.synthetic(run, 0, label)) for label in labels)
    files = (data for step in steps if step for data in synthetic.files(step).first(COLUMNS * LINES))
    return np.array([png.decode(data) for data in files])


def looks(results: Path, dataset: dict[str, Any], run: str) -> list[str]:
    """Return all runs that were evaluated on the folds of `dataset` (of report.json), in order.

    These are the runs in stored results, the runs with kept predictions of a fold, and `run`.
    """
    stored = (json.loads(path.read_text()) for path in sorted(results.glob("*.json")))
    alike = (one for one in stored if all(one.get("dataset", {}).get(name) == dataset[name] for name in SAME))
    before = [look for one in alike for look in one["looks"]]
    for prefix, files in kept.read(results).items():
        if "/classifiers/" in prefix and json.loads(files[kept.MANIFEST])["inputs"].get("dataset") == dataset["digest"]:
            before.append(prefix.split("/")[1])
    return list(dict.fromkeys([*before, run]))


if __name__ == "__main__":
    sys.exit(main())
