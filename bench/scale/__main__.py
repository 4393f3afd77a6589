"""Measure how time and memory of the jobs grow, on one core: python -m bench.scale [SERIES ...].

Measures all series, or those that are named; writes them to bench/results/scale, where the series of other runs on the
same hardware stay, and docs/scale.md from them, with fitted laws, forecasts and the simulation of many devices.
"""

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.quality import command
from bench.scale import page, points
from bench.scale.series import SERIES
from bench.speed import serving
from bench.speed.measuring import ROOT
from jobs.common.machine import gpus, processor, usable_cores


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and store; return the exit code of mrigan's jobs."""
    parser = argparse.ArgumentParser("python -m bench.scale", description=__doc__)
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"of {', '.join(SERIES)}; none: all")
    parser.add_argument("--tiny", action="store_true", help="see that the series run; the figures mean nothing")
    asked = parser.parse_args(arguments)
    command.check_names(parser, "series", asked.series, SERIES)
    sizes, root = (points.TINY, None) if asked.tiny else (points.Sizes(), ROOT)
    names = asked.series or list(SERIES)
    return command.finish("bench.scale", lambda: print(page.measured_table(measure(names, sizes, root))))


def measure(names: Sequence[str], sizes: points.Sizes, root: Path | None) -> page.Json:
    """Measure these series and return them; store them in the repository `root` unless it is None.

    Raises MachineError if a process fails.
    """
    hardware = {
        "kind": "gpu" if gpus() else "cpu",
        "device": processor()[0].strip(),
        "machine": platform.machine(),
        "cores": usable_cores(),
    }
    about = {"commit": command.commit(), "versions": serving.versions()}
    found: page.Json = {"hardware": hardware, "runs": {}, "series": {}}
    with points.bench(sizes) as bench:
        for name in names:
            began = time.monotonic()
            series = {f"{one.job}: {one.dimension}": asdict(one) for one in SERIES[name](bench)}
            run = about | {"seconds": round(time.monotonic() - began)}
            found["series"] |= series
            found["runs"] |= dict.fromkeys(series, run)
            # After each: a run that is stopped keeps what it has measured.
            if root:
                page.store(root, hardware, dict.fromkeys(series, run), series)
            print(f"{name}: {run['seconds']} s", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
