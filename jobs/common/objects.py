"""Common types of all storages."""

from typing import NamedTuple

# Concurrent requests when many small objects are read or written, to hide the latency of S3.
PARALLEL = 16


class MissingKey(KeyError):  # noqa: N818 - reads as what it is, like KeyError
    """No object has this key."""


class Version(NamedTuple):
    """Identifies the content of a key without reading it."""

    size: int
    tag: str
