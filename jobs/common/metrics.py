"""The Prometheus metrics of this process (listed in docs/metrics.md), and the server for them.

The metrics count even if they are not served. Run, fold and class come from the labels of the pod.
"""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    Summary,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer

from jobs.common.errors import Interrupted, UserError

LAST_SCRAPE_SECONDS = 60  # maximum wait of a process for its final scrape
PHASES = ("read", "compute", "write")

disable_created_metrics()
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


class _Clock:
    """A collector of running times: seconds by phase, and GPU seconds. They are computed at each scrape."""

    def __init__(self) -> None:
        self.gpus = 0
        self.at_work = 0
        self.used = 0.0
        self._began = self._since = time.monotonic()
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phases = ["compute"]

    def switch(self, phase: str | None) -> None:
        """Enter a phase, or leave the current one."""
        now = time.monotonic()
        self._seconds[self._phases[-1]] += now - self._since
        self._since = now
        if phase:
            self._phases.append(phase)
        else:
            self._phases.pop()

    def collect(self) -> Iterator[Metric]:
        """Yield the counters with their current values."""
        now = time.monotonic()
        phases = CounterMetricFamily(
            "mrigan_phase_seconds", "Time of this process by phase, in seconds.", labels=["phase"]
        )
        for phase, seconds in self._seconds.items():
            phases.add_metric([phase], seconds + (now - self._since) * (phase == self._phases[-1]))
        yield phases
        held = (now - self._began) * self.gpus
        yield CounterMetricFamily(
            "mrigan_gpu_held_seconds", "GPUs held by the process, multiplied by time in seconds.", held
        )
        yield CounterMetricFamily(
            "mrigan_gpu_used_seconds", "GPUs in use by the process, multiplied by time in seconds.", self.used
        )


_clock = _Clock()
REGISTRY.register(_clock)  # type: ignore[arg-type] # it has the one method that a registry calls

# ---- every job -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the time of the block as `read`, `compute` or `write`, in the main thread only: it waits for the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _clock.switch(name)
    try:
        yield
    finally:
        _clock.switch(None)


@contextlib.contextmanager
def gpu_use() -> Iterator[None]:
    """Count the time of the block as use of the GPU, if there is one."""
    began = time.monotonic()
    try:
        yield
    finally:
        _clock.used += (time.monotonic() - began) * _clock.at_work


def hold_gpus(gpus: int) -> None:
    """Set the number of GPUs that this process holds from its start; of several calls, the largest number counts."""
    _clock.gpus = max(_clock.gpus, gpus)


def hardware(device: str, precision: str) -> None:
    """Set the hardware labels: device `cpu` or `gpu` (one GPU), precision `float32` or `bfloat16`."""
    _clock.at_work = int(device == "gpu")
    hold_gpus(_clock.at_work)
    info = _hardware_info()
    info.clear()
    info.labels(device, precision).set(1)


@functools.cache
def _hardware_info() -> Gauge:
    return Gauge(
        "mrigan_hardware_info",
        "Device and precision of the computation, as labels; always 1.",
        ["device", "precision"],
        registry=REGISTRY,
    )


def _counter(name: str, text: str, **labels: Iterable[str]) -> Counter:
    """Return a counter with at most one label. All series start at 0, so that their first increase is visible."""
    counter = Counter(name, text, list(labels), registry=REGISTRY)
    for label, values in labels.items():
        for value in values:
            counter.labels(**{label: value})
    return counter


@functools.cache
def s3() -> SimpleNamespace:
    """Return the counters of S3: requests (by operation), errors, retries, bytes (by direction), seconds."""
    operations = ("read", "write", "head", "list", "delete")
    return SimpleNamespace(
        requests=_counter("mrigan_s3_requests_total", "Requests.", operation=operations),
        errors=_counter("mrigan_s3_errors_total", "Requests that failed after all retries."),
        retries=_counter("mrigan_s3_retries_total", "Retries of requests."),
        bytes=_counter("mrigan_s3_bytes_total", "Bytes of object bodies transferred.", direction=("received", "sent")),
        seconds=_counter("mrigan_s3_request_seconds_total", "Duration of requests, in seconds."),
    )


@functools.cache
def preprocessing(reasons: tuple[str, ...]) -> SimpleNamespace:
    """Return the metrics of preprocess: read, quarantined (by reason), pairs, groups."""
    return SimpleNamespace(
        read=_counter("mrigan_images_read_total", "Images read."),
        quarantined=_counter(
            "mrigan_images_quarantined_total", "Images excluded from the dataset (quarantined).", reason=reasons
        ),
        pairs=Gauge("mrigan_near_duplicate_pairs", "Pairs of near-duplicate images.", registry=REGISTRY),
        groups=Gauge("mrigan_groups", "Groups of images that are kept in one fold.", registry=REGISTRY),
    )


@functools.cache
def generated() -> Counter:
    """Return the counter of generated synthetic images."""
    return _counter("mrigan_images_generated_total", "Synthetic images generated.")


# ---- training ------------------------------------------------------------------------------------------------------


class Training:
    """Metrics of one training.

    kind: `gan` or `classifier`. FIGURES lists the values of an epoch. The key of a value is the name of its metric
    without the prefix `mrigan_<kind>_`, and its label.
    """

    def __init__(self, kind: str, epochs_planned: int, epochs: int, steps: int) -> None:
        self.figures = _figures(kind)
        self.progress = _progress()
        self.progress.planned.set(epochs_planned)
        self.progress.checkpoint.set_to_current_time()
        self.steps(steps, epochs, 0)
        _state.training = True

    def steps(self, steps: int, epochs: int, images: int) -> None:
        """Set the total numbers of steps and whole epochs done, and add the number of images since the last call."""
        self.progress.step.set(steps)
        self.progress.epoch.set(epochs)
        self.progress.images.inc(images)
        self.progress.time.set_to_current_time()

    def epoch(self, values: Mapping[tuple[str, str], float]) -> None:
        """Set the values of an epoch that has just ended."""
        for (metric, label), value in values.items():
            gauge, summary = self.figures[metric]
            gauge.labels(label).set(value)
            if math.isfinite(value):
                summary.labels(label).observe(value)


# By kind: (metric, label, values of the label, help text).
FIGURES: dict[str, list[tuple[str, str, tuple[str, str], str]]] = {
    "gan": [
        ("loss", "model", ("generator", "discriminator"), "Mean loss per epoch, in nats."),
        ("discriminator_accuracy_ratio", "images", ("real", "fake"), "Accuracy of the discriminator."),
    ],
    "classifier": [
        ("loss", "split", ("training", "held-out"), "Mean cross-entropy per epoch, in nats."),
        ("accuracy_ratio", "split", ("training", "held-out"), "Accuracy per epoch."),
    ],
}


@functools.cache
def _figures(kind: str) -> dict[str, tuple[Gauge, Summary]]:
    """Return the gauge and the summary of each value. They have no series before the first epoch."""
    return {
        metric: (
            Gauge(f"mrigan_{kind}_{metric}", text, [label], registry=REGISTRY),
            Summary(f"mrigan_{kind}_epoch_{metric}", text, [label], registry=REGISTRY),
        )
        for metric, label, _, text in FIGURES[kind]
    }


@functools.cache
def _progress() -> SimpleNamespace:
    def gauge(name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=REGISTRY)

    return SimpleNamespace(
        epoch=gauge("mrigan_training_epoch", "Whole epochs done, including those before an interruption."),
        planned=gauge("mrigan_training_epochs_planned", "Planned epochs."),
        step=gauge("mrigan_training_step", "Training steps done, including those before an interruption."),
        images=_counter("mrigan_training_images_total", "Images used for weight updates by this process."),
        time=gauge(
            "mrigan_training_step_timestamp_seconds",
            "Unix time of the last training step; initially, of the start of training.",
        ),
        checkpoint=gauge(
            "mrigan_checkpoint_timestamp_seconds",
            "Unix time of the last checkpoint; initially, of the start of training.",
        ),
    )


def checkpoint_written() -> None:
    """Record that a checkpoint was written now."""
    _progress().checkpoint.set_to_current_time()


# ---- the server ----------------------------------------------------------------------------------------------------

# `seen`: Prometheus has scraped this process. `last`: the values are final. `scraped`: the final values were scraped.
_state = SimpleNamespace(training=False, port=0, seen=False, last=False, scraped=threading.Event())


def serve(port: int) -> None:
    """Serve the metrics on all addresses of this machine until the process ends.

    Raises UserError if the port cannot be opened.
    """

    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing for a scrape."""

    class Body(list[bytes]):
        last = False

        def close(self) -> None:
            """Record that the response was sent: the server calls this method at the end."""
            if self.last:
                _state.scraped.set()

    answer = make_wsgi_app(REGISTRY)

    def app(environ: Any, start_response: Any) -> Any:
        # Not in close: a scrape must be counted before its client has received the whole response.
        _state.seen, last = True, _state.last
        body = Body(answer(environ, start_response))
        body.last = last
        return body

    try:
        server = make_server("", port, app, ThreadingWSGIServer, handler_class=Silent)
    except OSError as error:
        raise UserError(f"--metrics-port {port}: {error.strerror or error}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _state.port = port


def port() -> int:
    """Return the port that serves the metrics, 0 if none does."""
    return _state.port


def wait_for_a_last_scrape(failed: bool) -> None:
    """Wait for one final scrape, if Prometheus has scraped this process before.

    A training that `failed` always waits, since its final values may not have been scraped yet. A signal ends the wait.
    """
    if _state.port and (_state.seen or (failed and _state.training)):
        _state.last = True
        with contextlib.suppress(Interrupted):
            _state.scraped.wait(LAST_SCRAPE_SECONDS)
