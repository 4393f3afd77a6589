"""Measure the exact search for near-duplicates: python bench/propose.py [IMAGES]."""

import resource
import sys
import time

import numpy as np

from jobs.mri.duplicates import propose

DIMENSIONS = 224

if __name__ == "__main__":
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    half = images // 2
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((images, DIMENSIONS), np.float32)
    # Each of the first half has a neighbour in the second half.
    descriptors[half : 2 * half] = descriptors[:half] + 0.1 * rng.standard_normal((half, DIMENSIONS), np.float32)
    started = time.monotonic()
    found = {(i, i + half) for i in range(half)} & set(propose(descriptors))
    seconds, memory = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{images} descriptors: {seconds:.0f} s, {len(found)} of {half} neighbours, peak memory {memory:.0f} MiB")
