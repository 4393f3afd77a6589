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


def make(storage: Storage, prefix: str = "runs/r/step", shared: bool = False, **settings: int) -> Step:
    asked = settings or {"epochs": 1}
    return Step(storage, prefix, job="train-gan", settings=asked, inputs={"dataset": "d"}, shared=shared)


def make_other(storage: Storage, **settings: int) -> Step:
    return make(storage, "runs/s/step", shared=True, **settings)


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


def share(storage: Storage) -> Step:
    step = make(storage, shared=True)
    step.write("losses.csv", b"1\n")
    step.write_many([("samples/0.png", b"a"), ("samples/1.png", b"b")])
    step.finish()
    storage.write("runs/r/step/checkpoints/left.safetensors", b"no output")
    return step


def test_shared_work_is_taken_over_whole(storage: Storage) -> None:
    step = share(storage)
    storage.write("runs/s/step/samples/9.png", b"of other settings")
    other = make_other(storage)
    assert other.finished() and other.reused
    assert other.digest == step.digest
    names = ["losses.csv", "manifest.json", "samples/0.png", "samples/1.png"]
    assert storage.list("runs/s/step") == [f"runs/s/step/{name}" for name in names]
    assert all(other.read(name) == step.read(name) for name in names)


def test_work_that_is_not_shared_is_not_taken_over(storage: Storage) -> None:
    make(storage).finish()
    assert not make_other(storage).finished()
    make_other(storage).finish()
    assert not make(storage, "runs/t/step").finished()


def test_other_or_deleted_work_is_not_taken_over(storage: Storage) -> None:
    step = share(storage)
    assert not make_other(storage, epochs=2).finished()
    step.forget()
    assert not make_other(storage).finished()
    assert storage.list("runs/s") == []


@pytest.mark.parametrize("name", ["losses.csv", "samples/0.png"])
@pytest.mark.parametrize("data", [None, b"other"])
def test_damaged_work_is_not_taken_over(storage: Storage, name: str, data: bytes | None) -> None:
    share(storage)
    if data:
        storage.write(f"runs/r/step/{name}", data)
    else:
        storage.delete(f"runs/r/step/{name}")
    storage.write("runs/s/step/checkpoints/mine.safetensors", b"half done")
    assert not make_other(storage).finished()
    assert storage.list("runs/s") == ["runs/s/step/checkpoints/mine.safetensors"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"settings": 1}', b"\xff"])
def test_a_damaged_manifest_is_named(storage: Storage, damage: bytes) -> None:
    storage.write("runs/r/step/manifest.json", damage)
    with pytest.raises(MachineError, match=r"runs/r/step/manifest\.json is damaged .* delete it and run again"):
        make(storage).finished()
