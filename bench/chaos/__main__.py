"""Break things and see what holds: python -m bench.chaos [PART...] [--seeds N].

Each part runs the whole pipeline on drawn heads, as small as it goes, disturbs it, runs the same command again until it
succeeds, and compares all files with those of an undisturbed run.

  kills    SIGKILL at random times, in a folder and in S3, with one and with two workers
  stops    SIGTERM in the same way: how fast a run ends, and what each stop costs
  storage  an S3 server behind a proxy with faults: 500, 503, 403, 404, resets, cut, short and changed answers, stalls
  pairs    the same run twice at once, in a folder and in S3

One part disturbs no run:

  fuzz     bombs and 20,000 damaged files of every format through the reader, 1,000 through one `mrigan preprocess`
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.chaos import fuzz as fuzzing
from bench.chaos import proxy, runs
from bench.quality import command
from jobs import phantom
from jobs.settings import PhantomSettings
from tests.s3_server import S3Server, running

TRIES = 60  # of one run until it must have succeeded
VOLUMES = 500  # of 64 MB, of the S3 server: it keeps what is deleted for a while
RATE = 0.05  # share of the requests with a fault
ALLOWED = (0, 3, 75)  # exit codes
ROOT = Path(__file__).parents[2]


class Found(NamedTuple):
    """What a part found: disturbed runs, disturbances by kind, and what was wrong, a line each."""

    runs: int
    met: Counter[str]
    wrong: list[str]


class Place(NamedTuple):
    """Where runs happen: the heads, a folder for all else, and the S3 server."""

    data: Path
    folder: Path
    server: S3Server

    def storages(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield a folder and an S3 address for runs called `name`, each with the kind of storage."""
        yield "folder", str(self.folder / name)
        yield "S3", f"s3://tests/{name}"

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Return the variables for the S3 server, at another `endpoint` if one is given."""
        found = self.server.environment(self.server.owner)
        return found | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})


def kills(place: Place, wanted: runs.Outputs, duration: float, seeds: range) -> Found:
    """Kill runs at random times until they have ended."""
    return _interrupted("kills", signal.SIGKILL, place, wanted, duration, seeds)


def stops(place: Place, wanted: runs.Outputs, duration: float, seeds: range) -> Found:
    """Stop runs at random times, as a preemption does, until they have ended."""
    return _interrupted("stops", signal.SIGTERM, place, wanted, duration, seeds)


def _interrupted(
    part: str, number: signal.Signals, place: Place, wanted: runs.Outputs, duration: float, seeds: range
) -> Found:
    """Send a signal at random times to runs with one and two workers, in a folder and in S3.

    With one worker, the cost of a signal is measured too: the seconds of all starts beyond those of the undisturbed
    run, which is `duration`.
    """
    found = Found(0, Counter(), [])
    exits, lost, signals = [0.0], 0.0, 0
    for seed in seeds:
        generator = random.Random(seed)
        for kind, storage in place.storages(f"{part}-{seed}"):
            found = found._replace(runs=found.runs + 1)
            what, workers = f"{part}, seed {seed}, {kind}", 1 + seed % 2
            sent, began = 0, time.monotonic()
            for _ in range(TRIES):
                process = _start(place, storage, workers=workers)
                try:
                    process.communicate(timeout=generator.uniform(0, 1.2 * duration))
                    break
                except subprocess.TimeoutExpired:
                    asked = time.monotonic()
                    process.send_signal(number)
                    _, said = process.communicate()
                    exits.append(time.monotonic() - asked)
                    sent += 1
                    if number == signal.SIGTERM and process.returncode != 0:
                        found.wrong.extend(_said(what, process.returncode, said, allowed=(75,)))
            found.met[kind] += sent
            if workers == 1:
                lost, signals = lost + time.monotonic() - began - duration, signals + sent
            found.wrong.extend(_judged(place, what, process.returncode, storage, wanted))
    found.met["slowest exit, s"] = math.ceil(max(exits))
    found.met["cost of a signal, s"] = round(lost / max(1, signals))
    return found


def storage(place: Place, wanted: runs.Outputs, duration: float, seeds: range) -> Found:
    """Run with an S3 server that is disturbed."""
    found = Found(0, Counter(), [])
    for seed in seeds:
        address, faults = f"s3://tests/storage-{seed}", proxy.Faults(seed, RATE)
        with proxy.running(place.server.endpoint, faults) as endpoint:
            for _ in range(TRIES):
                process = _start(place, address, endpoint=endpoint)
                _, said = process.communicate()
                found.wrong.extend(_said(f"storage, seed {seed}", process.returncode, said))
                if process.returncode == 0:
                    break
        found.met.update(faults.met)
        found = found._replace(runs=found.runs + 1)
        found.wrong.extend(_judged(place, f"storage, seed {seed}", process.returncode, address, wanted))
    return found


def pairs(place: Place, wanted: runs.Outputs, duration: float, seeds: range) -> Found:
    """Start the same run twice, the second a random time later."""
    found = Found(0, Counter(), [])
    for seed in seeds:
        generator = random.Random(seed)
        for kind, address in place.storages(f"pairs-{seed}"):
            first = _start(place, address)
            time.sleep(generator.uniform(0, duration / 2))
            both = [first, _start(place, address)]
            for process in both:
                _, said = process.communicate()
                found.wrong.extend(_said(f"pairs, seed {seed}, {kind}", process.returncode, said))
            found.met[kind] += 1
            found = found._replace(runs=found.runs + 1)
            code = max(process.returncode for process in both)
            found.wrong.extend(_judged(place, f"pairs, seed {seed}, {kind}", code, address, wanted))
    return found


def fuzz(place: Place, wanted: runs.Outputs, duration: float, seeds: range) -> Found:
    """Read bombs and damaged files."""
    ways = {
        "bombs": fuzzing.bombs,
        "reader": lambda: fuzzing.mutants_read(seeds.stop),
        "command": lambda: fuzzing.through_command(seeds.stop, place.data, place.folder / "fuzz"),
    }
    found = Found(0, Counter(), [])
    for way, read in ways.items():
        met, wrong, memory = read()
        found.met.update({f"{way}: {verdict}": count for verdict, count in met.items()})
        found.met[f"{way}: highest memory in MiB"] = memory // 2**20
        found = Found(found.runs + met.total(), found.met, found.wrong + wrong)
    return found


PARTS: dict[str, Callable[[Place, runs.Outputs, float, range], Found]] = {
    "kills": kills,
    "stops": stops,
    "storage": storage,
    "pairs": pairs,
    "fuzz": fuzz,
}


def _start(place: Place, storage: str, workers: int = 1, endpoint: str = "") -> "subprocess.Popen[str]":
    words = runs.command(place.data, storage, workers)
    return runs.start(words, place.folder / "scratch", place.environment(endpoint))


def _said(what: str, code: int, said: str, allowed: tuple[int, ...] = ALLOWED) -> list[str]:
    """Return what is wrong with the end of a process."""
    wrong = []
    if code not in allowed:
        wrong.append(f"{what}: exit code {code}: {said[-300:]}")
    elif code and code != 75:
        sys.stderr.write(f"{what}: {said.splitlines()[-1]}\n")
    if "Traceback" in said:
        wrong.append(f"{what}: a traceback: {said[said.index('Traceback') :][-600:]}")
    return wrong


def _judged(place: Place, what: str, code: int, storage: str, wanted: runs.Outputs) -> list[str]:
    """Return what is wrong with a run that has ended."""
    if code:
        return [f"{what}: not finished: exit code {code}"]
    wrong = []
    different = runs.differences(runs.outputs(storage), wanted)
    if different:
        wrong.append(f"{what}: {len(different)} files differ, such as {', '.join(different[:5])}")
    left = [path.name for path in (place.folder / "scratch").rglob("*") if path.is_file()]
    if left:
        wrong.append(f"{what}: {len(left)} temporary files are left, such as {left[0]}")
    return wrong


@contextmanager
def prepared() -> Iterator[tuple[Place, runs.Outputs, float]]:
    """Yield a place, the outputs of an undisturbed run and its duration in seconds."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with running(folder / "server", volumes=VOLUMES) as server:
            place = Place(folder / "heads", folder, server)
            phantom.run(PhantomSettings(out=str(place.data), count=6))
            began = time.monotonic()
            process = _start(place, str(folder / "wanted"))
            _, said = process.communicate()
            if process.returncode:
                raise SystemExit(f"the undisturbed run failed: {said}")
            yield place, runs.outputs(str(folder / "wanted")), time.monotonic() - began


def main() -> int:
    """Run the parts; print a table, write bench/results/chaos.json, and return 1 if something was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, default=3, help="disturbed runs of each kind")
    given = parser.parse_args()
    command.check_names(parser, "part", given.parts, PARTS)
    rows, wrong = {}, []
    with prepared() as (place, wanted, duration):
        os.environ.update(place.environment())
        for name in given.parts or PARTS:
            began = time.monotonic()
            found = PARTS[name](place, wanted, duration, range(given.seeds))
            met = ", ".join(f"{kind} {count}" for kind, count in sorted(found.met.items()))
            took = time.monotonic() - began
            print(f"| {name} | {found.runs} | {met} | {len(found.wrong)} | {took:.0f} s |", flush=True)
            rows[name] = {"runs": found.runs, "met": dict(found.met), "wrong": found.wrong, "seconds": round(took)}
            wrong += found.wrong
    (ROOT / "bench" / "results" / "chaos.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
