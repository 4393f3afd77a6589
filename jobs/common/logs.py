"""Logs: readable text for a person, or one JSON object a line for a machine, with the same events in both.

A JSON line has `time` (ISO 8601, UTC), `level`, `logger`, `message`, where the work stands (the fields of CONTEXT that
apply) and what the event adds. Epochs are too many for a person, so that only JSON has them all.
"""

import contextlib
import contextvars
import datetime
import json
import logging
import math
import re
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

# What a job's settings say about the work in hand.
CONTEXT = ("dataset", "run", "name", "fold", "label", "network", "regime", "control", "seed")
EPOCHS = logging.getLogger("mrigan.epochs")

_context: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("context", default={})  # noqa: B039


def setup(style: str) -> None:
    """Log to standard error in the style `text` or `json`, Python's warnings too; libraries only warn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if style == "json" else Text())
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
    """Give every event within the job's name and the fields of CONTEXT that `settings` have."""
    found = {name: getattr(settings, name) for name in CONTEXT if getattr(settings, name, "") not in ("", None)}
    token = _context.set({"job": job} | found)
    try:
        yield
    finally:
        _context.reset(token)


def redacted(text: str) -> str:
    """Return `text` without the user and password of an address, as a proxy's may have them."""
    # A password may hold @ and / as they are. Where a port is followed by an @, too much is hidden, never too little.
    return re.sub(r"(?<=://)(?:[^\s/:]*:\S*|[^\s/@]+)@", "…@", text)


class Text(logging.Formatter):
    """The message alone."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without secrets."""
        return redacted(super().format(record))


class Json(logging.Formatter):
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
    """Return a field's value as JSON can spell it, which has no word for a loss that is not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("mrigan").critical("a bug: %r", error, exc_info=(kind, error, trace))
