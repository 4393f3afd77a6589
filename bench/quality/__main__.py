"""The whole protocol: python -m bench.quality [--data FOLDER] [--storage FOLDER].

Trains and judges the recipe on five folds, stage by stage, and prints the README's table of the last stage that is
whole. It goes on where it stopped; steps that bench/results/quality holds are not done again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench.quality import cells, kept, protocol, table
from jobs import evaluate, pipeline
from jobs.common import logs
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.step import Step, read_output
from jobs.evaluate import EvaluateSettings
from jobs.pipeline import PipelineSettings

RESULTS = Path(__file__).parents[1] / "results" / "quality"
SCHEMA = 1
PARTS = ("settings", "results", "comparisons", "controls", "confusion", "quality", "recipe", "hardware", "versions")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit code of mrigan's jobs."""
    parser = argparse.ArgumentParser("python -m bench.quality", description=__doc__)
    parser.add_argument("--data", default="../shared/data/brain_tumor_dataset", help="folder of class folders")
    parser.add_argument("--storage", default="out/quality", help="folder for images and weights")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes side by side")
    given = parser.parse_args(arguments)
    logs.setup("text")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        for stage in protocol.STAGES:
            settings = PipelineSettings(data=given.data, storage=given.storage, **(protocol.RECIPE | stage))
            result = run(settings, RESULTS, given.workers)
            print(table.markdown(result), table.differences(result), sep="\n\n", flush=True)
    except (UserError, MachineError, Interrupted) as end:
        print(f"bench.quality: {end}", file=sys.stderr)
        return end.exit_code
    return 0


def run(settings: PipelineSettings, results: Path, workers: int) -> dict[str, Any]:
    """Do what `settings` ask for, write `results`/quality.json and return what it says.

    Raises what the jobs raise, Interrupted after a signal; what was finished stays.
    """
    dataset, name = pipeline.prepare(settings)
    wanted = pipeline.classifiers(settings, settings.networks, settings.regimes)
    if settings.controls:
        wanted += pipeline.controls(settings)
    cells.run(settings, dataset, range(settings.folds), wanted, results, workers)
    place = pipeline.place(settings, dataset)
    report = evaluate.run(EvaluateSettings.of(settings, **place, name=name))
    found = json.loads(read_output(dataset.storage, report.prefix, report.manifest, "report.json"))
    result = {
        "schema": SCHEMA,
        "commit": _commit(),
        "run": place["run"],
        "dataset": {name: found["dataset"][name] for name in ("id", "images", "groups", "labels", "folds")},
        "looks": looks(dataset, results),
        "seconds": round(sum(cost["seconds"] for cost in found["cost"])),
    } | {name: found[name] for name in PARTS}
    results.mkdir(parents=True, exist_ok=True)
    (results / "quality.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


def looks(dataset: Step, results: Path) -> int:
    """Return how many recipes were judged on the folds of `dataset`, by what is kept in `results`."""
    runs = set()
    for path in results.glob(f"runs/*/fold-*/classifiers/*/{kept.MANIFEST}"):
        if json.loads(path.read_text())["inputs"]["dataset"] == dataset.digest:
            runs.add(path.relative_to(results).parts[1])
    return len(runs)


def _commit() -> str:
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parents[1], capture_output=True, text=True)
    return shown.stdout.strip() or "unknown"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
