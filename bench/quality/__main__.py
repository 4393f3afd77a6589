"""The whole protocol: python -m bench.quality [--data FOLDER] [--storage FOLDER].

Trains and judges the recipe on five folds, stage by stage, and prints the README's table of the last stage that is
whole. It goes on where it stopped; steps that bench/results/quality holds are not done again.
"""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.quality import baselines, cells, closer, command, kept, protocol, table
from jobs import evaluate, pipeline
from jobs.classifier import metrics
from jobs.common import keys
from jobs.common.step import RESULTS_VERSION
from jobs.common.storage import Storage
from jobs.evaluate import EvaluateSettings
from jobs.gan import grid
from jobs.mri.dataset import Dataset, open_dataset
from jobs.pipeline import PipelineSettings
from jobs.report import findings, gather

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
            found[name] = run(settings, command.RESULTS, given.workers, name)
            print(table.markdown(*found.values()), table.differences(*found.values()), sep="\n\n", flush=True)

    return command.finish("bench.quality", work)


def run(settings: PipelineSettings, results: Path, workers: int, called: str = "quality") -> dict[str, Any]:
    """Do what `settings` ask for, write `results`/<dataset's name>/<called>.json and return what it says.

    Raises what the jobs raise, Interrupted after a signal; what was finished stays.
    """
    dataset, name = command.prepared(settings)
    results /= name
    wanted = pipeline.classifiers(settings, settings.networks, settings.regimes)
    if settings.controls:
        wanted += pipeline.controls(settings)
    cells.run(settings, dataset, range(settings.folds), wanted, results, workers)
    place = pipeline.place(settings, dataset)
    report = evaluate.run(EvaluateSettings.of(settings, **place, name=name))
    found = json.loads(report.read("report.json"))
    images = open_dataset(dataset.storage, place["dataset"])
    said = cells.predictions(settings, images, place["run"], range(settings.folds))
    hog = baselines.predictions(baselines.prepared(settings))
    cheap = {"hog": metrics.bootstrap([hog], settings.resamples, settings.seed)}
    result = {
        "schema": SCHEMA,
        "commit": command.commit(),
        "results_version": RESULTS_VERSION,
        "run": place["run"],
        "dataset": {name: found["dataset"][name] for name in ("id", *SAME)},
        "looks": looks(results, found["dataset"], place["run"], images.digest),
        "seconds": round(sum(cost["seconds"] for cost in found["cost"])),
        # Part of these; 0 if none of the classifiers knows how long it took.
        "pretraining_seconds": round(sum(cost["seconds"] for cost in found["cost"] if cost["job"] == "pretrain")),
        "baselines": findings.control_results(cheap),
        "closer": closer.results(said, cheap, settings.resamples, settings.seed),
    } | {name: value for name, value in found.items() if name not in LEFT_OUT}
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{called}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    drawn = samples(dataset.storage, place["run"], images)
    if len(drawn):
        (results / "samples.png").write_bytes(grid.grid_png(drawn, COLUMNS))
    return result


def samples(storage: Storage, run: str, dataset: Dataset) -> np.ndarray:
    """Return the first synthetic images of each class in fold 0, uint8 [n, size, size]; none if they are not there."""
    names = [keys.synthetic_image(number) for number in range(COLUMNS * LINES)]
    parts = (part for part in gather.generators(storage, run, dataset, [0]) if part.job == "generate")
    files = (data for part in parts for data in gather.read_left(storage, part, names).values())
    return np.array([np.asarray(Image.open(io.BytesIO(data))) for data in files])


def looks(results: Path, dataset: dict[str, Any], run: str, digest: str) -> list[str]:
    """Return the runs that were ever judged on the folds of `dataset`, whose step has the `digest`.

    Those that stored results name, those of which a fold's predictions are kept, and `run`.
    """
    stored = (json.loads(path.read_text()) for path in sorted(results.glob("*.json")))
    alike = (one for one in stored if all(one.get("dataset", {}).get(name) == dataset[name] for name in SAME))
    before = [look for one in alike for look in one["looks"]]
    for prefix, files in kept.read(results).items():
        if "/classifiers/" in prefix and json.loads(files[kept.MANIFEST])["inputs"].get("dataset") == digest:
            before.append(prefix.split("/")[1])
    return list(dict.fromkeys([*before, run]))


if __name__ == "__main__":
    sys.exit(main())
