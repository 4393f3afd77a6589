"""TensorFlow is set up once in a process: the same way for every test here."""

import pytest

from jobs.common import hardware
from jobs.common.settings import ExecutionSettings

THREADS = 2


@pytest.fixture(autouse=True, scope="session")
def tensorflow() -> None:
    """Make TensorFlow deterministic."""
    hardware.configure(ExecutionSettings(threads=THREADS))
