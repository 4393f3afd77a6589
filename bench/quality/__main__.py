"""The whole protocol: python -m bench.quality [--data FOLDER] [--storage FOLDER].

Trains and judges the recipe on five folds, stage by stage, and prints the README's table of the last stage that is
whole. It goes on where it stopped; steps that bench/results/quality holds are not done again.
"""

import io
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.quality import baselines, cells, closer, command, kept, protocol, table
from jobs import evaluate
from jobs import plan as planning
from jobs.classifier import metrics
from jobs.common import keys
from jobs.common.step import RESULTS_VERSION
from jobs.common.storage import Storage, open_storage
from jobs.gan import grid
from jobs.report import findings
from jobs.settings import PipelineSettings

SCHEMA = 2
# Of a dataset; its id changes with the image size and the version of the results, and these do not.
SAME = ("images", "groups", "labels", "folds")
COLUMNS, LINES = 12, 2  # of the picture of samples, for each class
LEFT_OUT = ("schema", "run", "dataset", "positive", "cost")  # of report.json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit code of mrigan's jobs."""
    given = command.parser("python -m bench.quality", __doc__).parse_args(arguments)

    def work() -> None:
        found: dict[str, dict[str, Any]] = {}
        for name, stage in protocol.STAGES:
            settings = command.settings(given, protocol.RECIPE | stage)
            found[name] = run(settings, command.RESULTS, name)
            print(table.markdown(*found.values()), table.differences(*found.values()), sep="\n\n", flush=True)

    return command.finish("bench.quality", work)


def run(settings: PipelineSettings, results: Path, called: str = "quality") -> dict[str, Any]:
    """Do what `settings` ask for, write `results`/<dataset's name>/<called>.json and return what it says.

    Raises what the jobs raise, Interrupted after a signal; what was finished stays.
    """
    plan, storage = planning.prepare(settings), open_storage(settings.storage)
    results /= plan.name
    folds = range(settings.folds)
    cells.run(storage, plan, folds, results, settings.workers)
    [last] = [task for task in plan.tasks if task.job == "evaluate"]
    found = json.loads(evaluate.run(planning.settings_of(plan, last)).read("report.json"))
    recipes = product(settings.networks, settings.regimes)
    said = cells.predictions(kept.read(results), plan.run, recipes, folds, settings)
    hog = baselines.predictions(baselines.prepared(settings))
    cheap = {"hog": metrics.bootstrap([hog], settings.resamples, settings.seed)}
    result = {
        "schema": SCHEMA,
        "commit": command.commit(),
        "results_version": RESULTS_VERSION,
        "run": plan.run,
        "dataset": {name: found["dataset"][name] for name in ("id", *SAME)},
        "looks": looks(results, found["dataset"], plan.run),
        "seconds": round(sum(cost["seconds"] for cost in found["cost"])),
        # Part of these; 0 if none of the classifiers knows how long it took.
        "pretraining_seconds": round(sum(cost["seconds"] for cost in found["cost"] if cost["job"] == "pretrain")),
        "baselines": findings.control_results(cheap),
        "closer": closer.results(said, cheap, settings),
    } | {name: value for name, value in found.items() if name not in LEFT_OUT}
    (results / f"{called}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    drawn = samples(storage, plan.run, [one["label"] for one in found["dataset"]["labels"]])
    if len(drawn):
        (results / "samples.png").write_bytes(grid.grid_png(drawn, COLUMNS))
    return result


def samples(storage: Storage, run: str, labels: Sequence[str]) -> np.ndarray:
    """Return the first synthetic images of each class in fold 0, uint8 [n, size, size]; none if they are not there."""
    names = [keys.synthetic_image(number) for number in range(COLUMNS * LINES)]
    places = (f"{keys.synthetic(run, 0, label)}/{name}" for label in labels for name in names)
    files = (storage.read(place) for place in places if storage.exists(place))
    return np.array([np.asarray(Image.open(io.BytesIO(data))) for data in files])


def looks(results: Path, dataset: dict[str, Any], run: str) -> list[str]:
    """Return the runs that were ever judged on the folds of the dataset that report.json speaks of.

    Those that stored results name, those of which a fold's predictions are kept, and `run`.
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
