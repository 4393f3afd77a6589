"""The Prometheus metrics of this process (listed in docs/metrics.md).

The metrics count even if they are not served. Run, fold and class come from the labels of the pod.
"""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, Summary, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, Metric

PHASES = ("read", "compute", "write")
HARDWARE = ("device", "precision")

disable_created_metrics()
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


@functools.cache
def counter(name: str, text: str, **labels: tuple[str, ...]) -> Counter:
    """Return the counter called `name`, created by the first call, with at most one label: its name and its values.

    All series start at 0, so that their first increase is visible.
    """
    made = Counter(name, text, list(labels), registry=REGISTRY)
    for label, values in labels.items():
        for value in values:
            made.labels(**{label: value})
    return made


@functools.cache
def gauge(name: str, text: str, *labels: str) -> Gauge:
    """Return the gauge called `name`, created by the first call."""
    return Gauge(name, text, labels, registry=REGISTRY)


# ---- time and hardware ---------------------------------------------------------------------------------------------


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
    info = gauge("mrigan_hardware_info", "Device and precision of the computation, as labels; always 1.", *HARDWARE)
    info.clear()
    info.labels(device, precision).set(1)


# ---- training ------------------------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A value that each epoch of a training has: its name, its one label with the label's values, its help text."""

    name: str
    label: str
    values: tuple[str, ...]
    text: str


class Training:
    """Metrics of one training of a `kind`, with the `figures` of its epochs.

    A figure is the gauge mrigan_<kind>_<name> (last epoch) and the summary mrigan_<kind>_epoch_<name> (all epochs).
    """

    def __init__(self, kind: str, figures: tuple[Figure, ...], epochs_planned: int, epochs: int, steps: int) -> None:
        self._series = _series(kind, figures)
        self._progress = _progress()
        self._progress.planned.set(epochs_planned)
        self._progress.checkpoint.set_to_current_time()
        self.steps(steps, epochs, 0)

    def steps(self, steps: int, epochs: int, images: int) -> None:
        """Set the total numbers of steps and whole epochs done, and add the number of images since the last call."""
        self._progress.step.set(steps)
        self._progress.epoch.set(epochs)
        self._progress.images.inc(images)
        self._progress.time.set_to_current_time()

    def epoch(self, values: Sequence[float | None]) -> None:
        """Set the values of an epoch that has just ended, in the order of the figures and their labels' values.

        None: this epoch has no such value.
        """
        for (last, every, label), value in zip(self._series, values, strict=True):
            if value is not None:
                last.labels(label).set(value)
                if math.isfinite(value):
                    every.labels(label).observe(value)


@functools.cache
def _series(kind: str, figures: tuple[Figure, ...]) -> list[tuple[Gauge, Summary, str]]:
    """Return gauge, summary and value of the label for each value of an epoch. No series exists before an epoch."""
    return [
        (last, every, value)
        for name, label, values, text in figures
        for last in [gauge(f"mrigan_{kind}_{name}", text, label)]
        for every in [Summary(f"mrigan_{kind}_epoch_{name}", text, [label], registry=REGISTRY)]
        for value in values
    ]


@functools.cache
def _progress() -> SimpleNamespace:
    return SimpleNamespace(
        epoch=gauge("mrigan_training_epoch", "Whole epochs done, including those before an interruption."),
        planned=gauge("mrigan_training_epochs_planned", "Planned epochs."),
        step=gauge("mrigan_training_step", "Training steps done, including those before an interruption."),
        images=counter("mrigan_training_images_total", "Images used for weight updates by this process."),
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


def trains() -> bool:
    """Return whether a training began in this process."""
    return bool(_progress.cache_info().currsize)
