"""A step is done when its manifest says so, and only for the work that was asked for."""

import hashlib
from pathlib import Path

import pytest

from jobs.common.errors import MachineError
from jobs.common.step import Step
from jobs.common.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def make(storage: Storage, **settings: int) -> Step:
    return Step(storage, "runs/r/step", job="train-gan", settings=settings or {"epochs": 1}, inputs={"dataset": "d"})


def test_a_step_is_done_once_its_manifest_is_written(storage: Storage) -> None:
    step = make(storage)
    assert not step.finished()
    step.write("losses.csv", b"1\n")
    assert not make(storage).finished()
    step.finish(images=3)
    again = make(storage)
    assert again.finished() and again.reused and not step.reused
    assert again.facts == {"images": 3}
    assert again.digest == step.digest
    assert again.manifest["outputs"] == {"losses.csv": hashlib.sha256(b"1\n").hexdigest()}


def test_other_settings_are_other_work(storage: Storage) -> None:
    make(storage).finish()
    assert not make(storage, epochs=2).finished()


def test_the_digest_tells_outputs_apart_and_nothing_else(storage: Storage) -> None:
    digests = []
    for data in (b"a", b"b", b"a"):
        step = make(storage)
        step.write_many([("images/0.png", data), ("images/1.png", b"same")])
        step.finish(hardware={"threads": len(digests)})
        digests.append(step.digest)
    assert digests[0] == digests[2] != digests[1]
    assert step.manifest["outputs"]["images/"]["files"] == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"settings": 1}', b"\xff"])
def test_a_damaged_manifest_is_named(storage: Storage, damage: bytes) -> None:
    storage.write("runs/r/step/manifest.json", damage)
    with pytest.raises(MachineError, match=r"runs/r/step/manifest\.json is damaged .* delete it and run again"):
        make(storage).finished()
