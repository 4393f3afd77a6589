"""What an installation lacks is said before its first run."""

from pathlib import Path

import pytest

from jobs import check
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.settings import CheckSettings
from tests.conftest import S3Server, use_credentials


def test_nothing_is_left_behind(s3_url: str) -> None:
    check.run(CheckSettings(storage=s3_url))
    assert open_storage(s3_url).list("") == []


def test_who_may_only_read_is_refused(s3_url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    check.run(CheckSettings(storage=s3_url))
    use_credentials(monkeypatch, s3_server, s3_server.reader)
    with pytest.raises(UserError, match="access is denied"):
        check.run(CheckSettings(storage=s3_url))


def test_the_classes_of_the_data_are_looked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in ("no", "yes"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "a.png").write_bytes(b"")
    caplog.set_level("INFO")
    check.run(CheckSettings(storage=str(tmp_path / "out"), data=str(tmp_path / "data")))
    assert "2 files of no, yes" in caplog.text
    with pytest.raises(UserError, match="there is no folder"):
        check.run(CheckSettings(storage=str(tmp_path / "out"), data=str(tmp_path / "gone")))
