"""A step is done when its manifest says so, and only for the work that was asked for."""

import hashlib
import json
import logging
import subprocess
from pathlib import Path

import pytest

from jobs.common import leases
from jobs.common.errors import MachineError
from jobs.common.step import Step, read_listing, read_manifest, read_outputs, seal
from jobs.common.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def make(storage: Storage, prefix: str = "runs/r/step", shared: bool = False, **settings: int) -> Step:
    asked = settings or {"epochs": 1}
    return Step(storage, prefix, job="train-gan", settings=asked, inputs={"dataset": "d"}, shared=shared)


def make_other(storage: Storage, **settings: int) -> Step:
    return make(storage, "runs/s/step", shared=True, **settings)


def take(step: Step) -> bool:
    """Return whether the step is to be done; it is not begun."""
    taken = step.take()
    leases.release_all()
    return taken


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
    assert not other.finished()
    assert not other.take() and other.reused
    assert other.digest == step.digest
    names = ["losses.csv", "manifest.json", "samples.sha256", "samples/0.png", "samples/1.png"]
    assert storage.list("runs/s/step") == [f"runs/s/step/{name}" for name in names]
    assert all(storage.read(f"runs/s/step/{name}") == storage.read(f"runs/r/step/{name}") for name in names)


def test_work_that_is_not_shared_is_not_taken_over(storage: Storage) -> None:
    make(storage).finish()
    assert take(make_other(storage))
    make_other(storage).finish()
    assert take(make(storage, "runs/t/step"))


def test_other_or_deleted_work_is_not_taken_over(storage: Storage) -> None:
    share(storage)
    assert take(make_other(storage, epochs=2))
    storage.delete("runs/r/step/manifest.json")
    assert take(make_other(storage))
    assert storage.list("runs/s") == []


@pytest.mark.parametrize("name", ["losses.csv", "samples.sha256", "samples/0.png"])
@pytest.mark.parametrize("data", [None, b"other"])
def test_damaged_work_is_not_taken_over(storage: Storage, name: str, data: bytes | None) -> None:
    share(storage)
    if data:
        storage.write(f"runs/r/step/{name}", data)
    else:
        storage.delete(f"runs/r/step/{name}")
    storage.write("runs/s/step/checkpoints/mine.safetensors", b"half done")
    assert take(make_other(storage))
    assert storage.list("runs/s") == ["runs/s/step/checkpoints/mine.safetensors"]


@pytest.mark.parametrize("name", ["losses.csv", "samples.sha256", "samples/1.png"])
@pytest.mark.parametrize("data", [None, b"other"])
def test_an_output_is_read_as_it_was_written_or_not_at_all(storage: Storage, name: str, data: bytes | None) -> None:
    step = share(storage)
    assert (step.read("losses.csv"), step.read("samples/1.png")) == (b"1\n", b"b")
    if data:
        storage.write(f"runs/r/step/{name}", data)
    else:
        storage.delete(f"runs/r/step/{name}")
    told = f"runs/r/step/{name} is {'damaged' if data else 'missing'}: delete .*/runs/r/step and run its job again"
    with pytest.raises(MachineError, match=told):
        digests = read_listing(storage, step.prefix, step.manifest, "samples")
        list(read_outputs(storage, step.prefix, digests, digests))
        step.read("losses.csv")


def test_what_is_no_output_is_not_read(storage: Storage) -> None:
    step = share(storage)
    for name in ("left.csv", "samples/left.png", "checkpoints/left.safetensors"):
        storage.write(f"runs/r/step/{name}", b"no output")
        with pytest.raises(MachineError):
            step.read(name)


def test_sha256sum_takes_the_listing(storage: Storage, tmp_path: Path) -> None:
    step = share(storage)
    listing = storage.read("runs/r/step/samples.sha256")
    assert step.manifest["outputs"]["samples/"] == {"files": 2, "digest": hashlib.sha256(listing).hexdigest()}
    assert step.manifest["outputs"].keys() == {"losses.csv", "samples/"}
    check = ["sha256sum", "--check", "--strict", "samples.sha256"]
    shown = subprocess.run(check, cwd=tmp_path / "runs/r/step", capture_output=True, text=True)
    assert shown.stdout.splitlines() == ["samples/0.png: OK", "samples/1.png: OK"]


def test_a_flipped_bit_of_a_manifest_is_found(storage: Storage) -> None:
    data = share(storage) and storage.read("runs/r/step/manifest.json")
    assert read_manifest(storage, "runs/r/step")
    for place in range(0, 8 * len(data), 7):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        (Path(storage.url) / "runs/r/step/manifest.json").write_bytes(changed)
        with pytest.raises(MachineError, match=r"manifest\.json is damaged"):
            read_manifest(storage, "runs/r/step")


@pytest.mark.parametrize(("version", "read"), [(4, True), (5, False)])
def test_manifests_without_a_digest_of_their_own_are_of_older_versions(
    storage: Storage, version: int, read: bool
) -> None:
    manifest = share(storage).manifest | {"results_version": version}
    storage.write("runs/r/step/manifest.json", json.dumps(manifest).encode())
    if read:
        assert read_manifest(storage, "runs/r/step") == manifest
    else:
        with pytest.raises(MachineError, match="is damaged"):
            read_manifest(storage, "runs/r/step")


ONE = {"kind": "cpu", "threads": 1, "precision": "float32", "xla": False}
TWO = ONE | {"threads": 2}


def make_with(storage: Storage, arithmetic: dict, prefix: str = "runs/r/step", restart: bool = False) -> Step:
    settings, inputs = {"epochs": 1}, {"dataset": "d"}
    return Step(
        storage,
        prefix,
        job="train-gan",
        settings=settings,
        inputs=inputs,
        arithmetic=arithmetic,
        restart=restart,
        shared=True,
    )


def test_the_arithmetic_is_in_the_manifest_and_in_the_digest(storage: Storage) -> None:
    digests = []
    for arithmetic in (ONE, TWO, ONE):
        step = make_with(storage, arithmetic)
        step.finish()
        assert read_manifest(storage, step.prefix)["arithmetic"] == arithmetic
        digests.append(step.digest)
    assert digests[0] == digests[2] != digests[1]


def test_work_of_other_arithmetic_is_used_with_a_warning(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    step = make_with(storage, ONE)
    step.finish()
    assert make_with(storage, ONE, restart=True).finished()
    assert caplog.records == []
    other = make_with(storage, TWO)
    assert other.finished() and other.digest == step.digest
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == (
        "runs/r/step was made with threads 1, this machine has threads 2: "
        "using it; --other-arithmetic restart starts again"
    )


def test_work_of_other_arithmetic_is_done_again_where_that_is_asked_for(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    make_with(storage, ONE).finish()
    again = make_with(storage, TWO, restart=True)
    assert not again.finished()
    assert [record.message for record in caplog.records] == [
        "runs/r/step was made with threads 1, this machine has threads 2: starting again"
    ]
    again.finish()
    assert make_with(storage, TWO, restart=True).finished()


def test_another_runs_work_of_other_arithmetic_is_copied_unless_it_is_to_be_done_again(storage: Storage) -> None:
    made = make_with(storage, ONE)
    made.write("losses.csv", b"1\n")
    made.finish()
    assert take(make_with(storage, TWO, "runs/s/step", restart=True))
    assert storage.list("runs/s") == []
    copied = make_with(storage, TWO, "runs/s/step")
    assert not copied.take() and copied.digest == made.digest


def test_work_that_does_not_tell_its_arithmetic_may_be_of_any(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    step = share(storage)
    storage.write("runs/r/step/manifest.json", seal({k: v for k, v in step.manifest.items() if k != "arithmetic"}))
    assert not make_with(storage, ONE, restart=True).finished()
    assert make_with(storage, ONE).finished()
    assert "was made with kind None" in caplog.text
    # Who only reads it does not compute.
    caplog.clear()
    assert make(storage).finished()
    assert caplog.records == []


@pytest.mark.parametrize("where", [b"\xff", b"runs/\0", b"", b"runs/other"])
def test_a_place_that_was_noted_wrong_is_not_looked_at(storage: Storage, where: bytes) -> None:
    share(storage)
    [key] = storage.list("done")
    storage.write(key, where)
    assert take(make_other(storage))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"1", b'{"settings": 1}', b"\xff"])
def test_a_damaged_manifest_is_named(storage: Storage, damage: bytes) -> None:
    storage.write("runs/r/step/manifest.json", damage)
    with pytest.raises(MachineError, match=r"runs/r/step/manifest\.json is damaged .* delete it and run again"):
        make(storage).finished()
