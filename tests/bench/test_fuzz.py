"""A small part of `python -m bench.chaos fuzz`, and whether a file that breaks the reader is told."""

import os
import signal
from pathlib import Path

import pytest

from bench.chaos import fuzz, mutants
from jobs import phantom
from jobs.mri.slices import REASONS
from jobs.settings import PhantomSettings


def test_all_that_is_damaged_can_be_read_undamaged() -> None:
    assert {fuzz.judged(data, "a")[0] for data in mutants.samples().values()} == {"read"}


def test_damaged_files_break_nothing() -> None:
    met, wrong, most = fuzz.through_readers(mutants.mutants(0, 400))
    assert wrong == []
    assert met.keys() <= {"read", *REASONS} and met.total() == 400 and met["read"] < 200
    assert most < 2**30


def test_the_same_seed_gives_the_same_files() -> None:
    assert list(mutants.mutants(3, 20)) == list(mutants.mutants(3, 20)) != list(mutants.mutants(4, 20))


def crashing(data: bytes, name: str) -> None:
    """Crash the process that reads."""
    os.kill(os.getpid(), signal.SIGSEGV)


def looping(data: bytes, name: str) -> None:
    """Never end."""
    while True:
        pass


def failing(data: bytes, name: str, **more: object) -> None:
    """Raise what the reader must not."""
    raise ValueError(name)


def test_a_file_that_holds_the_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "judged", looping)
    _, (line,), _ = fuzz.through_readers([("a sample", b"")], fuzz.SHORT._replace(cpu_seconds=1))
    assert "a sample" in line and "too-slow" in line


def test_a_file_that_crashes_a_decoder_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "judged", crashing)
    assert fuzz.through_readers([("a sample", b"")])[:2] == ({"crashed": 1}, [])


def test_an_exception_of_the_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "examine", failing)
    assert fuzz.judged(b"", "a")[:2] == ("traceback", "ValueError('a')")


@pytest.mark.slow
def test_each_damaged_file_of_a_folder_is_read_or_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    phantom.run(PhantomSettings(out=str(tmp_path / "heads"), count=6))
    monkeypatch.setattr(fuzz, "TOGETHER", 60)
    met, wrong, _ = fuzz.through_command(0, tmp_path / "heads", tmp_path / "fuzz")
    assert wrong == []
    assert met.total() == 60 and met["read"] > 0
