"""Runs that are killed or stopped again and again, until they have ended."""

import math
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.chaos import runs
from bench.chaos.place import ALLOWED, Found, Place, judged, said, start, undisturbed

KILLS, STOPS = 8, 3  # signals to a run, times the number of seeds
TRIES = 10  # of a run after the last signal
SIDE_BY_SIDE = 2  # runs
GRACE = 25.0  # seconds to end after SIGTERM: Kubernetes waits 30
# Before which operation on storage a start is killed at the latest: it gets so far in some seconds.
OPERATIONS = {"folder": 16, "S3": 360}
SECONDS = 12.0  # before which a start gets the signal at the latest
HOOK = {"PYTHONPATH": str(Path(__file__).with_name("killing"))}
# Its first step compiles for some 20 seconds.
LARGE: dict[str, Any] = {"networks": "resnet152v2", "regimes": "real"}
LARGE_SIGNALS, LARGE_SECONDS = 4, 60.0


class Disturbed(NamedTuple):
    """A run that gets up to `signals` signals, each in the first `seconds` of a start."""

    name: str
    kind: str
    storage: str
    changes: dict[str, Any]
    signals: int
    seconds: float
    wanted: runs.Outputs


def kills(place: Place, wanted: runs.Outputs, seeds: range) -> Found:
    """Kill runs: at random times, and with all their workers before random operations on storage."""
    return _interrupted("kills", signal.SIGKILL, place, wanted, KILLS * len(seeds))


def stops(place: Place, wanted: runs.Outputs, seeds: range) -> Found:
    """Stop runs at random times, as a preemption does."""
    return _interrupted("stops", signal.SIGTERM, place, wanted, STOPS * len(seeds))


def _runs(part: str, place: Place, wanted: runs.Outputs, signals: int) -> Iterator[Disturbed]:
    yield Disturbed(
        f"{part} of resnet152v2",
        "folder",
        str(place.folder / f"{part}-resnet152v2"),
        LARGE,
        LARGE_SIGNALS,
        LARGE_SECONDS,
        undisturbed(place, **LARGE),
    )
    for workers in (1, 2):
        for kind, storage in place.storages(f"{part}-{workers}"):
            name = f"{part}, {kind}, workers {workers}"
            yield Disturbed(name, kind, storage, {"workers": workers}, signals, SECONDS, wanted)


def _interrupted(part: str, number: signal.Signals, place: Place, wanted: runs.Outputs, signals: int) -> Found:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        ended = list(pool.map(lambda run: disturb(place, run, number), _runs(part, place, wanted, signals)))
    met = sum((met for met, _, _ in ended), Counter[str]())
    if number == signal.SIGTERM:
        met["slowest exit, s"] = math.ceil(max(slowest for _, slowest, _ in ended))
    return Found(len(ended), met, [line for _, _, wrong in ended for line in wrong])


def disturb(place: Place, run: Disturbed, number: signal.Signals) -> tuple[Counter[str], float, list[str]]:
    """Return the count of signals, the seconds of the slowest exit after one, and what was wrong."""
    generator, met, slowest, wrong = random.Random(run.name), Counter[str](), 0.0, list[str]()
    for _ in range(run.signals + TRIES):
        sent = met.total()
        at_time = sent < run.signals and (number == signal.SIGTERM or sent % 2 == 0)
        at_operation = sent < run.signals and not at_time
        operation = str(generator.randint(1, OPERATIONS[run.kind]))
        process = start(place, run.storage, HOOK | {"KILL_BEFORE": operation} if at_operation else {}, **run.changes)
        try:
            _, text = process.communicate(timeout=generator.uniform(0, run.seconds) if at_time else None)
        except subprocess.TimeoutExpired:
            asked = time.monotonic()
            process.send_signal(number)
            _, text = process.communicate()
            slowest = max(slowest, time.monotonic() - asked)
        wrong.extend(said(run.name, process.returncode, text, allowed=(*ALLOWED, -signal.SIGKILL)))
        if process.returncode == 0:
            break
        met[f"{run.kind}, {'at an operation' if at_operation else 'at a time'}"] += 1
    if number == signal.SIGTERM and slowest > GRACE:
        wrong.append(f"{run.name}: {slowest:.0f} s from SIGTERM to the end")
    return met, slowest, wrong + judged(place, run.name, process.returncode, run.storage, run.wanted)
