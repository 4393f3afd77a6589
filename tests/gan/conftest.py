"""TensorFlow is set up once in a process: the same way for every test here."""

import pytest

from jobs.common import hardware
from jobs.settings import ExecutionSettings

THREADS = 1


@pytest.fixture(autouse=True, scope="session")
def tensorflow() -> None:
    """Make TensorFlow deterministic."""
    hardware.configure(ExecutionSettings(threads=THREADS))
