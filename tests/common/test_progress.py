"""Progress stands where Argo looks for it, as it wants it, and is told to who watches."""

import io
import sys
from pathlib import Path

import pytest

from jobs.common import progress


def test_the_file_holds_the_last_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress"
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(path))
    progress.tell(0, 40)
    progress.tell(10, 40)
    assert path.read_text() == "10/40\n"
    assert list(tmp_path.iterdir()) == [path]


def test_elsewhere_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGO_PROGRESS_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    progress.tell(1, 2)
    assert not list(tmp_path.iterdir())


def test_the_innermost_watcher_is_told() -> None:
    outer: list[tuple[int, int, str]] = []
    inner: list[tuple[int, int, str]] = []
    progress.tell(0, 3)
    with progress.watched(lambda *told: outer.append(told)):
        progress.tell(1, 3, "began")
        with progress.watched(lambda *told: inner.append(told)):
            progress.tell(2, 3, "loss 0.5")
        progress.tell(3, 3)
    progress.tell(4, 4)
    assert outer == [(1, 3, "began"), (3, 3, "")]
    assert inner == [(2, 3, "loss 0.5")]


def test_a_watcher_is_gone_after_a_failure() -> None:
    told: list[int] = []
    with pytest.raises(ZeroDivisionError), progress.watched(lambda done, *_: told.append(done)):
        raise ZeroDivisionError
    progress.tell(1, 2)
    assert told == []


def test_who_watches_and_argo_are_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    told: list[tuple[int, int]] = []
    with progress.watched(lambda done, total, _: told.append((done, total))):
        progress.tell(10, 40)
    assert told == [(10, 40)]
    assert (tmp_path / "progress").read_text() == "10/40\n"


class Terminal(io.StringIO):
    """What a person would see."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_bar_is_for_terminals_alone(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = kind()
    monkeypatch.setattr(sys, "stderr", shown)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress.bar():
        progress.tell(10, 40, "loss 0.5")
        progress.tell(40, 40, "loss 0.25")
    assert progress.is_shown() == (kind is Terminal)
    if kind is Terminal:
        assert "40/40" in shown.getvalue() and "loss 0.25" in shown.getvalue()
    else:
        assert shown.getvalue() == ""
