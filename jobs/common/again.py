"""A second try for what seems to be missing, damaged or refused, before a person is told to change something.

An S3 server, a proxy or a shared disk may fail for a moment.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.common.storage import MissingKey, Storage

log = logging.getLogger("mrigan.storage")

SECONDS = 1.0  # before the second try

T = TypeVar("T")


def twice(read: Callable[[], T], what: str, *faults: type[Exception]) -> T:
    """Return what `read` returns, called a second time if it raises one of `faults` at first."""
    try:
        return read()
    except faults:
        time.sleep(SECONDS)
    found = read()
    log.warning("%s: the first try failed, the second one succeeded", what)
    return found


def verified(storage: Storage, key: str, sha256: str | None) -> bytes:
    """Return the object `key`, which must have the digest `sha256`.

    Raises MissingKey, and ValueError for another digest, if a second read gives the same.
    """

    def read() -> bytes:
        data = storage.read(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("is damaged")
        return data

    return twice(read, key, MissingKey, ValueError)
