"""Measure training steps of the recipe: python -m bench.scale.steps NETWORK PIXELS BATCH SECONDS.

NETWORK is `gan`, or a network of train-classifier, which is measured with augmentation. Prints the seconds of a step,
and the number of all steps. The first steps, in which functions are traced, are not counted; then it measures for
SECONDS at least.
"""

import sys
import time

from jobs.settings import GanSettings

PERIOD = 8  # steps of a GAN between two gradient penalties, which make a step longer


def main(network: str, pixels: str, batch: str, seconds: str) -> None:
    """Train and print."""
    # One of both: each sets TensorFlow up for itself.
    if network == "gan":
        from bench.speed import gan

        given, period = GanSettings(), PERIOD
        work, _ = gan.steps(int(pixels), given.gan_width, int(batch), given.latent, recipe=True)
    else:
        from bench.speed import classifier

        period = 1
        work, _ = classifier.steps(network, int(pixels), int(batch), augmentation=1.0)
    work(period)
    taken, began = 0, time.perf_counter()
    while not taken or time.perf_counter() - began < float(seconds):
        work(period)
        taken += period
    print((time.perf_counter() - began) / taken, period + taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
