"""Measure how fast the jobs are, beside what a user would take instead: python -m bench.speed [ROW ...].

Measures all rows, or those that are named; prints a table; and writes it to docs/speed.md and bench/results/speed,
where the rows of other runs on the same hardware stay. Where there is a GPU, only the rows that use it are measured.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.quality import command
from bench.speed import page, serving
from bench.speed.measuring import PEERS, ROOT
from bench.speed.rows import ROWS, TINY, Sizes, roofs
from jobs.common.machine import gpus, usable_cores

PEER_PACKAGES = ("torch", "torchvision", "imagededup")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and store the figures; return the exit code of mrigan's jobs."""
    parser = argparse.ArgumentParser("python -m bench.speed", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--tiny", action="store_true", help="see that the rows run; the figures mean nothing")
    asked = parser.parse_args(arguments)
    command.check_names(parser, "row", asked.rows, ROWS)
    names = asked.rows or [name for name, row in ROWS.items() if row.on_gpu or not gpus()]
    # A product that is too small does not keep a GPU busy.
    full = Sizes(matrix=8192) if gpus() else Sizes()
    sizes, root = (TINY, None) if asked.tiny else (full, ROOT)
    return command.finish("bench.speed", lambda: print(shown(measure(names, sizes, root))))


def measure(names: Sequence[str], sizes: Sizes, root: Path | None) -> page.Json:
    """Measure these rows and return the figures; store them in the repository `root` unless it is None.

    Raises MachineError if a process fails.
    """
    versions = {"mrigan": serving.versions()}
    if PEERS.exists():
        versions["peers"] = _peer_versions()
    else:
        print("no PyTorch: comparisons with it are left out; make bench-peers", file=sys.stderr)
    machine = roofs(sizes)
    hardware = {name: machine[name] for name in ("kind", "device")}
    hardware |= {"machine": platform.machine(), "cores": usable_cores()}
    found = {}
    for name in names:
        if ROWS[name].torch and not PEERS.exists():
            continue
        began = time.monotonic()
        figures = ROWS[name].measure(sizes)
        seconds = time.monotonic() - began
        found[name] = page.row(figures, machine["roof"], versions, command.commit(), seconds)
        # After each row: a run that is stopped keeps what it has measured.
        if root:
            page.store(root, hardware, {name: found[name]})
        print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return {"hardware": hardware, "rows": found}


def shown(found: page.Json) -> str:
    """Return what the page will say."""
    return f"{page.about(found)}\n\n{page.table(found)}"


def _peer_versions() -> dict[str, str]:
    """Return the versions of PEER_PACKAGES in their environment."""
    code = f"from importlib.metadata import version; print(*map(version, {PEER_PACKAGES}))"
    shown = subprocess.run([PEERS, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(PEER_PACKAGES, shown.stdout.split(), strict=True))


if __name__ == "__main__":
    sys.exit(main())
