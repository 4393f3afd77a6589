"""Break things and see what holds: python -m bench.chaos [PART...] [--seeds N].

Each part runs the whole pipeline on drawn heads, as small as it goes, disturbs it, runs the same command again until it
succeeds, and compares all files with those of an undisturbed run.

  kills    SIGKILL at random times and before operations on storage, in a folder and in S3, with one and two workers
  stops    SIGTERM at random times in the same way: how fast a run ends
  storage  an S3 server behind a proxy with faults: 500, 503, 403, 404, resets, cut, short and changed answers, stalls
  pairs    the same short pipeline twice at once, in a folder and in S3

One part disturbs no run:

  fuzz     bombs and 20,000 damaged files of every format through the reader, 1,000 through one `mrigan preprocess`
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable

from bench.chaos import faults, page, runs, signals
from bench.chaos import fuzz as fuzzing
from bench.chaos.place import Found, Place, prepared
from bench.quality import command


def fuzz(place: Place, wanted: runs.Outputs, seeds: range) -> Found:
    """Read bombs and damaged files."""
    ways = {
        "bombs": fuzzing.bombs,
        "reader": lambda: fuzzing.mutants_read(seeds.stop),
        "command": lambda: fuzzing.through_command(seeds.stop, place.data, place.folder / "fuzz"),
    }
    found = Found(0, Counter(), [])
    for way, read in ways.items():
        met, wrong, memory = read()
        found.met.update({f"{way}: {verdict}": count for verdict, count in met.items()})
        found.met[f"{way}: highest memory in MiB"] = memory // 2**20
        found = Found(found.runs + met.total(), found.met, found.wrong + wrong)
    return found


PARTS: dict[str, Callable[[Place, runs.Outputs, range], Found]] = {
    "kills": signals.kills,
    "stops": signals.stops,
    "storage": faults.storage,
    "pairs": faults.pairs,
    "fuzz": fuzz,
}


def main() -> int:
    """Run the parts; print and store what each found, and return 1 if something was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--seeds",
        type=int,
        default=2,
        help="disturbed runs; three pairs, eight kills and three stops of a run for each",
    )
    given = parser.parse_args()
    command.check_names(parser, "part", given.parts, PARTS)
    wrong = []
    with prepared() as (place, wanted):
        os.environ.update(place.environment())
        for name in given.parts or PARTS:
            began = time.monotonic()
            found = PARTS[name](place, wanted, range(given.seeds))
            met, took = dict(sorted(found.met.items())), time.monotonic() - began
            print(f"{name}: {found.runs} runs; {met}; {len(found.wrong)} wrong; {took:.0f} s", flush=True)
            page.store(name, found.runs, met, found.wrong, took)
            wrong += found.wrong
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
