"""What this process tells Prometheus while it runs (docs/metrics.md lists it), and the server that tells it.

The metrics count whether or not they are served. Which run, fold and class they belong to is the pod's to say.
"""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, Summary, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, Metric

from jobs.common.errors import Interrupted, UserError

LAST_SCRAPE_SECONDS = 60  # that a process waits for Prometheus at its end
PHASES = ("read", "compute", "write")

disable_created_metrics()
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


class _Clock:
    """A collector of times that pass whether or not anything is reported: phases, and the GPUs held."""

    def __init__(self) -> None:
        self.gpus = 0
        self.at_work = 0
        self.used = 0.0
        self._began = self._since = time.monotonic()
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phases = ["compute"]

    def switch(self, phase: str | None) -> None:
        """Enter a phase, or leave the one last entered."""
        now = time.monotonic()
        self._seconds[self._phases[-1]] += now - self._since
        self._since = now
        if phase:
            self._phases.append(phase)
        else:
            self._phases.pop()

    def collect(self) -> Iterator[Metric]:
        """Yield the counters as they stand now."""
        now = time.monotonic()
        phases = CounterMetricFamily("mrigan_phase_seconds", "Seconds of this process by phase.", labels=["phase"])
        for phase, seconds in self._seconds.items():
            phases.add_metric([phase], seconds + (now - self._since) * (phase == self._phases[-1]))
        yield phases
        held = (now - self._began) * self.gpus
        yield CounterMetricFamily("mrigan_gpu_held_seconds", "GPUs held, times seconds.", held)
        yield CounterMetricFamily("mrigan_gpu_used_seconds", "GPUs at work, times seconds.", self.used)


_clock = _Clock()
REGISTRY.register(_clock)  # type: ignore[arg-type] # it has the one method that a registry calls

# ---- every job -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the seconds within as `read`, `compute` or `write`; only the main thread's, which waits for all others."""
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
    """Count the seconds within as use of the GPU, if there is one."""
    began = time.monotonic()
    try:
        yield
    finally:
        _clock.used += (time.monotonic() - began) * _clock.at_work


def hold_gpus(gpus: int) -> None:
    """Say how many GPUs this process holds from its beginning; the larger of several says counts."""
    _clock.gpus = max(_clock.gpus, gpus)


def hardware(device: str, precision: str) -> None:
    """Say what computes: device `cpu` or `gpu` (one of them), precision `float32` or `bfloat16`."""
    _clock.at_work = int(device == "gpu")
    hold_gpus(_clock.at_work)
    info = _hardware_info()
    info.clear()
    info.labels(device, precision).set(1)


@functools.cache
def _hardware_info() -> Gauge:
    return Gauge("mrigan_hardware_info", "What computes; 1.", ["device", "precision"], registry=REGISTRY)


def _counter(name: str, text: str, **labels: Iterable[str]) -> Counter:
    """Return a counter with one label at most, whose values all begin at 0, so that the first rise is seen."""
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
        errors=_counter("mrigan_s3_errors_total", "Requests that failed for good."),
        retries=_counter("mrigan_s3_retries_total", "Tries after the first."),
        bytes=_counter("mrigan_s3_bytes_total", "Bodies of objects.", direction=("received", "sent")),
        seconds=_counter("mrigan_s3_request_seconds_total", "Seconds of the requests."),
    )


@functools.cache
def preprocessing(reasons: tuple[str, ...]) -> SimpleNamespace:
    """Return the metrics of preprocess: read, quarantined (by reason), pairs, groups."""
    return SimpleNamespace(
        read=_counter("mrigan_images_read_total", "Images that were read."),
        quarantined=_counter("mrigan_images_quarantined_total", "Images set aside.", reason=reasons),
        pairs=Gauge("mrigan_near_duplicate_pairs", "Pairs of images of the same picture.", registry=REGISTRY),
        groups=Gauge("mrigan_groups", "Groups, none of which straddles folds.", registry=REGISTRY),
    )


@functools.cache
def generated() -> Counter:
    """Return the counter of synthetic images drawn."""
    return _counter("mrigan_images_generated_total", "Synthetic images drawn.")


# ---- training ------------------------------------------------------------------------------------------------------


class Training:
    """One training's metrics. The figures of an epoch go by name: that of the metric without `mrigan_`, and its label.

    kind: `gan` or `classifier`; which figures there are stands in FIGURES.
    """

    def __init__(self, kind: str, epochs_planned: int, epochs: int, steps: int) -> None:
        self.figures = _figures(kind)
        self.progress = _progress()
        self.progress.planned.set(epochs_planned)
        self.progress.checkpoint.set_to_current_time()
        self.steps(steps, epochs, 0)
        _state.training = True

    def steps(self, steps: int, epochs: int, images: int) -> None:
        """Say how many steps and whole epochs are done in all, and how many images were seen since last said."""
        self.progress.step.set(steps)
        self.progress.epoch.set(epochs)
        self.progress.images.inc(images)
        self.progress.time.set_to_current_time()

    def epoch(self, values: Mapping[tuple[str, str], float]) -> None:
        """Say the figures of one epoch that was just finished."""
        for (metric, label), value in values.items():
            gauge, summary = self.figures[metric]
            gauge.labels(label).set(value)
            if math.isfinite(value):
                summary.labels(label).observe(value)


# By kind: (metric, label, its values, what it is).
FIGURES: dict[str, list[tuple[str, str, tuple[str, str], str]]] = {
    "gan": [
        ("loss", "model", ("generator", "discriminator"), "Mean loss of an epoch, in nats."),
        ("discriminator_accuracy_ratio", "images", ("real", "fake"), "Share read right by the discriminator."),
    ],
    "classifier": [
        ("loss", "split", ("training", "held-out"), "Mean cross-entropy of an epoch, in nats."),
        ("accuracy_ratio", "split", ("training", "held-out"), "Share of an epoch read right."),
    ],
}


@functools.cache
def _figures(kind: str) -> dict[str, tuple[Gauge, Summary]]:
    """Return for each figure its gauge and its summary, which have no series before the first epoch."""
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
        epoch=gauge("mrigan_training_epoch", "Whole epochs done."),
        planned=gauge("mrigan_training_epochs_planned", "Epochs to do."),
        step=gauge("mrigan_training_step", "Steps done."),
        images=_counter("mrigan_training_images_total", "Images that changed weights."),
        time=gauge("mrigan_training_step_timestamp_seconds", "When steps were last done."),
        checkpoint=gauge("mrigan_checkpoint_timestamp_seconds", "When a checkpoint was last written."),
    )


def checkpoint_written() -> None:
    """Say that a checkpoint was written now."""
    _progress().checkpoint.set_to_current_time()


# ---- the server ----------------------------------------------------------------------------------------------------

# `seen` says whether Prometheus ever came, `last` that nothing changes any more, and `scraped` that this was seen.
_state = SimpleNamespace(training=False, served=False, seen=False, last=False, scraped=threading.Event())


def serve(port: int) -> None:
    """Serve the metrics at every address of this machine until the process ends.

    Raises UserError if the port cannot be had.
    """
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from prometheus_client import make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a scrape is no event."""

    class Body(list[bytes]):
        last = False

        def close(self) -> None:
            """Say that all was sent: the server calls this at the end."""
            if self.last:
                _state.scraped.set()

    answer = make_wsgi_app(REGISTRY)

    def app(environ: Any, start_response: Any) -> Any:
        # Here, not in close: who has read all of an answer must find it counted.
        _state.seen, last = True, _state.last
        body = Body(answer(environ, start_response))
        body.last = last
        return body

    try:
        server = make_server("", port, app, ThreadingWSGIServer, handler_class=Silent)
    except OSError as error:
        raise UserError(f"--metrics-port {port}: {error.strerror or error}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _state.served = True


def wait_for_a_last_scrape(failed: bool) -> None:
    """Let Prometheus see how it ended, if it came before: what happened since then it would never know.

    A training that `failed` waits in any case, since what it failed of may be its first figure. A signal ends the wait.
    """
    if _state.served and (_state.seen or (failed and _state.training)):
        _state.last = True
        with contextlib.suppress(Interrupted):
            _state.scraped.wait(LAST_SCRAPE_SECONDS)
