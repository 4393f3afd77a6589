"""Measure training steps of the recipe's GAN: python -m bench.scale.gan_steps PIXELS SECONDS.

Prints the seconds of a step, after the first steps, in which functions are traced. It measures for SECONDS at least.
"""

import sys
import time

from bench.speed import gan
from jobs.settings import GanSettings

PERIOD = 8  # steps between two gradient penalties, which make a step longer


def main(pixels: str, seconds: str) -> None:
    """Train and print."""
    given = GanSettings()
    work, _ = gan.steps(int(pixels), given.gan_width, given.gan_batch, given.latent, recipe=True)
    work(PERIOD)
    taken, began = 0, time.perf_counter()
    while not taken or time.perf_counter() - began < float(seconds):
        work(PERIOD)
        taken += PERIOD
    print((time.perf_counter() - began) / taken, taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
