"""Requests that botocore takes for done when their bodies are still to come."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from jobs.common import meter, s3
from jobs.common.errors import MachineError
from jobs.common.storage import open_storage
from tests.conftest import use_credentials
from tests.s3_server import S3Server


class Slow(BaseHTTPRequestHandler):
    """Answers every request with five bytes, the last after a while; an object is named by the length it promises."""

    def do_GET(self) -> None:
        """Send head and body."""
        self.send_response(200)
        self.send_header("Content-Length", self.path.rpartition("/")[2])
        self.end_headers()
        self.wfile.write(b"four")
        time.sleep(0.3)
        self.wfile.write(b"5")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    use_credentials(monkeypatch, S3Server(endpoint, ("any", "any"), ("any", "any")), ("any", "any"))
    yield
    server.shutdown()
    server.server_close()


def counted() -> dict[str, float]:
    counters = meter.counters()
    found = {"errors": counters.errors, "retries": counters.retries, "seconds": counters.seconds}
    found |= {"received": counters.bytes.labels("received"), "requests": counters.requests.labels("read")}
    return {name: counter._value.get() for name, counter in found.items()}


@pytest.mark.parametrize("length, errors", [("5", 0), ("100", s3.ATTEMPTS)])
def test_a_body_is_part_of_its_request(slow: None, monkeypatch: pytest.MonkeyPatch, length: str, errors: int) -> None:
    monkeypatch.setattr(s3, "BACKOFF_SECONDS", 0)
    before = counted()
    storage = open_storage("s3://bucket")
    if errors:
        with pytest.raises(MachineError, match="s3://bucket/100"):
            storage.read(length)
    else:
        assert storage.read(length) == b"four5"
    change = {name: value - before[name] for name, value in counted().items()}
    assert change.pop("seconds") > 0.3
    tries = max(errors, 1)
    assert change == {"errors": errors, "retries": tries - 1, "received": 0 if errors else 5, "requests": tries}
