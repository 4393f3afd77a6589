"""Worker processes that carry out tasks in the order of their dependencies."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NamedTuple

from jobs.common import leases, logs, progress, scrapes, stopping
from jobs.common.errors import Interrupted, MachineError, UserError

log = logging.getLogger("mrigan.workers")

END_SECONDS = 60  # maximum time for a worker's checkpoint after a signal


class Work(NamedTuple):
    """A task: its name, the names of the tasks that it depends on, and the argument of `perform`."""

    name: str
    needs: frozenset[str]
    payload: Any


Failure = tuple[str, str]  # UserError, MachineError, bug or nothing (not started), and its message


class Watcher:
    """Receives events; all methods do nothing unless they are overridden."""

    def started(self, name: str) -> None:
        """A worker started this task."""

    def told(self, name: str, done: int, total: int, text: str) -> None:
        """The progress of this task is `done` of `total`."""

    def ended(self, name: str, failed: bool) -> None:
        """This task is done, or failed."""


class Setup(NamedTuple):
    """The configuration of a worker: log style, port of its metrics (0: none), its GPU (None: all available)."""

    log_format: str
    metrics_port: int
    gpu: str | None


def carry_out(works: Sequence[Work], perform: Callable[[Any], None], setups: Sequence[Setup], watcher: Watcher) -> None:
    """Call `perform` with each task's payload in worker processes, one for each of `setups`; earlier tasks come first.

    A single worker is this process. `perform` must be importable. If a task fails, the tasks that depend on it are
    skipped, and all others are carried out. Then UserError is raised if there was a user error among the failures,
    RuntimeError if there was a bug, else MachineError. Raises Interrupted after a signal, once the workers have written
    their checkpoints.
    """
    waiting = list(works)
    failures: dict[str, Failure] = {}
    if len(setups) == 1:
        while waiting:
            work = waiting.pop(0)
            watcher.started(work.name)
            with progress.watched(partial(watcher.told, work.name)):
                failure = _tried(perform, work.payload)
            if failure:
                _fail(work.name, failure, failures, waiting)
            watcher.ended(work.name, failure is not None)
        return _raise(failures)
    with _pool(perform, setups, min(len(setups), len(works))) as workers:
        at_work: dict[Connection, str] = {}
        while waiting or at_work:
            pending = {work.name for work in waiting} | set(at_work.values())
            for idle in [one for one in workers if one not in at_work]:
                ready = next((work for work in waiting if not work.needs & pending), None)
                if ready is None:
                    break
                waiting.remove(ready)
                at_work[idle] = ready.name
                watcher.started(ready.name)
                idle.send(ready.payload)
            for talking in connection.wait(list(at_work)):
                assert isinstance(talking, Connection)
                kind, *message = _received(talking)
                name = at_work[talking]
                if kind == "log":
                    # A line of text does not say which of the tasks it is about.
                    logs.show(f"{name}: {message[0]}" if logs.style() == "text" else message[0])
                elif kind == "told":
                    watcher.told(name, *message)
                else:
                    del at_work[talking]
                    [failure] = message
                    if failure:
                        _fail(name, failure, failures, waiting)
                    if kind == "died":
                        workers.remove(talking)
                        if not workers:
                            waiting.clear()
                    watcher.ended(name, failure is not None)
    return _raise(failures)


def _fail(name: str, failure: Failure, failures: dict[str, Failure], waiting: list[Work]) -> None:
    """Record a failure, and skip all tasks that depend on it, directly or indirectly."""
    failures[name] = failure
    while lost := [work for work in waiting if work.needs & failures.keys()]:
        for work in lost:
            failures[work.name] = ("", "")
            waiting.remove(work)


def _raise(failures: dict[str, Failure]) -> None:
    own = {name: failure for name, failure in failures.items() if failure[0]}
    if not own:
        return
    text = "; ".join(f"{name}: {message}" for name, (_, message) in own.items())
    if len(failures) > len(own):
        need = "it" if len(own) == 1 else "them"
        text += f"; tasks that depend on {need} and were not started: {len(failures) - len(own)}"
    kinds = {kind for kind, _ in own.values()}
    raise UserError(text) if "UserError" in kinds else RuntimeError(text) if "bug" in kinds else MachineError(text)


def _tried(perform: Callable[[Any], None], payload: Any) -> Failure | None:
    """Call `perform`; return None, or the kind of the failure and its message."""
    try:
        perform(payload)
    except (UserError, MachineError) as error:
        return type(error).__name__, str(error)
    except MemoryError:
        return "MachineError", "out of memory: use smaller batches or images, or fewer --workers"
    except OSError as error:
        return "MachineError", f"{error.filename or ''} {error.strerror or error}".strip()
    except Exception as error:
        log.critical("a bug:\n%s", traceback.format_exc())
        return "bug", repr(error)
    finally:
        leases.release_all()
    return None


def _received(talking: Connection) -> Sequence[Any]:
    try:
        return talking.recv()
    except (EOFError, OSError):
        return "died", ("MachineError", "the process was killed, possibly out of memory: use fewer --workers")


@contextlib.contextmanager
def _pool(perform: Callable[[Any], None], setups: Sequence[Setup], count: int) -> Iterator[list[Connection]]:
    """Yield the connections to `count` workers; end the workers afterwards, with checkpoints after an interruption."""
    context = multiprocessing.get_context("spawn")
    processes, connections = [], []
    try:
        for setup in setups[:count]:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, perform, setup), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        yield list(connections)
    finally:
        # A second signal must not interrupt the wait for the checkpoints.
        with _signals_ignored(), stopping.finishing():
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(END_SECONDS)
                process.kill()
            for one in connections:
                one.close()


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stopping.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- in the worker ---------------------------------------------------------------------------------------------------


def _serve(parent: Connection, perform: Callable[[Any], None], setup: Setup) -> None:
    # Ctrl-C in a terminal reaches every process: the parent passes it on as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    if setup.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = setup.gpu
    start_watching_parent()
    stopping.watch(lambda: None)
    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending:
            parent.send(message)

    logs.setup(setup.log_format, lambda line: send("log", line))
    if setup.metrics_port:
        try:
            scrapes.serve(setup.metrics_port)
        except UserError as error:
            log.warning("a worker cannot serve metrics: %s", error)
    with contextlib.suppress(Interrupted, EOFError, OSError), progress.watched(lambda *told: send("told", *told)):
        while True:
            send("ended", _tried(perform, parent.recv()))


def start_watching_parent() -> None:
    """Start a thread that ends this process when its parent process has ended for any reason.

    Two runs must not write the same files.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        connection.wait([parent.sentinel])
        os._exit(Interrupted.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted
