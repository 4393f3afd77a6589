"""Work is done in its order by several processes; a failure stops only what needs it, a signal everything."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.common import progress
from jobs.common.errors import MachineError, UserError
from jobs.common.workers import Setup, Watcher, Work, carry_out

BOTH = pytest.mark.parametrize("workers", [1, 2])


def perform(payload: tuple[str, str]) -> None:
    """Write a line to a file, or fail in the way that is asked for."""
    path, what = payload
    progress.tell(1, 2, "half")
    if what == "mistake":
        raise UserError("this is wrong")
    if what == "machine":
        raise MachineError("the disk is full")
    if what == "bug":
        raise ValueError("a bug")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    with Path(path).open("a") as file:
        file.write(f"{what} {os.getpid()}\n")


class Recorder(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def started(self, name: str) -> None:
        """Keep it."""
        self.events.append(("started", name))

    def told(self, name: str, done: int, total: int, text: str) -> None:
        """Keep it."""
        self.events.append(("told", name, done, total, text))

    def ended(self, name: str, failed: bool) -> None:
        """Keep it."""
        self.events.append(("failed" if failed else "done", name))


def run(folder: Path, works: dict[str, Sequence[str]], failing: dict[str, str], workers: int) -> Recorder:
    """Carry out works that need others by name."""
    told = Recorder()
    made = [
        Work(name, frozenset(needs), (str(folder / "lines"), failing.get(name, name))) for name, needs in works.items()
    ]
    carry_out(made, perform, [Setup("text", 0, None)] * workers, told)
    return told


def lines(folder: Path) -> list[str]:
    """Return what was done, in order."""
    return [line.split()[0] for line in (folder / "lines").read_text().splitlines()]


@BOTH
def test_what_is_needed_comes_first(workers: int, tmp_path: Path) -> None:
    works = {"a": (), "b": ("a",), "c": (), "d": ("b", "c"), "e": ("d",)}
    told = run(tmp_path, works, {}, workers)
    done = lines(tmp_path)
    assert sorted(done) == sorted(works)
    assert all(done.index(need) < done.index(name) for name, needs in works.items() for need in needs)
    assert {event[1] for event in told.events if event[0] == "done"} == set(works)
    assert ("told", "d", 1, 2, "half") in told.events
    for name in works:
        assert told.events.index(("started", name)) < told.events.index(("done", name))


def test_each_worker_is_a_process_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, {str(number): () for number in range(40)}, {}, 2)
    processes = {line.split()[1] for line in (tmp_path / "lines").read_text().splitlines()}
    assert os.getpid() not in map(int, processes) and len(processes) <= 2


@BOTH
@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("mistake", UserError, "b: this is wrong"),
        ("machine", MachineError, "b: the disk is full"),
        ("bug", RuntimeError, r"b: ValueError\('a bug'\)"),
    ],
)
def test_the_others_are_done_first(what: str, kind: type, message: str, workers: int, tmp_path: Path) -> None:
    works = {"a": (), "b": ("a",), "c": ("b",), "d": ("c",), "e": (), "f": ("e",)}
    with pytest.raises(kind, match=f"^{message}; tasks that depend on it and were not started: 2$"):
        run(tmp_path, works, {"b": what}, workers)
    assert sorted(lines(tmp_path)) == ["a", "e", "f"]


def test_a_killed_worker_is_named_and_the_other_goes_on(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"^a: the process was killed"):
        run(tmp_path, {"a": (), "b": (), "c": ("b",)}, {"a": "killed"}, 2)
    assert lines(tmp_path) == ["b", "c"]


CODE = """
import signal, sys, time
from pathlib import Path
from jobs.common.errors import Interrupted
from jobs.common.workers import Setup, Watcher, Work, carry_out

def perform(path):
    try:
        Path(path + ".began").touch()
        time.sleep(600)
    except Interrupted:
        Path(path + ".saved").touch()
        raise

def stop(number, frame):
    raise Interrupted

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    works = [Work(name, frozenset(), sys.argv[1] + "/" + name) for name in "ab"]
    try:
        carry_out(works, perform, [Setup("text", 0, None)] * 2, Watcher())
    except Interrupted:
        sys.exit(75)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """Start two works that never end in a process of their own, and return when they have begun."""
    script = folder / "script.py"
    script.write_text(CODE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment, text=True)
    while not all((folder / f"{name}.began").exists() for name in "ab"):
        assert process.poll() is None
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_workers_after_their_last_word(number: int, tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    assert process.wait(60) == 75
    assert {path.name for path in tmp_path.glob("*.saved")} == {"a.saved", "b.saved"}


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    process = start(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    for child in children:
        # The resource tracker of multiprocessing ends too.
        while (state := Path(f"/proc/{child}/stat")).exists() and " Z " not in state.read_text():
            pass
