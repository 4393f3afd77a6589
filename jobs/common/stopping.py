"""The end of a process soon after SIGTERM or Ctrl-C, even within one long call into a library.

Python runs a signal handler only between two of its own operations. The first step of a large network is one operation
that may take longer than Kubernetes waits before SIGKILL.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

from jobs.common.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# From the signal to the end by force. Kubernetes waits 30 seconds.
SECONDS = 7.0
UNSAVED_SECONDS = 20.0  # if the process has training steps to save
LAST_SECONDS = 2.0  # for the normal end of the process
_state = SimpleNamespace(unsaved=False)
_finishing = threading.RLock()


def watch(told: Callable[[], object]) -> None:
    """Start a thread that ends this process with exit code 75 if it does not end by itself after a signal.

    `told` is called before. Only for the main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(reading, told), daemon=True).start()


def unsaved(value: bool) -> None:
    """Say whether this process has training steps that are in no checkpoint."""
    _state.unsaved = value


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Allow no end by force within the block: it writes a checkpoint, or waits for workers that write theirs."""
    with _finishing:
        yield


def _end(reading: int, told: Callable[[], object]) -> None:
    while os.read(reading, 1)[0] not in SIGNALS:
        pass
    began = time.monotonic()
    while time.monotonic() - began < (UNSAVED_SECONDS if _state.unsaved else SECONDS):
        time.sleep(0.1)
    with _finishing:
        pass
    time.sleep(LAST_SECONDS)
    with _finishing:
        told()
        os._exit(Interrupted.exit_code)
