"""The only place that decides on threads, precision and XLA, from the hardware; the decision is logged with reasons."""

import functools
import logging
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf

from jobs.common import metrics
from jobs.common.machine import processor, usable_cores

log = logging.getLogger("mrigan.hardware")


@dataclass(frozen=True)
class Hardware:
    """The decision: `threads` of the processor, `precision` of the arithmetic, XLA on or off, and the device."""

    kind: str  # cpu or gpu
    device: str
    threads: int
    precision: str
    xla: bool
    reason: str

    def record(self) -> dict[str, Any]:
        """Return the decision as JSON values for a manifest."""
        return asdict(self)

    def arithmetic(self) -> dict[str, Any]:
        """Return the properties that affect rounding, as JSON values."""
        return {name: getattr(self, name) for name in ("kind", "threads", "precision", "xla")}


def configure(execution: Any, depthwise: bool = False) -> Hardware:
    """Set up TensorFlow in this process, with deterministic operations, and return the decision.

    `execution` has the settings `threads` (0: all cores), `precision` (auto, float32, bfloat16) and `xla` (auto, on,
    off). `depthwise`: the network consists of depthwise convolutions, which are not matrix products.
    """
    threads, counted = (execution.threads, "as set") if execution.threads else (usable_cores(), "all available")
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # By default TensorFlow takes all memory at once, so that a second process on a shared GPU would fail.
        # TF_FORCE_GPU_ALLOW_GROWTH=false still overrides this.
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "GPU")
        precision, why = _for_gpu(details.get("compute_capability"))
    else:
        device, flags = processor()
        precision, why = _for_processor(flags, depthwise)
    if execution.precision != "auto":
        precision, why = execution.precision, "as set"
    # Measured on processors: XLA made every step slower (MobileNetV2: seven times), and takes longer to compile.
    xla = execution.xla == "on" or (execution.xla == "auto" and bool(gpus))
    because = "as set" if execution.xla != "auto" else "faster on a GPU" if xla else "slower on a processor"
    reason = f"{threads} threads: {counted}; {precision}: {why}; XLA {'on' if xla else 'off'}: {because}"
    decided = Hardware("gpu" if gpus else "cpu", device, threads, precision, xla, reason)
    metrics.hardware(decided.kind, precision)
    _log(decided)
    return decided


@functools.cache
def _log(decided: Hardware) -> None:
    """Log each decision once in a process."""
    log.info("%s, %s", decided.device, decided.reason)


def _for_processor(flags: frozenset[str], depthwise: bool) -> tuple[str, str]:
    # The avx512_bf16 instructions alone are not enough: on an EPYC with them, bfloat16 made a step of MobileNetV2 at
    # 64 px a third slower, and left one of the DCGAN at width 32 about as fast. On a Xeon with matrix units, bfloat16
    # took 0.72 of the time for ResNet152V2 and 0.76 for the DCGAN at width 16, but 1.5 times the time for MobileNetV2.
    if "amx_bf16" not in flags:
        return "float32", "the processor has no matrix units for bfloat16"
    if depthwise:
        return "float32", "the processor's matrix units do not speed up depthwise convolutions"
    return "bfloat16", "the processor has matrix units for bfloat16 (amx_bf16)"


def _for_gpu(capability: tuple[int, int] | None) -> tuple[str, str]:
    if capability and capability >= (8, 0):
        return "bfloat16", f"compute capability {capability[0]}.{capability[1]} has tensor cores for bfloat16"
    return "float32", "the GPU has no tensor cores for bfloat16"
