"""A small part of `python -m bench.chaos fuzz`, and whether a file that breaks the reader is told."""

import os
import signal
from collections.abc import Callable

import pytest

from bench.chaos import fuzz, mutants
from jobs.mri.slices import REASONS


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


@pytest.mark.parametrize(("broken", "words"), [(crashing, "crashed"), (looping, "too-slow")])
def test_a_file_that_ends_its_process_is_told(
    broken: Callable[[bytes, str], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "judged", broken)
    _, (line,), _ = fuzz.through_readers([("a sample", b"")], fuzz.SHORT._replace(cpu_seconds=1))
    assert "a sample" in line and words in line


def test_an_exception_of_the_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "examine", failing)
    assert fuzz.judged(b"", "a")[:2] == ("traceback", "ValueError('a')")
