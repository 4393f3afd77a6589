"""Where disturbed runs happen, and what is wrong with one that has ended."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.chaos import runs
from jobs import phantom
from jobs.common.errors import MachineError
from jobs.settings import PhantomSettings
from tests.s3_server import S3Server, running

VOLUMES = 500  # of 64 MB, of the S3 server: it keeps what is deleted for a while
ALLOWED = (0, 3, 75)  # exit codes


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

    def environment(self) -> dict[str, str]:
        """Return the variables for the S3 server."""
        return self.server.environment(self.server.owner)


def start(
    place: Place, storage: str, environment: Mapping[str, str] | None = None, **changes: Any
) -> "subprocess.Popen[str]":
    """Start a tiny run with `changes` to its settings and to the environment."""
    words = runs.command(place.data, storage, **changes)
    return runs.start(words, _scratch(place, storage), place.environment() | dict(environment or {}))


def _scratch(place: Place, storage: str) -> Path:
    """Return the folder for temporary files of the runs in a storage."""
    return place.folder / "scratch" / Path(storage).name


def said(what: str, code: int, text: str, allowed: tuple[int, ...] = ALLOWED) -> list[str]:
    """Return what is wrong with the end of a process."""
    wrong = []
    if code not in allowed:
        wrong.append(f"{what}: exit code {code}: {text[-300:]}")
    elif code == MachineError.exit_code:
        sys.stderr.write(f"{what}: {text.splitlines()[-1]}\n")
    if "Traceback" in text:
        wrong.append(f"{what}: a traceback: {text[text.index('Traceback') :][-600:]}")
    return wrong


def judged(place: Place, what: str, code: int, storage: str, wanted: runs.Outputs) -> list[str]:
    """Return what is wrong with a run that has ended."""
    if code:
        return [f"{what}: not finished: exit code {code}"]
    wrong = []
    different = runs.differences(runs.outputs(storage), wanted)
    if different:
        wrong.append(f"{what}: {len(different)} files differ, such as {', '.join(different[:5])}")
    left = [path.name for path in _scratch(place, storage).rglob("*") if path.is_file()]
    if left:
        wrong.append(f"{what}: {len(left)} temporary files are left, such as {left[0]}")
    return wrong


def undisturbed(place: Place, **changes: Any) -> runs.Outputs:
    """Return the outputs of an undisturbed run. Raises SystemExit if it fails."""
    storage = str(place.folder / ("wanted" + "-".join(map(str, changes.values()))))
    process = start(place, storage, **changes)
    _, text = process.communicate()
    if process.returncode:
        raise SystemExit(f"the undisturbed run failed: {text}")
    return runs.outputs(storage)


@contextmanager
def prepared() -> Iterator[tuple[Place, runs.Outputs]]:
    """Yield a place, and the outputs of an undisturbed run."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with running(folder / "server", volumes=VOLUMES) as server:
            place = Place(folder / "heads", folder, server)
            phantom.run(PhantomSettings(out=str(place.data), count=6))
            yield place, undisturbed(place)
