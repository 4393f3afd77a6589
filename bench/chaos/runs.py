"""A tiny run of the whole pipeline in a process of its own, and what it left."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.common.storage import open_storage

# As small as a run goes; every job is part of it.
TINY: dict[str, object] = {
    "image_size": 32,
    "folds": 2,
    "regimes": "synthetic,real",
    "gan_epochs": 4,
    "gan_width": 4,
    "gan_batch": 8,
    "latent": 8,
    "sample_every": 2,
    "synthetic_count": 40,
    "phantoms": 16,
    "phantom_epochs": 1,
    "classifier_epochs": 1,
    "classifier_steps_per_epoch": 3,
    "classifier_batch": 8,
    "checkpoint_steps": 1,
    "resamples": 100,
}
# Changes for a shorter one: no GAN, no phantoms.
SHORT: dict[str, Any] = {"regimes": "real", "healthy": "off"}
# Fields with times, hardware and digests over them.
VOLATILE = frozenset(
    {
        *("seconds", "hardware", "cost", "time", "training_seconds", "seconds_per_step", "images_per_second"),
        *("began", "succeeded", "pretraining_seconds", "digest", "versions"),
    }
)
Outputs = dict[str, Any]


def command(data: Path, storage: str, **changes: object) -> list[str]:
    """Return the command of a tiny run with `changes` to its settings."""
    settings = TINY | {"data": data, "storage": storage, "workers": 1} | changes
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "jobs.cli", "pipeline", *flags]


def start(words: list[str], scratch: Path, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a run, the first of a process group, whose temporary files are in `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    own = os.environ | dict(environment) | {"TMPDIR": str(scratch)}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=own, process_group=0, **pipes)


def outputs(storage: str) -> Outputs:
    """Return what a run left: bytes by key, and of JSON objects the fields that no clock or machine sets."""
    opened = open_storage(storage)
    found: Outputs = {}
    for key in opened.list(""):
        data = opened.read(key)
        if key.startswith("sources/") or key.endswith(("report.html", "history.csv")):
            found[key] = b""
        elif key.endswith(".json"):
            found[key] = _stable(json.loads(data))
            if key.endswith("report/manifest.json"):
                found[key].pop("outputs")  # digests over the seconds in the report
        else:
            found[key] = data
    return found


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stable(inner) for name, inner in value.items() if name not in VOLATILE}
    return [_stable(inner) for inner in value] if isinstance(value, list) else value


def differences(found: Outputs, wanted: Outputs) -> list[str]:
    """Return the keys that only one of both has, or with other content."""
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
