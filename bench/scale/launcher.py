"""Measure a command: python -m bench.scale.launcher COMMAND ...

Prints a JSON object: `seconds` (elapsed) and `cpu` (processor seconds) of the command with its child processes, `mib`
(the peak memory of the largest of these processes), its exit `code`, and what it wrote (`out`, `err`).

It imports nothing but Python's library and stays small: Linux counts a parent's memory as its child's until `exec`.
"""

import json
import resource
import subprocess
import sys
import time

BYTES = 1 if sys.platform == "darwin" else 1024  # of the unit of ru_maxrss


def main(command: list[str]) -> None:
    """Run the command and print its figures."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss * BYTES / 2**20,
        "code": done.returncode,
        "out": done.stdout,
        "err": done.stderr,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
