"""The common parts of the commands in bench: flags, exit codes, and the folder of the results."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.common import logs, stopping
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.settings import PipelineSettings

RESULTS = Path(__file__).parents[1] / "results" / "quality"


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of --data, --storage and --workers."""
    parser = argparse.ArgumentParser(prog, description=description)
    parser.add_argument("--data", required=True, help="folder with one folder of images per class")
    parser.add_argument("--storage", default="out/quality", help="folder for images and weights")
    parser.add_argument("--workers", type=int, default=0, help="parallel processes; 0: one per core, or per GPU")
    return parser


def settings(given: argparse.Namespace, recipe: dict[str, Any]) -> PipelineSettings:
    """Return the settings of a recipe with the flags that are given."""
    return PipelineSettings(data=given.data, storage=given.storage, workers=given.workers, **recipe)


def check_names(parser: argparse.ArgumentParser, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """End the command with a message if one of the `names` that were given is not one of the `known` of a kind."""
    for name in names:
        if name not in known:
            parser.error(f"unknown {kind} {name}: one of {', '.join(known)}")


def finish(prog: str, work: Callable[[], None]) -> int:
    """Do the work; return the exit code that a job of mrigan would return."""
    logs.setup("text")
    for number in stopping.SIGNALS:
        signal.signal(number, _interrupt)
    try:
        work()
    except (UserError, MachineError, Interrupted) as end:
        print(f"{prog}: {end}", file=sys.stderr)
        return end.exit_code
    return 0


def commit() -> str:
    """Return the commit of the checkout, or `unknown`."""
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parents[1], capture_output=True, text=True)
    return shown.stdout.strip() or "unknown"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted
