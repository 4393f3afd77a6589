"""Show which operations take the time of a training step on a processor: python -m bench.speed.profile WORK.

WORK is `gan` (plain) or `recipe`, of width 64, or a network of train-classifier; 64 px. Prints the milliseconds of a
step as TensorFlow's profiler has them, by operation.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

PIXELS, BATCH, WIDTH, LATENT = 64, 32, 64, 100
FIRST, STEPS = 16, 8  # a GAN penalizes in every eighth step
LEAST = 0.01  # share of a step, of the operations that are shown


def main() -> None:
    """Train, and print a table in Markdown."""
    parser = argparse.ArgumentParser("python -m bench.speed.profile", description=__doc__)
    parser.add_argument("work", choices=("gan", "recipe", "mobilenetv2", "resnet152v2"))
    asked = parser.parse_args().work
    # One of both: each sets TensorFlow up for itself.
    if asked in ("gan", "recipe"):
        from bench.speed import gan

        work, facts = gan.steps(PIXELS, WIDTH, BATCH, LATENT, recipe=asked == "recipe")
    else:
        from bench.speed import classifier

        work, facts = classifier.steps(asked, PIXELS, BATCH)
    work(FIRST)
    took, counts = by_operation(work, STEPS)
    whole = sum(took.values())
    print(f"{asked}, {PIXELS} px, batch {BATCH}, {facts['precision']}: {whole:.0f} ms a step\n")
    print("| operation | ms | share | times |\n|---|---|---|---|")
    for name, value in sorted(took.items(), key=lambda one: -one[1]):
        if value >= LEAST * whole:
            print(f"| {name} | {value:.1f} | {value / whole:.0%} | {counts[name]:g} |")


def by_operation(work: Callable[[int], None], steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the milliseconds of a step by the name of the operation, and how many there are in a step."""
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder:
        options = {"host_tracer_level": 2, "python_tracer_level": 0, "device_tracer_level": 0}
        tf.profiler.experimental.start(folder, tf.profiler.experimental.ProfilerOptions(**options))
        work(steps)
        tf.profiler.experimental.stop()
        [file] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    took: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, float] = defaultdict(float)
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            # path:operation
            place, _, name = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if place and not place.endswith(":") and " " not in name:
                name = name.removeprefix("_MklNative").removeprefix("_Mkl")
                took[name] += event.duration_ps / 1e9 / steps
                counts[name] += 1 / steps
    return took, counts


if __name__ == "__main__":
    main()
