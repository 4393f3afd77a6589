"""How long the exact search for near-duplicates takes: python bench/propose.py [IMAGES]."""

import resource
import sys
import time

import numpy as np

from jobs.mri.duplicates import propose

DIMENSIONS = 224


def main() -> None:
    """Plant a neighbour for every second descriptor, search, and print what it took and how many were found."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((images, DIMENSIONS), np.float32)
    half = images // 2
    descriptors[half : 2 * half] = descriptors[:half] + 0.1 * rng.standard_normal((half, DIMENSIONS), np.float32)
    started = time.monotonic()
    pairs = propose(descriptors)
    seconds = time.monotonic() - started
    found = len({(i, i + half) for i in range(half)} & set(pairs))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("| descriptors | seconds | planted neighbours found | peak memory |\n|---|---|---|---|")
    print(f"| {images} x {DIMENSIONS} | {seconds:.0f} | {found} of {half} | {memory:.0f} MiB |")


if __name__ == "__main__":
    main()
