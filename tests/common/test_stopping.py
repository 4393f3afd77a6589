"""What SIGTERM does while the process is within one long call, where no Python code runs."""

import signal
import subprocess
import sys

import pytest

# Calls of seconds and minutes into a library of C, in place of the first step of a large network.
SCRIPT = """
import contextlib, hashlib, signal
from jobs.common import stopping

stopping.SECONDS, stopping.UNSAVED_SECONDS, stopping.LAST_SECONDS = 0.2, 0.3, 0.1
signal.signal(signal.SIGTERM, lambda *_: None)
stopping.watch(lambda: print("told", flush=True))
stopping.unsaved({unsaved})
with stopping.finishing() if {finishing} else contextlib.nullcontext():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000 if {finishing} else 2_000_000_000)
    print("saved", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""


@pytest.mark.parametrize(
    ("unsaved", "finishing", "shown"),
    [(False, False, "told\n"), (True, False, "told\n"), (True, True, "saved\ntold\n")],
)
def test_a_process_within_a_long_call_ends_with_code_75_but_saves_what_it_began_to_save(
    unsaved: bool, finishing: bool, shown: str
) -> None:
    script = SCRIPT.format(unsaved=unsaved, finishing=finishing)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as stopped:
        assert stopped.stdout and stopped.stdout.readline() == "begun\n"
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(100) == 75
        assert stopped.stdout.read() == shown
