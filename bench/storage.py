"""Measure how fast images go to an S3 server and come back, beside a bare copy of the same bytes with boto3.

    python -m bench.storage --images 50000 --size 128 --json storage.json

The server is SeaweedFS on this machine, as in the tests. Writing puts encoded PNG files into shards, with digests and
index; reading verifies them and yields the PNG files. The bare copy puts and gets the same shards in 16 threads, from
and into memory, and does nothing else: it verifies no digest. The time of the digests alone, on one core, is measured
too. Rounds alternate, and a ratio is within a round.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jobs.common import png, shards
from jobs.common.s3 import S3
from jobs.common.shards import Shards
from jobs.common.step import Step
from jobs.common.storage import PARALLEL
from tests.s3_server import S3Server, running

DISTINCT = 256  # pictures, which are repeated under other names


def pictures(size: int) -> list[bytes]:
    """Return DISTINCT PNG files of noisy discs, about as large as those of heads."""
    rng = np.random.default_rng(0)
    disc = 120 * (np.hypot(*np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]) < 0.8)
    return [png.encode(np.clip(disc + rng.normal(0, 6, disc.shape), 0, 255).astype(np.uint8)) for _ in range(DISTINCT)]


def measure(server: S3Server, images: int, size: int, rounds: int) -> dict[str, Any]:
    """Return megabytes, and for writing and reading the seconds of each round, and the median ratio of speeds."""
    os.environ.update(server.environment(server.owner))
    files, storage = pictures(size), S3("s3://tests")
    # The same configuration as that of the storage: boto3's default computes checksums too.
    bare = S3("s3://tests").client

    def write() -> Step:
        step = Step(storage, "ours", job="bench", settings={}, inputs={})
        shards.write(step, "images", ((f"{number:06d}.png", files[number % DISTINCT]) for number in range(images)))
        step.finish()
        return step

    step = write()
    copied = {name: storage.read(f"ours/{name}") for name in step.written if name.endswith(".tar")}
    total = sum(map(len, copied.values()))

    def read() -> None:
        found = Shards(storage, step.prefix, step.manifest, "images").read()
        assert sum(1 for _ in found) == images

    def put(name: str) -> None:
        bare.put_object(Bucket="tests", Key=f"bare/{name}", Body=copied[name])

    def bare_write() -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(put, copied))

    def get(name: str) -> int:
        return len(bare.get_object(Bucket="tests", Key=f"bare/{name}")["Body"].read())

    def bare_read() -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            assert sum(pool.map(get, copied)) == total

    seconds: dict[str, list[float]] = {"write": [], "bare write": [], "read": [], "bare read": [], "digests": []}
    work: dict[str, Callable[[], Any]] = {
        "write": write,
        "bare write": bare_write,
        "read": read,
        "bare read": bare_read,
    }
    for number in range(rounds):
        for kind in ("write", "read"):
            pair = [kind, f"bare {kind}"]
            for name in pair if number % 2 else reversed(pair):
                seconds[name].append(_seconds(work[name]))
        seconds["digests"].append(_seconds(lambda: [hashlib.sha256(data).digest() for data in copied.values()]))
    found: dict[str, Any] = {"images": images, "size": size, "megabytes": round(total / 1e6, 1), "shards": len(copied)}
    found["digests"] = seconds["digests"]
    for kind in ("write", "read"):
        ours, theirs = seconds[kind], seconds[f"bare {kind}"]
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        found[kind] = {"seconds": ours, "bare_seconds": theirs, "speed_over_bare": round(ratio, 3)}
    return found


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 3)


def table(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of what was measured."""
    yield f"{found['images']} images of {found['size']} px: {found['megabytes']} MB in {found['shards']} shards"
    yield f"{'':8}{'MB/s':>10}{'bare MB/s':>12}{'ratio':>8}"
    for kind in ("write", "read"):
        ours, theirs = (statistics.median(found[kind][name]) for name in ("seconds", "bare_seconds"))
        megabytes, ratio = found["megabytes"], found[kind]["speed_over_bare"]
        yield f"{kind:8}{megabytes / ours:10.0f}{megabytes / theirs:12.0f}{ratio:8.2f}"


def main(words: list[str]) -> None:
    """Measure, print the table, and write the figures if a file is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    asked = parser.parse_args(words)
    # The server keeps what is overwritten for a while.
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder, running(Path(folder), volumes=400) as server:
        found = measure(server, asked.images, asked.size, asked.rounds)
    print(*table(found), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
