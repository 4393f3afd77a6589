"""A real S3 server whose certificate is signed by a private authority: trusted with that authority, never without."""

import certifi
import pytest

from jobs import cli
from tests.conftest import use_credentials
from tests.s3_server import S3Server


@pytest.fixture
def secure(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Set the address with TLS and the credentials, and return the server."""
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.secure)
    return s3_server


def test_with_the_authority_a_job_works(secure: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(secure.authority))
    assert cli.main(["phantom", "--out", "s3://tests/tls", "--count", "2"]) == 0
    assert cli.main(["check", "--storage", "s3://tests/tls-out", "--data", "s3://tests/tls"]) == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no authority", "CERTIFICATE_VERIFY_FAILED"),
        ("public authorities", "CERTIFICATE_VERIFY_FAILED"),
        ("another name of the server", "doesn't match '127.0.0.1'"),
    ],
)
def test_without_it_nothing_is_sent(
    secure: S3Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    if kind == "public authorities":
        monkeypatch.setenv("AWS_CA_BUNDLE", certifi.where())
    if kind == "another name of the server":
        monkeypatch.setenv("AWS_CA_BUNDLE", str(secure.authority))
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.secure.replace("127.0.0.1", "localhost"))
    assert cli.main(["check", "--storage", "s3://tests/tls"]) == 2
    shown = "".join(capfd.readouterr())
    assert said in shown and shown.count("\n") == 1
    assert "set AWS_CA_BUNDLE to a file with the server's authority, or check AWS_ENDPOINT_URL" in shown
