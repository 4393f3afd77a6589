"""Logs: readable text, or one JSON object per line, with the same events in both.

A JSON line has `time` (ISO 8601, UTC), `level`, `logger`, `message`, the context (the fields of CONTEXT that apply)
and the fields of the event. Only the JSON style contains every epoch.
"""

import contextlib
import contextvars
import datetime
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

# The settings of a job that identify its task.
CONTEXT = ("dataset", "run", "name", "fold", "label", "network", "regime", "control", "seed")
EPOCHS = logging.getLogger("mrigan.epochs")

_style = ["text"]
_context: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("context", default={})  # noqa: B039


def style() -> str:
    """Return the style that `setup` was given last."""
    return _style[-1]


class Lines(logging.Handler):
    """Pass each record as a line to `write`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self.write(self.format(record))
        except Exception:
            self.handleError(record)


def show(line: str) -> None:
    """Write a line to the current standard error, which a progress display may have replaced."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def setup(style: str, write: Callable[[str], None] = show) -> None:
    """Log in the style `text` or `json`, including Python's warnings; libraries only log warnings.

    `write` receives the lines.
    """
    handler = Lines(write)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    _style.append(style)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("mrigan").setLevel(logging.INFO)
    EPOCHS.setLevel(logging.INFO if style == "json" else logging.WARNING)
    if style == "json":
        sys.excepthook = _uncaught


def event(logger: logging.Logger, message: str, **fields: Any) -> None:
    """Log `message` with `fields`, JSON values that only the JSON style shows."""
    logger.info("%s", message, extra={"fields": fields})


def end(line: str, exit_code: int) -> None:
    """Log the last line of a job that failed."""
    logging.getLogger("mrigan").error("%s", line, extra={"fields": {"exit_code": exit_code}})


@contextlib.contextmanager
def about(job: str, settings: Any) -> Iterator[None]:
    """Add the job's name and the fields of CONTEXT that `settings` have to every event in the block."""
    found = {name: getattr(settings, name) for name in CONTEXT if getattr(settings, name, "") not in ("", None)}
    token = _context.set({"job": job} | found)
    try:
        yield
    finally:
        _context.reset(token)


def redacted(text: str) -> str:
    """Return `text` without users and passwords in addresses, such as that of a proxy."""
    # A password may contain unescaped @ and /. If a port is followed by an @, too much is hidden, but never too little.
    return re.sub(r"(?<=://)(?:[^\s/:]*:\S*|[^\s/@]+)@", "…@", text)


class TextFormatter(logging.Formatter):
    """Only the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without secrets."""
        return redacted(super().format(record))


class JsonFormatter(logging.Formatter):
    """A JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON without secrets."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        fields |= {"message": record.getMessage()} | _context.get() | getattr(record, "fields", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return redacted(json.dumps({name: _plain(value) for name, value in fields.items()}, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Return a field's value as valid JSON, which does not support numbers that are not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("mrigan").critical("a bug: %r", error, exc_info=(kind, error, trace))
