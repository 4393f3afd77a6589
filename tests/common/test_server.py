"""A server of metrics under clients that connect and stay silent."""

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.common import server
from tests.s3_server import free_ports


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"metrics"]


@pytest.fixture
def port() -> int:
    [found] = free_ports(1)
    server.serve(found, app)
    return found


@contextlib.contextmanager
def silent_clients(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(count)]


def scraped(port: int) -> bytes:
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read()


def test_silent_clients_take_few_threads_and_those_that_are_too_many_are_closed(port: int) -> None:
    before = threading.active_count()
    with silent_clients(port, 100) as clients:
        # The last ones find no free connection. Each of the others has a thread and a timer.
        assert all(client.recv(1) == b"" for client in clients[server.CONNECTIONS :])
        assert threading.active_count() <= before + 2 * server.CONNECTIONS


def test_a_silent_client_is_closed_in_time_and_a_scrape_is_answered_again(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTION_SECONDS", 0.2)
    with silent_clients(port, server.CONNECTIONS) as clients:
        assert all(client.recv(1) == b"" for client in clients)
        # The next client may come a moment before the last thread has ended.
        for _ in range(1000):
            with contextlib.suppress(OSError):
                assert scraped(port) == b"metrics"
                return
    pytest.fail("no scrape was answered")


def test_a_client_that_leaves_early_writes_no_traceback(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n")
    assert scraped(port) == b"metrics"
    assert capfd.readouterr() == ("", "")
