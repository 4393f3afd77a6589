"""Threads, precision and XLA: decided here alone, from the hardware found, and logged with the reason."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.common import metrics
from jobs.common.settings import ExecutionSettings

log = logging.getLogger("mrigan.hardware")


@dataclass(frozen=True)
class Hardware:
    """What was decided: `threads` of the processor, `precision` of the arithmetic, XLA or not, on which device."""

    device: str
    threads: int
    precision: str
    xla: bool
    reason: str

    def record(self) -> dict[str, Any]:
        """Return the decision as JSON values for a manifest."""
        return asdict(self)


def configure(execution: ExecutionSettings, depthwise: bool = False) -> Hardware:
    """Set TensorFlow up once in this process, deterministic, and return what was decided.

    `depthwise` says that the network is made of depthwise convolutions, which are no matrix products. A later call in
    the same process with the same settings is free.
    """
    # What fails raises an exception; TensorFlow's log beside it is for its own developers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent():
        import tensorflow as tf

    threads, counted = (execution.threads, "as set") if execution.threads else (usable_cores(), "all there are to use")
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "GPU")
        precision, why = _for_gpu(details.get("compute_capability"))
    else:
        model, flags = _processor()
        device = model
        precision, why = _for_processor(flags, depthwise)
    if execution.precision != "auto":
        precision, why = execution.precision, "as set"
    # On processors XLA made every step slower here, that of MobileNetV2 seven times, and takes longer to compile.
    xla = execution.xla == "on" or (execution.xla == "auto" and bool(gpus))
    because = "as set" if execution.xla != "auto" else "it pays on a GPU" if xla else "it does not pay on a processor"
    reason = f"{threads} threads: {counted}; {precision}: {why}; XLA {'on' if xla else 'off'}: {because}"
    decided = Hardware(device, threads, precision, xla, reason)
    metrics.hardware("gpu" if gpus else "cpu", precision)
    if decided not in _logged:
        _logged.add(decided)
        log.info("%s, %s", device, reason)
    return decided


_logged: set[Hardware] = set()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what is written to standard error, by libraries too: TensorFlow greets before its log level counts."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def usable_cores() -> int:
    """Return how many processor cores this process may keep busy: its affinity, capped by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def usable_memory() -> int:
    """Return the bytes of memory that this machine has, or its container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def _processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and feature flags, as Linux spells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "processor", frozenset()
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return fields.get("model name", "processor"), frozenset(fields.get("flags", "").split())


def _for_processor(flags: frozenset[str], depthwise: bool) -> tuple[str, str]:
    # The instructions of avx512_bf16 alone do not pay: on an EPYC that has them bfloat16 made a step of MobileNetV2 at
    # 64 px a third slower, and left one of the DCGAN at width 32 about as fast. With matrix units, on a Xeon, it took
    # 0.72 of the time of ResNet152V2 and 0.76 of the DCGAN's at width 16, but 1.5 times that of MobileNetV2.
    if "amx_bf16" not in flags:
        return "float32", "the processor has no matrix units for bfloat16"
    if depthwise:
        return "float32", "the processor's matrix units are no help to depthwise convolutions"
    return "bfloat16", "the processor has matrix units for bfloat16 (amx_bf16)"


def _for_gpu(capability: tuple[int, int] | None) -> tuple[str, str]:
    if capability and capability >= (8, 0):
        return "bfloat16", f"compute capability {capability[0]}.{capability[1]} has tensor cores for bfloat16"
    return "float32", "the GPU has no tensor cores for bfloat16"
