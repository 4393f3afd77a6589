"""Checkpoints belong to one work, are whole or refused, and SIGTERM ends a loop after one is written."""

import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import Interrupted, MachineError
from jobs.common.step import Step
from jobs.common.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def checkpoints(
    storage: Storage, epochs: int = 1, every_steps: int = 10, threads: int = 1, restart: bool = False
) -> Checkpoints:
    step = Step(
        storage,
        "runs/r/gan",
        job="train-gan",
        settings={"epochs": epochs},
        inputs={},
        arithmetic={"threads": threads},
        restart=restart,
    )
    return Checkpoints(step, every_steps, every_seconds=1e9)


def test_the_last_checkpoint_comes_back_and_earlier_ones_go(storage: Storage) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert checkpoints(storage).restore() is None
    for number in (10, 20):
        checkpoints(storage).save(number, {"w": weights * number}, {"step": str(number)})
    restored = checkpoints(storage).restore()
    assert restored is not None
    np.testing.assert_array_equal(restored[0]["w"], weights * 20)
    assert restored[1] == {"step": "20"}
    assert len(storage.list("runs/r/gan/checkpoints")) == 2
    storage.write("runs/r/gan/checkpoints/checkpoint-00000010.safetensors", b"left by a job that was killed")
    checkpoints(storage).clear()
    assert storage.list("runs/r/gan/checkpoints") == []


def test_the_time_before_an_interruption_counts(storage: Storage) -> None:
    first = checkpoints(storage)
    first.step.earlier = 100.0
    first.save(10, {"w": np.zeros(1)}, {})
    again = checkpoints(storage)
    assert again.step.seconds < 100
    assert again.restore() is not None
    again.step.finish()
    assert again.step.manifest["seconds"] >= 100


def test_other_settings_do_not_take_it(storage: Storage) -> None:
    checkpoints(storage).save(10, {"w": np.zeros(1)}, {})
    assert checkpoints(storage, epochs=2).restore() is None


def test_a_checkpoint_of_other_arithmetic_is_gone_on_from_with_a_warning(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints(storage, threads=1).save(10, {"w": np.full(1, 10)}, {"step": "10"})
    assert checkpoints(storage, threads=1).restore() is not None
    assert caplog.records == []
    other = checkpoints(storage, threads=2)
    restored = other.restore()
    assert restored is not None and restored[0]["w"][0] == 10
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == (
        "runs/r/gan has a checkpoint that was made with threads 1, this machine has threads 2: "
        "using it; --other-arithmetic restart starts again"
    )
    # From here on it is of this machine.
    caplog.clear()
    other.save(20, {"w": np.full(1, 20)}, {})
    assert checkpoints(storage, threads=2).restore() is not None
    assert caplog.records == []


def test_a_checkpoint_of_other_arithmetic_is_left_where_that_is_asked_for(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints(storage, threads=1).save(10, {"w": np.zeros(1)}, {})
    assert checkpoints(storage, threads=2, restart=True).restore() is None
    assert "threads 1, this machine has threads 2: starting again" in caplog.text
    # The same machine goes on from its own.
    assert checkpoints(storage, threads=1, restart=True).restore() is not None
    checkpoints(storage, threads=2, restart=True).save(5, {"w": np.ones(1)}, {})
    restored = checkpoints(storage, threads=2, restart=True).restore()
    assert restored is not None and restored[0]["w"][0] == 1
    assert len(storage.list("runs/r/gan/checkpoints")) == 2


def test_a_flipped_bit_of_the_pointer_is_found(storage: Storage) -> None:
    checkpoints(storage).save(10, {"w": np.zeros(1)}, {})
    data = storage.read("runs/r/gan/checkpoints/checkpoint.json")
    for place in range(0, 8 * len(data), 7):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        (Path(storage.url) / "runs/r/gan/checkpoints/checkpoint.json").write_bytes(changed)
        with pytest.raises(MachineError, match=r"checkpoint\.json is damaged"):
            checkpoints(storage).restore()


@pytest.mark.parametrize("name", ["checkpoint.json", "checkpoint-00000010.safetensors"])
def test_damage_is_named(storage: Storage, name: str) -> None:
    checkpoints(storage).save(10, {"w": np.zeros(100)}, {})
    key = f"runs/r/gan/checkpoints/{name}"
    data = bytearray(storage.read(key))
    data[-5] ^= 255
    storage.write(key, bytes(data))
    with pytest.raises(MachineError, match=f"{name} is damaged: delete that folder"):
        checkpoints(storage).restore()


def test_they_are_due_by_steps(storage: Storage) -> None:
    mine = checkpoints(storage, every_steps=10)
    assert [number for number in range(1, 25) if mine.due(number) and (mine.save(number, {}, {}) or True)] == [10, 20]


def test_sigterm_ends_the_loop_after_a_checkpoint(storage: Storage) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped and saved after step 3"), checkpoints(storage) as mine:
        for number in range(1, 100):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if mine.due(number):
                mine.save(number, {"w": np.full(1, number)}, {})
    assert signal.getsignal(signal.SIGTERM) is before
    restored = checkpoints(storage).restore()
    assert restored is not None and restored[0]["w"][0] == 3
