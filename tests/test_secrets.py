"""Credentials are nowhere but in the environment: not in what jobs say, not in storage, not in temporary files."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import cli
from jobs.common.storage import open_storage
from tests.conftest import use_credentials
from tests.s3_server import S3Server

PLAIN = "PlantedValue0000"
PLANTED = f"{PLAIN}/+{PLAIN}"
DATA, OUT = "s3://tests/secrets-data", "s3://tests/secrets-out"
RUN = ("preprocess", "--data", DATA, "--storage", OUT)
CHECK = ("check", "--storage", OUT)

# How a command fails, or does not: what is set, and the command.
CASES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "it works": ({}, RUN),
    "it works, in JSON": ({"MRIGAN_LOG_FORMAT": "json"}, CHECK),
    "a wrong secret": ({"AWS_SECRET_ACCESS_KEY": PLANTED}, RUN),
    "a wrong key id, in JSON": ({"AWS_ACCESS_KEY_ID": PLANTED, "MRIGAN_LOG_FORMAT": "json"}, RUN),
    "a token that is none": ({"AWS_SESSION_TOKEN": PLANTED}, RUN),
    "it may only read": ({"AWS_ACCESS_KEY_ID": "READER", "AWS_SECRET_ACCESS_KEY": "READER"}, CHECK),
    "an unknown authority": ({"AWS_ENDPOINT_URL": "SECURE"}, RUN),
    "HTTP to a port of HTTPS": ({"AWS_ENDPOINT_URL": "INSECURE"}, CHECK),
    "nobody there": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, CHECK),
    "a password in the address": ({"AWS_ENDPOINT_URL": f"http://me:{PLANTED}@127.0.0.1:9"}, CHECK),
    "a password in the proxy": ({"http_proxy": f"http://me:{PLAIN}@127.0.0.1:9", "no_proxy": ""}, CHECK),
    "a password that splits the proxy": ({"http_proxy": f"http://me:{PLANTED}@127.0.0.1:9", "no_proxy": ""}, CHECK),
    "a password that splits the proxy into another port": (
        {"http_proxy": f"http://me:12/{PLAIN}@127.0.0.1:9", "no_proxy": ""},
        CHECK,
    ),
    "no report": ({}, ("report", "--storage", OUT, "absent")),
    "no champion": ({}, ("predict", "--storage", OUT, DATA)),
    "an unknown setting": ({}, (*RUN, "--absent", "1")),
    "a token of Argo": (
        {"ARGO_SERVER": "127.0.0.1:9", "ARGO_TOKEN": f"Bearer {PLANTED}", "ARGO_NAMESPACE": "here"},
        ("status",),
    ),
}


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return the files below a folder that still are there, with their names."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield str(path), path.read_bytes()


@pytest.fixture(scope="module")
def data(s3_server: S3Server) -> None:
    """Put images in storage."""
    with pytest.MonkeyPatch.context() as patch:
        use_credentials(patch, s3_server, s3_server.owner)
        assert cli.main(["phantom", "--out", DATA, "--count", "8"]) == 0


@pytest.mark.parametrize("kind", CASES)
def test_no_secret_is_left_anywhere(
    data: None,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    given, command = CASES[kind]
    reader = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), s3_server.reader, strict=True))
    places = {"SECURE": s3_server.secure, "INSECURE": s3_server.secure.replace("https", "http")}
    with monkeypatch.context() as own:
        for name, value in given.items():
            own.setenv(name, reader[name] if value == "READER" else places.get(value, value))
        code = cli.main(command)
    assert code == 0 if kind.startswith("it works") else code in (2, 3)

    storage = open_storage(OUT)
    left = {"what it says": "".join(capfd.readouterr()).encode(), **dict(files(tmp_path))}
    left |= {key: storage.read(key) for key in storage.list("")}
    assert len(left) > 5
    secrets = (PLAIN, *s3_server.owner, *s3_server.reader)
    found = {(name, secret) for name, text in left.items() for secret in secrets if secret.encode() in text}
    assert found == set()
