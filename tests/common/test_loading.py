"""Jobs are loaded by name, and quietly."""

import subprocess
import sys

import pytest

from jobs.common import loading
from jobs.settings import JOBS


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_module_that_runs_it(job: str) -> None:
    assert callable(loading.load_job(job).run)


def test_what_libraries_say_when_they_are_loaded_is_not_shown() -> None:
    code = "from jobs.common import loading; loading.load_job('train-gan'); import sys; print('heard', file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("", "heard\n")


def test_an_error_while_loading_is_heard() -> None:
    code = "from jobs.common.loading import load_job; load_job('no-such-job')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode and "No module named" in shown.stderr
