"""Checkpoints: an interrupted training loop resumes from the last one, with bit-identical results."""

import hashlib
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np

from jobs.common import again, metrics, shapes, stopping, tensors
from jobs.common.errors import Interrupted, MachineError
from jobs.common.step import Step, digest, seal, unseal
from jobs.common.storage import MissingKey

CHECKPOINTS = "checkpoints"  # folder
POINTER = "checkpoint.json"


class Checkpoints:
    """The checkpoints of one step in storage, and the handling of SIGTERM and Ctrl-C.

    Use it as a context manager around a training loop; it then handles the signals. The loop calls `due` after each
    call into TensorFlow, and `save` if a checkpoint is due. After a signal, `save` ends the job. The pointer is written
    after the checkpoint file, so that it never refers to an incomplete file.
    """

    def __init__(self, step: Step, every_steps: int, every_seconds: float) -> None:
        self.step = step
        self.every_steps = every_steps
        self.every_seconds = every_seconds
        self.interrupted = False
        self._saved_step = 0
        self._saved_time = time.monotonic()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._stop) for number in stopping.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        stopping.unsaved(False)
        if self.interrupted and kind is None:
            raise Interrupted

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def due(self, step_number: int) -> bool:
        """Return whether a checkpoint is to be written after `step_number` steps."""
        stopping.unsaved(step_number > self._saved_step)
        return (
            self.interrupted
            or step_number - self._saved_step >= self.every_steps
            or time.monotonic() - self._saved_time >= self.every_seconds
        )

    def save(self, step_number: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
        """Write a checkpoint; raises Interrupted after it if a signal asked the job to stop."""
        with metrics.phase("write"), stopping.finishing():
            old = self._pointer()
            data = tensors.to_bytes(arrays, meta)
            name = f"checkpoint-{step_number:08d}.safetensors"
            self.step.storage.write(self._key(name), data)
            pointer: dict[str, Any] = {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
            pointer |= {"asked": digest(self.step.asked), "arithmetic": self.step.arithmetic}
            pointer["seconds"] = self.step.seconds
            self.step.storage.write(self._key(POINTER), seal(pointer))
            if old and old["file"] != name:
                self.step.storage.delete(self._key(old["file"]))
        metrics.checkpoint_written()
        stopping.unsaved(False)
        self._saved_step, self._saved_time = step_number, time.monotonic()
        if self.interrupted:
            raise Interrupted(f"stopped and saved after step {step_number}: run the same command to resume")

    def restore(self) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """Return the arrays and meta last saved for the same step, settings and inputs; None if there are none.

        Raises MachineError if the checkpoint is damaged.
        """
        pointer = self._pointer()
        if pointer is None or pointer["asked"] != digest(self.step.asked):
            return None
        if not self.step.accepts(pointer["arithmetic"], "has a checkpoint that was made"):
            return None
        key = self._key(pointer["file"])
        try:
            data = again.verified(self.step.storage, key, pointer["sha256"])
        except (MissingKey, ValueError):
            raise self._damaged(pointer["file"]) from None
        self.step.earlier = float(pointer["seconds"])
        return tensors.from_bytes(data, key)

    def clear(self) -> None:
        """Delete the checkpoints. They are not needed once the manifest is written."""
        # A job that was killed between two writes may have left more than one checkpoint file.
        for key in self.step.storage.list(self._key("")):
            self.step.storage.delete(key)

    def _key(self, name: str) -> str:
        return f"{self.step.prefix}/{CHECKPOINTS}/{name}"

    def _pointer(self) -> dict[str, Any] | None:
        try:
            return {"seconds": 0.0} | shapes.checked(shapes.Pointer, unseal(self.step.storage.read(self._key(POINTER))))
        except MissingKey:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(POINTER) from error

    def _damaged(self, name: str) -> MachineError:
        folder = f"{self.step.storage.url.rstrip('/')}/{self.step.prefix}/{CHECKPOINTS}"
        return MachineError(f"{folder}/{name} is damaged: delete that folder to train from the start")
