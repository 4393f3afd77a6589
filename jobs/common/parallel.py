"""Processes that compute a job's results at the same time, in the order of what they are computed from."""

import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from jobs.common.errors import MachineError
from jobs.common.machine import usable_cores, usable_memory
from jobs.common.workers import start_watching_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
EACH = 2**28  # bytes of memory, about, that a process needs


def pieces(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return consecutive slices of `items`, each of `size` items; the last one has those that remain."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def mapped(work: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """Yield `work(item)` for each of the `items`, in order, computed on all cores; a few results are computed ahead.

    `work`, the items and the results must be picklable. An item should take a second or more, like the start of a
    process. A single item is computed in this process, and so are all items of a worker process, since its siblings use
    the other cores. Closing the generator ends the processes.

    Raises what `work` raises, and MachineError if a process is killed.
    """
    count = min(len(items), usable_cores(), usable_memory() // EACH)
    if count <= 1 or multiprocessing.parent_process():
        yield from map(work, items)
        return
    remaining = iter(items)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin)
    try:
        under_way: deque[Future[Result]] = deque()
        while True:
            for item in itertools.islice(remaining, 2 * count - len(under_way)):
                under_way.append(pool.submit(work, item))
            if not under_way:
                return
            yield under_way.popleft().result()
    except BrokenProcessPool:
        raise MachineError("a process was killed, possibly out of memory") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    # Ctrl-C signals every process of a terminal, but the job ends its processes itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start_watching_parent()
