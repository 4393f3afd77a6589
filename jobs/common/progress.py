"""The progress of a job: reported to Argo Workflows, and to a watcher in this process."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import rich.console
import rich.progress
import rich.text

# https://argo-workflows.readthedocs.io/en/latest/progress/
FILE = "ARGO_PROGRESS_FILE"
Watcher = Callable[[int, int, str], None]

_watchers: list[Watcher] = []


def tell(done: int, total: int, text: str = "") -> None:
    """Report that `done` of `total` is done; `text` is shown next to it. Argo ignores a total of 0."""
    path = os.environ.get(FILE)
    if path:
        # Replaced atomically, since Argo may read the file at any time.
        part = Path(path + ".part")
        part.write_text(f"{done}/{total}\n")
        part.replace(path)
    if _watchers:
        _watchers[-1](done, total, text)


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Pass all calls of `tell` in the block to `watcher`, in place of an outer watcher."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def is_shown() -> bool:
    """Return whether standard error is a terminal, so that progress is visible without log lines."""
    return sys.stderr.isatty()


class _TimeLeft(rich.progress.TimeRemainingColumn):
    """The time that is left, but for a task that has the field `told`: its description tells the time."""

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
