"""Leases: of several processes that want to write to one place, one works and the others wait.

A lease is an object beside the outputs that names its holder, and that the holder writes again every few seconds. It is
taken by a conditional write. Another process takes it over once the holder has ended: at once if that can be seen (a
process of this machine), else when the object has not changed for a while. Clocks are not compared.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.storage import MissingKey, Storage

log = logging.getLogger("mrigan.leases")

BEAT_SECONDS = 10.0  # between two writes by the holder
SILENT_SECONDS = 45.0  # without a change, after which the holder has ended
WAIT_SECONDS = 2.0  # between two looks at a lease of another process
_PROCESS = uuid.uuid4().hex
_held: dict[tuple[str, str], "Lease"] = {}
_lock = threading.RLock()


class Lease:
    """A lease of this process on the step `prefix`. `lost` is true once another process has taken it over."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        self.storage, self.prefix, self.key, self.lost = storage, prefix, keys.lease(prefix), False
        self._beats, self._data = 0, b""

    def take(self, expected: bytes | None) -> bool:
        """Write the lease in place of `expected` (None: nothing); return whether nobody else was faster."""
        self._beats += 1
        data = json.dumps(_holder() | {"step": self.prefix, "beats": self._beats}).encode()
        if not self.storage.write_if(self.key, data, expected):
            return False
        self._data = data
        return True

    def beat(self) -> None:
        """Write the lease again; a failure of the storage is not an error yet."""
        try:
            self.lost = self.lost or not self.take(self._data)
        except (MachineError, UserError) as error:
            log.warning("%s: the lease cannot be renewed: %s", self.prefix, error)

    def release(self) -> None:
        """Delete the lease, unless it is lost."""
        with _lock:
            _held.pop((self.storage.url, self.key), None)
            if not self.lost:
                self.storage.delete(self.key)


def take(storage: Storage, prefix: str, is_done: Callable[[], bool]) -> Lease | None:
    """Return the lease of the step `prefix`, once no other process holds it; None if `is_done` is true after a wait."""
    key = keys.lease(prefix)
    seen, since, told = None, time.monotonic(), False
    while True:
        try:
            found: bytes | None = storage.read(key)
        except MissingKey:
            found = None
        if found != seen:
            seen, since = found, time.monotonic()
        if found is None or _has_ended(found) or time.monotonic() - since >= SILENT_SECONDS:
            lease = Lease(storage, prefix)
            if lease.take(found):
                with _lock:
                    _held[storage.url, key] = lease
                    _start_beating()
                return lease
            continue
        if not told:
            told = True
            log.info("waiting for another process that works on %s", prefix)
        time.sleep(WAIT_SECONDS)
        if is_done():
            return None


def clear(storage: Storage, prefix: str) -> None:
    """Delete the lease of the finished step `prefix` if an ended process of this machine has left it."""
    try:
        found = storage.read(keys.lease(prefix))
    except MissingKey:
        return
    lease = Lease(storage, prefix)
    if _has_ended(found) and lease.take(found):
        lease.release()


def release_all() -> None:
    """Release the leases that a failed job of this process has left."""
    for lease in list(_held.values()):
        lease.release()


def _holder() -> dict[str, str | int]:
    return {"process": _PROCESS, "host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())}


def _has_ended(data: bytes) -> bool:
    """Return whether the holder is this process, which does one job after another, or an ended process of this machine.

    A damaged lease is one of a process that cannot be seen.
    """
    try:
        found = json.loads(data)
        if found["process"] == _PROCESS:
            return True
        return found["host"] == platform.node() and _started(int(found["pid"])) != found["started"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _started(pid: int) -> str:
    """Return when the process `pid` of this machine was started, in a unit of the system; empty if it has ended."""
    try:
        # Its name, in parentheses, may contain blanks.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"


def _start_beating() -> None:
    if not any(thread.name == __name__ for thread in threading.enumerate()):
        threading.Thread(target=_beat, name=__name__, daemon=True).start()


def _beat() -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        with _lock:
            for lease in _held.values():
                lease.beat()
