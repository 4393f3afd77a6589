"""A proxy in front of a real S3 server, with seeded faults."""

import contextlib
import http.client
import random
import socket
import struct
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL_SECONDS = 2.0
# What goes wrong with a request. `lost`: it is carried out, and its answer is lost.
BEFORE = ("500", "503", "reset", "stall")
OF_READS = ("404", "403", "cut", "flip", "short")
OF_WRITES = ("lost",)
HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "proxy-connection"})  # headers of one connection
ERRORS = {"500": "InternalError", "503": "SlowDown", "404": "NoSuchKey", "403": "AccessDenied"}


class Faults:
    """Which requests fail, and how: a share `rate` of them, by a generator of `seed`; `met` counts the faults.

    Of two requests in a row for one object, one succeeds, as with a server that is disturbed and not gone.
    """

    def __init__(self, seed: int, rate: float) -> None:
        self.rate, self.met = rate, Counter[str]()
        self._random = random.Random(seed)
        self._failed: set[tuple[str, str]] = set()  # what was asked last and failed
        self._lock = threading.Lock()

    def next(self, method: str, path: str) -> str:
        """Return the fault of the next request, empty for none."""
        own = {"GET": OF_READS, "HEAD": OF_READS[:2], "PUT": OF_WRITES}.get(method, ())
        with self._lock:
            at = method, path
            if at in self._failed or self._random.random() >= self.rate:
                self._failed.discard(at)
                return ""
            self._failed.add(at)
            kind = self._random.choice((*BEFORE, *own))
            self.met[kind] += 1
            return kind


@contextlib.contextmanager
def running(endpoint: str, faults: Faults) -> Iterator[str]:
    """Yield the address of a proxy for the S3 server at `endpoint`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urllib.parse.urlsplit(endpoint), faults))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(upstream: urllib.parse.SplitResult, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.next(self.command, self.path.partition("?")[0])
            if fault in ERRORS:
                self.refuse(int(fault), ERRORS[fault])
                return
            if fault == "reset":
                self.reset()
                return
            if fault == "stall":
                threading.Event().wait(STALL_SECONDS)
            status, headers, data = self.forward(body)
            if fault == "lost":
                self.reset()
                return
            if fault == "flip" and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in HOP | {"content-length"}:
                    self.send_header(name, value)
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(data)))
            if fault == "short":  # a whole answer with a part of the object
                data = data[: len(data) // 2]
                length = str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if fault == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.reset()
            elif self.command != "HEAD":
                self.wfile.write(data)

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
            try:
                # The signature covers the name of the host that the client asked.
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                connection.request(self.command, self.path, body, headers)
                found = connection.getresponse()
                return found.status, found.getheaders(), found.read()
            finally:
                connection.close()

        def refuse(self, status: int, code: str) -> None:
            data = f"<Error><Code>{code}</Code><Message>a fault of the proxy</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def reset(self) -> None:
            # With no time to linger, the system closes the connection by RST.
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    return Handler
