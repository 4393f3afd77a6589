"""An HTTP server for metrics that cannot take a job's files and threads, whatever its clients do."""

import contextlib
import socket
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer

# A scrape takes milliseconds.
CONNECTIONS = 16  # at the same time: others are closed at once
CONNECTION_SECONDS = 10.0  # of a connection at most: Prometheus waits as long by default


class _Server(ThreadingWSGIServer):
    """A thread for each of a limited number of connections of limited duration."""

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread left
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        timer = threading.Timer(CONNECTION_SECONDS, _hang_up, [request])
        timer.daemon = True
        try:
            timer.start()
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a client that leaves early is not an error of the job."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing for a scrape."""


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def serve(port: int, app: Any) -> None:
    """Serve a WSGI application on all addresses of this machine until the process ends.

    Raises OSError if the port cannot be opened.
    """
    server = make_server("", port, app, _Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
