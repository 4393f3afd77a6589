"""What every storage knows of its objects."""

from typing import NamedTuple

# Requests under way at once when many small objects are read or written: S3's latency hides behind them.
PARALLEL = 16


class MissingKey(KeyError):  # noqa: N818 - reads as what it is, like KeyError
    """No object has this key."""


class Version(NamedTuple):
    """What tells two contents of a key apart without reading them."""

    size: int
    tag: str
