"""Imports job modules without the output that TensorFlow prints on import."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# The command `report` would otherwise have the name of the package jobs.report.
MODULES = {"report": "fetch_report"}


def load_job(job: str) -> ModuleType:
    """Return the module of a job, such as `train-gan`; its imports are loaded now."""
    # Errors raise exceptions; TensorFlow's log is for its developers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent():
        return importlib.import_module(module_of(job))


def module_of(job: str) -> str:
    """Return the dotted name of a job's module."""
    return f"jobs.{MODULES.get(job, job.replace('-', '_'))}"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard standard error, including that of C++ libraries, whose first lines ignore the log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
