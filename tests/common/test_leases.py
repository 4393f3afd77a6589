"""Two processes at one place: one works, the other waits, and none waits for a dead one."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.common import keys, leases
from jobs.common.errors import MachineError
from jobs.common.step import Step
from jobs.common.storage import Storage, open_storage

PREFIX = "runs/r/step"
KEY = keys.lease(PREFIX)
# Another process: takes the step, works until its input ends, and finishes the step if it is told to.
OTHER = """
import sys
from jobs.common.step import Step
from jobs.common.storage import open_storage

step = Step(open_storage(sys.argv[1]), "runs/r/step", job="train-gan", settings={"epochs": 1}, inputs={})
assert step.take()
print("taken", flush=True)
if sys.stdin.readline():
    step.write("losses.csv", b"1\\n")
    step.finish()
    print("finished", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3_url") if request.param == "s3" else str(tmp_path)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.02)


def step(url: str, epochs: int = 1) -> Step:
    return Step(open_storage(url), PREFIX, job="train-gan", settings={"epochs": epochs}, inputs={})


def other(url: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", OTHER, url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "taken\n"
    return process


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "finished\n"


def test_who_comes_second_waits_and_finds_the_work_done(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with other(url) as process:
        waits = threading.Event()
        monkeypatch.setattr(leases.log, "info", lambda *_: waits.set())
        found: list[bool] = []
        waiting = threading.Thread(target=lambda: found.append(step(url).take()))
        waiting.start()
        assert waits.wait(60) and not found
        tell(process)
        waiting.join(60)
        assert found == [False]
        process.kill()
    assert open_storage(url).list("runs") == ["runs/r/step/losses.csv", "runs/r/step/manifest.json"]


def test_other_settings_begin_when_the_first_ones_are_finished(url: str) -> None:
    with other(url) as process:
        tell(process)
        second = step(url, epochs=2)
        assert second.take()
        second.finish()
        process.kill()
    assert step(url, epochs=2).finished() and not step(url).finished()


def test_the_place_of_a_killed_process_is_free_at_once(url: str) -> None:
    with other(url) as process:
        process.kill()
        process.wait()
        assert step(url).take()
    leases.release_all()
    assert open_storage(url).list("") == []


def test_the_lease_of_an_ended_process_can_be_cleared(url: str) -> None:
    with other(url) as process:
        leases.clear(open_storage(url), PREFIX)
        assert open_storage(url).list("") == [KEY]
        process.kill()
        process.wait()
        leases.clear(open_storage(url), PREFIX)
        leases.clear(open_storage(url), PREFIX)
    assert open_storage(url).list("") == []


def test_a_process_of_another_machine_has_ended_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(str(tmp_path))
    monkeypatch.setattr(leases, "SILENT_SECONDS", 0.3)
    storage.write(KEY, json.dumps(leases._holder() | {"process": "p", "host": "elsewhere"}).encode())
    assert step(str(tmp_path)).take()
    leases.release_all()
    storage.write(KEY, b"damaged")
    assert step(str(tmp_path)).take()
    leases.release_all()


class Looked(Storage):
    """A folder in which another machine renews its lease after each look at it."""

    def __init__(self, path: Path) -> None:
        self.inner, self.looks = open_storage(str(path)), 0
        self.url = self.inner.url

    def read(self, key: str) -> bytes:
        self.looks += 1
        if self.looks == 50:
            self.inner.delete(key)
        else:
            content = leases._holder() | {"process": "p", "host": "elsewhere", "beats": self.looks}
            self.inner.write(key, json.dumps(content).encode())
        return self.inner.read(key)

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        return self.inner.write_if(key, data, expected)

    def delete(self, key: str) -> None:
        self.inner.delete(key)


def test_a_process_of_another_machine_that_renews_its_lease_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENT_SECONDS", 0.1)
    storage = Looked(tmp_path)
    lease = leases.take(storage, PREFIX, lambda: False)
    assert lease and storage.looks == 50
    lease.release()


def test_who_lost_the_lease_writes_nothing_more(url: str) -> None:
    slow = step(url)
    assert slow.take()
    assert slow._lease
    # Renewed in time, then taken over by another machine.
    slow._lease.beat()
    slow.write("a", b"")
    open_storage(url).write(KEY, b"another's")
    slow._lease.beat()
    for work in (lambda: slow.write("b", b""), slow.finish):
        with pytest.raises(MachineError, match="another one has taken over: run again"):
            work()
    leases.release_all()
    assert open_storage(url).list("") == [KEY, "runs/r/step/a"]
