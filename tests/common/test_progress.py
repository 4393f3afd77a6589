"""Progress stands where Argo looks for it, as it wants it."""

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
