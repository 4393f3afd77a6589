"""What a process may use of its machine."""

import pytest

from jobs.common import machine


def test_cores_and_memory_are_counted() -> None:
    assert 1 <= machine.usable_cores() <= 4096
    assert 2**28 < machine.usable_memory() < 2**50


@pytest.mark.parametrize(("chosen", "found"), [("", []), ("-1", []), ("0,2", ["0", "2"])])
def test_gpus_are_those_that_are_made_visible(chosen: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert machine.gpus() == found
