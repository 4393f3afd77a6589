"""What an installation lacks is said before its first run."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from botocore.awsrequest import AWSResponse

from jobs import check
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.settings import CheckSettings
from tests.conftest import use_credentials
from tests.s3_server import S3Server


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


def with_handler(monkeypatch: pytest.MonkeyPatch, event: str, handler: Callable[..., Any]) -> None:
    """Let every S3 client call `handler` at an event of its uploads."""
    made = boto3.session.Session.client

    def client(*words: Any, **more: Any) -> Any:
        one = made(*words, **more)
        one.meta.events.register(f"{event}.s3.PutObject", handler)
        return one

    monkeypatch.setattr(boto3.session.Session, "client", client)


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused_by_name(
    header: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignore(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop(header, None)

    with_handler(monkeypatch, "before-call", ignore)
    with pytest.raises(UserError, match=f"the S3 server has no conditional writes, .*: it ignores {header}: use"):
        check.run(CheckSettings(storage=s3_url))
    assert open_storage(s3_url).list("") == []


def test_a_server_that_does_not_know_conditions_is_refused_by_name(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Body(io.BytesIO):
        def stream(self) -> list[bytes]:
            return [self.read()]

    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        if "If-None-Match" not in request.headers:
            return None
        body = b"<Error><Code>NotImplemented</Code><Message>A header</Message></Error>"
        return AWSResponse(request.url, 501, {}, Body(body))

    with_handler(monkeypatch, "before-send", refuse)
    with pytest.raises(UserError, match=r"no conditional writes, .*: it refuses .*NotImplemented: A header"):
        check.run(CheckSettings(storage=s3_url))
