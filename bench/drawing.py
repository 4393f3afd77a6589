"""Measure how long the drawing of heads takes, on one core and on all.

    python -m bench.drawing --images 1000 --json drawing.json

`one core` is processor time. `all cores` is elapsed time, with the start of the processes: too long on a busy machine.
`blurs` is the processor time in units of a reference of the same round: scipy's gaussian_filter, sigma 10, of a picture
of 256 x 256 pixels, float64.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from jobs.common import parallel
from jobs.common.machine import processor, usable_cores
from jobs.mri.crop import crop_to_head
from jobs.phantoms import learning
from jobs.phantoms.drawing import KINDS, draw_head

SIZE = 128  # pixels of a cropped phantom
PIECE = 100  # heads that a process draws at a time
PACKAGES = ("mrigan", "numpy", "scipy", "pillow")


def phantoms(numbers: range) -> None:
    """Draw and crop phantoms for training, as mrigan draw-phantoms does."""
    for head in learning.heads(numbers):
        crop_to_head(head, SIZE)


def uncropped(numbers: range) -> None:
    """Draw phantoms for training, and do not crop them."""
    for _ in learning.heads(numbers):
        pass


def heads(numbers: range) -> None:
    """Draw heads of all kinds, as mrigan phantom does before it encodes them."""
    for number in numbers:
        draw_head(KINDS[number % len(KINDS)], np.random.default_rng(number))


WORKS = {"phantoms, cropped": phantoms, "phantoms, not cropped": uncropped, "heads of mrigan phantom": heads}


def measure(images: int, rounds: int) -> dict[str, Any]:
    """Return for each of WORKS the milliseconds an image in each round; and the hardware and versions."""
    picture = np.random.default_rng(0).standard_normal((256, 256))
    pieces = [range(first, min(first + PIECE, images)) for first in range(0, images, PIECE)]
    milliseconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WORKS}
    phantoms(range(20))
    for _ in range(rounds):
        for name, work in WORKS.items():
            blur = _spent(time.process_time, lambda: [ndimage.gaussian_filter(picture, 10) for _ in range(50)], 50)
            alone = _spent(time.process_time, partial(work, pieces[0]), len(pieces[0]))
            together = _spent(time.perf_counter, partial(_all, work, pieces), images)
            milliseconds[name].append((alone, together, alone / blur))
    columns = ("one_core_ms", "all_cores_ms", "blurs")
    works = {
        name: {
            column: [round(value, 3) for value in one]
            for column, one in zip(columns, zip(*found, strict=True), strict=True)
        }
        for name, found in milliseconds.items()
    }
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    hardware = {"processor": processor()[0].strip(), "machine": platform.machine(), "cores": usable_cores()}
    return {"images": images, "works": works, "hardware": hardware, "versions": versions}


def _all(work: Callable[[range], None], pieces: Sequence[range]) -> None:
    for _ in parallel.mapped(work, pieces):
        pass


def _spent(clock: Callable[[], float], work: Callable[[], object], count: int) -> float:
    """Return the milliseconds of `work` for each of its `count` images."""
    began = clock()
    work()
    return 1000 * (clock() - began) / count


def table(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of what was measured."""
    hardware = found["hardware"]
    yield f"{found['images']} images, {hardware['processor']}, {hardware['cores']} cores; milliseconds an image"
    yield f"{'':26}{'one core':>10}{'all cores':>11}{'blurs':>8}"
    for name, rounds in found["works"].items():
        one = {column: statistics.median(values) for column, values in rounds.items()}
        yield f"{name:26}{one['one_core_ms']:10.1f}{one['all_cores_ms']:11.1f}{one['blurs']:8.1f}"


def main(words: list[str]) -> None:
    """Measure, print the table, and write the figures if a file is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    asked = parser.parse_args(words)
    found = measure(asked.images, asked.rounds)
    print(*table(found), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
