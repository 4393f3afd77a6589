"""Measure preprocess on drawn heads with planted copies: python -m bench.preprocess [--heads 1000,3000] [--json FILE].

Prints a table: milliseconds of a processor core per image for preprocess and its parts, the same for a loop that only
decodes and resizes, the elapsed seconds, the peak memory of each process, and the planted copies that are found. Drawn
heads are kept in bench/results/drawn. The machine should do nothing else; ratios bear it best.
"""

import argparse
import csv
import io
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import planted
from bench.quality.command import commit
from jobs import preprocess
from jobs.common.machine import processor, usable_cores
from jobs.mri import duplicates, readers
from jobs.settings import PreprocessSettings

DRAWN = Path(__file__).parent / "results" / "drawn"
SIZE = 64  # pixels
PACKAGES = ("mrigan", "numpy", "scipy", "pillow")


def main() -> None:
    """Measure each size in a process of its own, and print the table."""
    parser = argparse.ArgumentParser("python -m bench.preprocess", description=__doc__)
    parser.add_argument("--heads", default="1000", help="heads in each data set, separated by commas")
    parser.add_argument("--json", type=Path, help="file to write")
    given = parser.parse_args()
    found = []
    for heads in map(int, given.heads.split(",")):
        found.append({"heads": heads} | measure(heads))
        print(table(found), flush=True)
    if given.json:
        about = {
            "commit": commit(),
            "cores": usable_cores(),
            "processor": processor()[0].strip(),
            "python": platform.python_version(),
        }
        versions = {name: version(name) for name in PACKAGES}
        given.json.write_text(json.dumps(about | {"versions": versions, "results": found}, indent=1) + "\n")


def measure(heads: int) -> dict[str, Any]:
    """Return the figures of a data set of so many drawn heads, and of copies of some of them."""
    folder = DRAWN / str(heads)
    pairs = planted.data_set(folder, heads)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (folder, pairs))


def measured(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the figures of preprocess on the images in `folder`, with planted `pairs` of their paths."""
    files = sorted(folder.glob("*/*.jpg"))
    started = time.process_time()
    for file in files:
        decoded_and_resized(file)
    bare = time.process_time() - started

    parts = {"read": 0.0, "duplicates": 0.0}
    find = duplicates.near_duplicates

    def near_duplicates(
        descriptors: np.ndarray, sketch: Callable[[int], np.ndarray], load: Callable[[int], np.ndarray]
    ) -> list[tuple[int, int]]:
        parts["read"] = core_seconds() - before
        found = find(descriptors, sketch, load)
        parts["duplicates"] = core_seconds() - before - parts["read"]
        return found

    duplicates.near_duplicates = near_duplicates
    before, started = core_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as storage:
        step = preprocess.run(PreprocessSettings(data=str(folder), storage=storage, image_size=SIZE))
        seconds = time.monotonic() - started
        rows = list(csv.DictReader(io.StringIO(step.read("index.csv").decode())))
    parts["rest"] = core_seconds() - before - sum(parts.values())
    groups = {row["source"]: row["group"] for row in rows}
    # A copy may be in quarantine: strong compression can make it look like a mask.
    copies = sum(first in groups and groups[first] == groups.get(second) for first, second in pairs)
    return {
        "images": len(files),
        "bare_ms": 1000 * bare / len(files),
        **{f"{name}_ms": 1000 * part / len(files) for name, part in parts.items()},
        "to_bare": sum(parts.values()) / bare,
        "seconds": seconds,
        "images_per_second": len(files) / seconds,
        "left_out": len(files) - len(rows),
        "planted": len(pairs),
        "found": copies / len(pairs),
        # Groups of two are the planted pairs; any other connection joins more, or other images.
        "wrong": len(rows) - len(set(groups.values())) - copies,
        "job_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "reader_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def decoded_and_resized(file: Path) -> np.ndarray:
    """Return uint8 [SIZE, SIZE] of an image file, without any check."""
    with Image.open(file) as image:
        return np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def core_seconds() -> float:
    """Return the processor time of this process and its readers, in seconds; the readers are ended."""
    readers.shared().stop()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown, a line for each data set."""
    lines = [" | ".join(found[0]), " | ".join("---:" for _ in found[0])]
    lines += [
        " | ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in one.values())
        for one in found
    ]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
