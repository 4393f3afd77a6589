"""What one failed read does: nothing. What two do: the error that names the file."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import finished
from jobs.common import shards
from jobs.common.errors import MachineError
from jobs.common.step import Step, stored
from jobs.common.storage import Folder, MissingKey

PREFIX = "runs/r/step"
FILES = [(f"{number:06d}.png", bytes([number]) * 2**20) for number in range(8)]
Fault = Callable[[bytes], bytes]


def missing(data: bytes) -> bytes:
    raise MissingKey("key")


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


class Faulty(Folder):
    """A folder in which the first `times` reads of each object have a fault."""

    def __init__(self, path: Path, fault: Fault, times: int) -> None:
        super().__init__(str(path))
        self.fault, self.times, self.reads = fault, times, Counter[str]()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        data = super().read_range(key, start, length)
        self.reads[key] += 1
        return self.fault(data) if self.reads[key] <= self.times else data


@pytest.fixture
def made(tmp_path: Path) -> Path:
    step = Step(Folder(str(tmp_path)), PREFIX, job="generate", settings={}, inputs={})
    step.write("losses.csv", b"1\n")
    shards.write(step, "images", iter(FILES))
    step.finish()
    return tmp_path


def everything(storage: Folder) -> None:
    """Read the outputs in each way: a file, all of a shard, and a part of a shard."""
    step = stored(storage, PREFIX)
    assert step
    assert step.read("losses.csv") == b"1\n"
    images = shards.Shards(storage, PREFIX, step.manifest, "images")
    assert dict(images.read()) == dict(FILES)
    [found] = images.read([FILES[3][0]])
    assert found == FILES[3]


@pytest.mark.parametrize("fault", [flipped, cut])
def test_a_fault_of_one_read_changes_nothing(made: Path, fault: Fault) -> None:
    everything(Faulty(made, fault, 1))


def test_an_output_that_is_missing_for_a_moment_is_read(made: Path) -> None:
    storage = Faulty(made, missing, 1)
    storage.reads[f"{PREFIX}/manifest.json"] = 1  # without a manifest the step is not finished, and that is no fault
    everything(storage)


@pytest.mark.parametrize("fault", [flipped, cut, missing])
def test_a_fault_of_two_reads_names_the_file(made: Path, fault: Fault) -> None:
    storage = Faulty(made, fault, 2)
    storage.reads[f"{PREFIX}/manifest.json"] = 2
    with pytest.raises(MachineError, match=r"losses\.csv is (damaged|missing): delete .* and run its job again"):
        everything(storage)


def test_an_input_that_is_missing_is_the_machines_failure(made: Path) -> None:
    finished.check_needs(Faulty(made, missing, 1), [PREFIX])
    with pytest.raises(MachineError, match="r/step is missing, although the task that makes it is done: run again"):
        finished.check_needs(Faulty(made, missing, 2), [PREFIX])
