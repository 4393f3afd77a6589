"""Reader processes for files of unknown origin: a file that crashes its reader is quarantined, and the job continues.

Each process reads one file at a time, has limits of memory and processor time (the Budget), and is replaced when it
crashes. Messages of libraries on standard error are discarded, since they do not name the user's files.
"""

import atexit
import functools
import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from jobs.common.errors import MachineError
from jobs.common.machine import usable_cores, usable_memory
from jobs.mri.slices import BUDGET, Budget, Unusable

T = TypeVar("T")
MOST = 8  # processes: each needs about 150 MB before it reads a file
MOST_BYTES = 2**29  # of files that are read ahead
WALL = 10  # limit of the elapsed time, in multiples of the limit of processor time


class Reader:
    """One process. Only one thread at a time may use `call`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def call(self, work: Callable[[bytes, str], T], data: bytes, name: str) -> T | Unusable:
        """Return the result of `work(data, name)` in the process, or the Unusable that it raises.

        `work` and the result must be picklable. Also returns Unusable (too-slow, decompression-bomb, decoder-error) if
        the process crashes or exceeds a limit. Raises MachineError if the process cannot be started.
        """
        if self._process is None:
            self._start()
        process, connection, seconds = self._process, self._connection, self._budget.cpu_seconds
        assert process is not None and connection is not None
        try:
            connection.send((work, name))
            connection.send_bytes(data)
            if connection.poll(WALL * seconds):
                return connection.recv()
            finding = Unusable("too-slow", f"not read after {WALL * seconds} seconds")
        except (EOFError, OSError):
            code = process.wait()
            signals = {
                -signal.SIGXCPU: ("too-slow", f"not read after {seconds} seconds of a processor"),
                -signal.SIGKILL: ("decompression-bomb", "the system killed the reader, most likely out of memory"),
            }
            finding = Unusable(*signals.get(code, ("decoder-error", f"the decoder crashed (exit code {code})")))
        self.stop()
        return finding

    def stop(self) -> None:
        """End the process; the next call starts a new one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def _start(self) -> None:
        ours, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # One thread per process, since there are as many processes as cores.
        environment |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        command = [sys.executable, "-P", "-m", "jobs.mri.readers", str(theirs.fileno()), *map(str, self._budget)]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        theirs.close()
        self._connection = ours
        try:
            ours.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            self.stop()
            raise MachineError(f"a reader process cannot be started: it ended with exit code {code}") from None


class Readers:
    """As many reader processes as this machine has cores and memory for, each started when it is first needed."""

    def __init__(self, budget: Budget = BUDGET, count: int | None = None) -> None:
        self.count = count or affordable(budget)
        self._readers = [Reader(budget) for _ in range(self.count)]
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        for reader in self._readers:
            self._idle.put(reader)

    def map(self, work: Callable[[bytes, str], T], files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[bytes, Any]]:
        """Yield (data, result) for each (name, data) of `files`, in order; a few files are read ahead.

        The result is that of `work(data, name)`, or the Unusable that it raises. Raises MachineError.
        """
        with ThreadPoolExecutor(self.count) as pool:
            under_way: deque[tuple[bytes, Future]] = deque()
            try:
                for name, data in files:
                    under_way.append((data, pool.submit(self._call, work, data, name)))
                    if len(under_way) > 2 * self.count or sum(len(data) for data, _ in under_way) > MOST_BYTES:
                        data, future = under_way.popleft()
                        yield data, future.result()
                while under_way:
                    data, future = under_way.popleft()
                    yield data, future.result()
            except BaseException:
                # The threads wait for the processes, and end when these are ended.
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def stop(self) -> None:
        """End all processes; the next file starts new ones."""
        for reader in self._readers:
            reader.stop()

    def _call(self, work: Callable[[bytes, str], T], data: bytes, name: str) -> T | Unusable:
        reader = self._idle.get()
        try:
            return reader.call(work, data, name)
        finally:
            self._idle.put(reader)


@functools.cache
def shared() -> Readers:
    """Return the readers of this process; they are shared because the start of one takes a second."""
    readers = Readers()
    atexit.register(readers.stop)
    return readers


def affordable(budget: Budget) -> int:
    """Return the number of reader processes that may run in parallel within the cores and memory of this machine."""
    return max(1, min(MOST, usable_cores(), usable_memory() // budget.memory_bytes))


# -- in the process ------------------------------------------------------------------------------------------------


def _serve(connection: Connection, budget: Budget) -> None:
    """Execute calls until the other end of the connection is closed."""
    connection.send(None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    while True:
        try:
            work, name = connection.recv()
            data = connection.recv_bytes()
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + budget.cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            result = work(data, name)
        except Unusable as finding:
            result = finding
        except MemoryError:
            result = Unusable("decompression-bomb", f"needs more than {budget.memory_bytes} bytes of memory")
        connection.send(result)
        del data, result


def _limit_memory(extra: int) -> None:
    """Limit the memory of this process to `extra` bytes more than now; no limit without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _main(descriptor: str, *limits: str) -> None:
    # Ctrl-C signals every process of a terminal, but the job ends its readers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imported before the limit is set, since the memory of the libraries does not count.
    import jobs.mri.examine  # noqa: F401

    budget = Budget(*map(int, limits))
    _limit_memory(budget.memory_bytes)
    _serve(Connection(int(descriptor)), budget)


if __name__ == "__main__":
    _main(*sys.argv[1:])
