"""Ends a process and its group by SIGKILL before one of its operations on storage: that with the number KILL_BEFORE.

Python imports this module at the start of every process that has its folder in PYTHONPATH.
"""

import os
import signal
import sys

# Audit events of Python: a file takes its place, a file is removed, a part of an HTTP request is sent.
OPERATIONS = frozenset({"os.rename", "os.remove", "http.client.send"})
_state = {"left": int(os.environ.get("KILL_BEFORE", "0"))}


def _count(event: str, _: object) -> None:
    if event in OPERATIONS:
        _state["left"] -= 1
        if _state["left"] == 0:
            os.killpg(0, signal.SIGKILL)


if _state["left"]:
    sys.addaudithook(_count)
