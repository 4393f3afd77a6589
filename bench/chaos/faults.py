"""Pipelines with a faulty S3 server, and two of them at once."""

import random
import time
from collections import Counter
from typing import Any

from bench.chaos import proxy, runs
from bench.chaos.place import Found, Place, judged, said, start, undisturbed

TRIES = 60  # of one run until it must have succeeded
RATE = 0.05  # share of the requests with a fault
PAIRS = 3  # of each kind of storage, times the number of seeds
LATER = 10.0  # seconds between the two starts, at most


def storage(place: Place, wanted: runs.Outputs, seeds: range, **changes: Any) -> Found:
    """Run pipelines with `changes` to their settings and an S3 server that is disturbed."""
    found = Found(0, Counter(), [])
    for seed in seeds:
        address, faults = f"s3://tests/storage-{seed}", proxy.Faults(seed, RATE)
        with proxy.running(place.server.endpoint, faults) as endpoint:
            for _ in range(TRIES):
                process = start(place, address, {"AWS_ENDPOINT_URL": endpoint}, **changes)
                _, text = process.communicate()
                found.wrong.extend(said(f"storage, seed {seed}", process.returncode, text))
                if process.returncode == 0:
                    break
        found.met.update(faults.met)
        found = found._replace(runs=found.runs + 1)
        found.wrong.extend(judged(place, f"storage, seed {seed}", process.returncode, address, wanted))
    return found


def pairs(place: Place, wanted: runs.Outputs, seeds: range) -> Found:
    """Start the same short pipeline twice, the second a random time later."""
    found, wanted = Found(0, Counter(), []), undisturbed(place, **runs.SHORT)
    for number in range(PAIRS * len(seeds)):
        generator = random.Random(number)
        for kind, address in place.storages(f"pairs-{number}"):
            first = start(place, address, **runs.SHORT)
            time.sleep(generator.uniform(0, LATER))
            both = [first, start(place, address, **runs.SHORT)]
            for process in both:
                _, text = process.communicate()
                found.wrong.extend(said(f"pairs, {number}, {kind}", process.returncode, text))
            found.met[kind] += 1
            found = found._replace(runs=found.runs + 1)
            code = max(process.returncode for process in both)
            found.wrong.extend(judged(place, f"pairs, {number}, {kind}", code, address, wanted))
    return found
