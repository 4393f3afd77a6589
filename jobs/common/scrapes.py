"""The server from which Prometheus scrapes the metrics of this process, and the wait for a final scrape."""

import contextlib
import threading
from types import SimpleNamespace
from typing import Any

from prometheus_client import make_wsgi_app

from jobs.common import metrics, server
from jobs.common.errors import Interrupted, UserError

LAST_SCRAPE_SECONDS = 60  # maximum wait of a process for its final scrape
# `seen`: Prometheus has scraped this process. `last`: the values are final. `scraped`: the final values were scraped.
_state = SimpleNamespace(port=0, seen=False, last=False, scraped=threading.Event())


def serve(port: int) -> None:
    """Serve the metrics on all addresses of this machine until the process ends.

    Raises UserError if the port cannot be opened.
    """

    class Body(list[bytes]):
        last = False

        def close(self) -> None:
            """Record that the response was sent: the server calls this method at the end."""
            if self.last:
                _state.scraped.set()

    answer = make_wsgi_app(metrics.REGISTRY)

    def app(environ: Any, start_response: Any) -> Any:
        # Not in close: a scrape must be counted before its client has received the whole response.
        _state.seen, last = True, _state.last
        body = Body(answer(environ, start_response))
        body.last = last
        return body

    try:
        server.serve(port, app)
    except OSError as error:
        raise UserError(f"--metrics-port {port}: {error.strerror or error}") from error
    _state.port = port


def port() -> int:
    """Return the port that serves the metrics, 0 if none does."""
    return _state.port


def wait_for_a_last_scrape(failed: bool) -> None:
    """Wait for one final scrape, if Prometheus has scraped this process before.

    A training that `failed` always waits, since its final values may not have been scraped yet. A signal ends the wait.
    """
    if _state.port and (_state.seen or (failed and metrics.trains())):
        _state.last = True
        with contextlib.suppress(Interrupted):
            _state.scraped.wait(LAST_SCRAPE_SECONDS)
