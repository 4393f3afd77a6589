"""What the two commands share: their flags, their end, and where results lie."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from jobs import pipeline, preprocess
from jobs.classifier import healthy
from jobs.common import logs
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.step import Step
from jobs.pipeline import PipelineSettings
from jobs.preprocess import PreprocessSettings

RESULTS = Path(__file__).parents[1] / "results" / "quality"


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of --data, --storage and --workers."""
    parser = argparse.ArgumentParser(prog, description=description)
    parser.add_argument("--data", default="../shared/data/brain_tumor_dataset", help="folder of class folders")
    parser.add_argument("--storage", default="out/quality", help="folder for images and weights")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes side by side")
    return parser


def settings(given: argparse.Namespace, asked: dict[str, Any]) -> PipelineSettings:
    """Return the settings that are `asked` for on the data; unless they say so, `healthy` is the class of that name.

    The dataset is prepared, to know its classes; raises what preprocess raises.
    """
    found = PipelineSettings(data=given.data, storage=given.storage, **{"healthy": healthy.AUTO} | asked)
    labels = preprocess.run(PreprocessSettings.of(found)).facts["labels"]
    return pipeline.resolved(found, labels)


def prepared(settings: PipelineSettings) -> tuple[Step, str]:
    """Return the dataset's step and its name. Phantoms, minutes of work, are drawn once something is to learn them."""
    return preprocess.run(PreprocessSettings.of(settings)), settings.name or pipeline.name_of_folder(settings.data)


def finish(prog: str, work: Callable[[], None]) -> int:
    """Do the work and return the exit code that a job of mrigan would end with."""
    logs.setup("text")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        work()
    except (UserError, MachineError, Interrupted) as end:
        print(f"{prog}: {end}", file=sys.stderr)
        return end.exit_code
    return 0


def commit() -> str:
    """Return the commit of the checkout, `unknown` outside of one."""
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parents[1], capture_output=True, text=True)
    return shown.stdout.strip() or "unknown"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted
