"""Files that ask for more than they are get a reason, or are read; the process that reads measures what it costs."""

import resource
import sys

import pytest

from jobs.mri import readers
from jobs.mri.examine import examine
from jobs.mri.slices import BUDGET, REASONS, Unusable
from tests.mri import bombs, bombs_volumes  # noqa: F401 - adds its own to those of the first

CHEAP = 2**30  # bytes: what is too much is found before it is made


def costly(data: bytes, name: str) -> tuple[str, int]:
    """Return the reason of a file, empty if it is read, and the highest memory that this process has had, in bytes."""
    try:
        examine(data, name, size=64, volume=0, step=1)
        reason = ""
    except Unusable as finding:
        reason = finding.reason
    unit = 1 if sys.platform == "darwin" else 1024
    return reason, unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def reader():
    found = readers.Reader(BUDGET)
    yield found
    found.stop()


@pytest.mark.parametrize("name", bombs.BOMBS)
def test_a_bomb_is_read_or_rejected_within_what_a_file_may_cost(name, reader):
    data = bombs.BOMBS[name]()
    assert len(data) < 8 * 2**20
    before = reader.call(costly, b"", "a")[1]
    # What ends the process is an Unusable: none of these may.
    reason, most = reader.call(costly, data, "a")
    assert reason in {"", *REASONS} - {"too-slow"}
    assert most - before < CHEAP


def test_what_only_takes_long_is_ended(reader):
    slow = readers.Reader(BUDGET._replace(cpu_seconds=1))
    found = slow.call(costly, bombs.SLOW["nifti_of_10000_slices"](), "a")
    slow.stop()
    assert found.reason == "too-slow"
