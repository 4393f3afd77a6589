"""Reader processes for files of unknown origin: a file that crashes its reader is quarantined, and the job continues.

Each process reads one file at a time, has limits of memory and processor time (the Budget), and is replaced when it
crashes. The standard error of libraries is discarded, since it does not name the user's files.
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
MOST = 8  # processes: each takes some 150 MB before it reads anything
MOST_BYTES = 2**29  # of files that are read ahead
WALL = 10  # times the processor seconds: limit of the elapsed time, for a process that waits


class Reader:
    """One process. `call` is for one thread at a time."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def call(self, work: Callable[[bytes, str], T], data: bytes, name: str) -> T:
        """Return what `work(data, name)` returns in the process; both must be picklable.

        Raises what it raises; Unusable (too-slow, decompression-bomb, decoder-error) if the process does not survive
        the file, MachineError if it cannot be started.
        """
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((work, name))
            self._connection.send_bytes(data)
            if not self._connection.poll(WALL * self._budget.cpu_seconds):
                self.stop()
                raise Unusable("too-slow", f"not read after {WALL * self._budget.cpu_seconds} seconds")
            result = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        """End the process; the next call starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def _start(self) -> None:
        ours, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # One thread each: there are as many processes as cores.
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

    def _death(self) -> Unusable:
        assert self._process is not None
        code = self._process.wait()
        self.stop()
        if code == -signal.SIGXCPU:
            return Unusable("too-slow", f"not read after {self._budget.cpu_seconds} seconds of a processor")
        if code == -signal.SIGKILL:
            return Unusable("decompression-bomb", "the system killed the reader, most likely out of memory")
        return Unusable("decoder-error", f"the decoder crashed (exit code {code})")


class Readers:
    """As many reader processes as this machine has cores and memory for, started as they are needed."""

    def __init__(self, budget: Budget = BUDGET, count: int | None = None) -> None:
        self.count = count or affordable(budget)
        self._readers = [Reader(budget) for _ in range(self.count)]
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        for reader in self._readers:
            self._idle.put(reader)

    def map(self, work: Callable[[bytes, str], T], files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[bytes, Any]]:
        """Yield (data, result) for each (name, data) of `files`, in order, a few files ahead of the caller.

        The result is what `work(data, name)` returns or the Unusable that it raises. Raises MachineError.
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
                # Nobody waits for what is under way; a process that is ended lets go its thread.
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def stop(self) -> None:
        """End the processes; the next file starts new ones."""
        for reader in self._readers:
            reader.stop()

    def _call(self, work: Callable[[bytes, str], T], data: bytes, name: str) -> T | Unusable:
        reader = self._idle.get()
        try:
            return reader.call(work, data, name)
        except Unusable as finding:
            return finding
        finally:
            self._idle.put(reader)


@functools.cache
def shared() -> Readers:
    """Return the readers of this process, which end with it: to start one takes a second."""
    readers = Readers()
    atexit.register(readers.stop)
    return readers


def affordable(budget: Budget) -> int:
    """Return how many reader processes may run side by side: at most one a core, all within the memory there is."""
    return max(1, min(MOST, usable_cores(), usable_memory() // budget.memory_bytes))


# -- in the process ------------------------------------------------------------------------------------------------


def _serve(connection: Connection, budget: Budget) -> None:
    """Answer calls until the other end is closed."""
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
    """Let this process take `extra` bytes beyond what it has; where the system cannot tell, there is no limit."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _main(descriptor: str, *limits: str) -> None:
    # Ctrl-C reaches every process of a terminal: the job ends its readers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before the limit: what the libraries take for themselves is no file's.
    import jobs.mri.examine  # noqa: F401

    budget = Budget(*map(int, limits))
    _limit_memory(budget.memory_bytes)
    _serve(Connection(int(descriptor)), budget)


if __name__ == "__main__":
    _main(*sys.argv[1:])
