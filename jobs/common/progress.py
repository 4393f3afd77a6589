"""The progress of a job: reported to Argo Workflows, and to a listener in this process."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import rich.console
import rich.progress
import rich.text

# https://argo-workflows.readthedocs.io/en/latest/progress/
ARGO_FILE = "ARGO_PROGRESS_FILE"
Listener = Callable[[int, int, str], None]

_listeners: list[Listener] = []


def tell(done: int, total: int, text: str = "") -> None:
    """Report that `done` of `total` is done; `text` is shown next to it. Argo ignores a total of 0."""
    path = os.environ.get(ARGO_FILE)
    if path:
        # Replaced atomically, since Argo may read the file at any time.
        part = Path(path + ".part")
        part.write_text(f"{done}/{total}\n")
        part.replace(path)
    if _listeners:
        _listeners[-1](done, total, text)


@contextlib.contextmanager
def watched(listener: Listener) -> Iterator[None]:
    """Pass all calls of `tell` in the block to `listener`, in place of an outer listener."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def is_shown() -> bool:
    """Return whether standard error is a terminal, so that progress is visible without log lines."""
    return sys.stderr.isatty()


class _TimeLeft(rich.progress.TimeRemainingColumn):
    """The remaining time; nothing for a task with the field `told`, whose description contains the time."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """Return the time."""
        return rich.text.Text() if task.fields.get("told") else super().render(task)


def bars(console: rich.console.Console) -> rich.progress.Progress:
    """Return a display of tasks, one per line: description, bar, share, time left."""
    return rich.progress.Progress(
        "{task.description}",
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _TimeLeft(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def bar() -> Iterator[None]:
    """Show the calls of `tell` in the block as a progress bar, if standard error is a terminal."""
    with bars(rich.console.Console(stderr=True)) as shown:
        tasks: list[rich.progress.TaskID] = []

        def watch(done: int, total: int, text: str) -> None:
            if not tasks:
                tasks.append(shown.add_task(text, total=total))
            shown.update(tasks[0], completed=done, total=total, description=text)

        with watched(watch):
            yield


def in_words(amount: float) -> str:
    """Return seconds as readable text: `40 s`, `12 min`, `3 h 20 min`."""
    minutes = round(amount / 60)
    if minutes < 2:
        return f"{amount:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
