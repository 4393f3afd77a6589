"""The phantoms for training: drawn heads, alternately without and with a lesion, stored in parts.

They do not depend on the dataset, and a phantom does not depend on the number of phantoms.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jobs.common import keys, tensors
from jobs.common.errors import UserError
from jobs.common.seeds import derive
from jobs.common.step import Step
from jobs.common.storage import Storage
from jobs.phantoms.randomized import draw_randomized

PART = 1000  # phantoms in a part: about 20 s on one core
PHANTOMS_FILE = "phantoms.safetensors"


def parts(count: int) -> list[range]:
    """Return the numbers of `count` phantoms, part by part."""
    return [range(first, min(first + PART, count)) for first in range(0, count, PART)]


def part(storage: Storage, image_size: int, numbers: range) -> Step:
    """Return the step of one part, finished or not."""
    settings = {"image_size": image_size, "first": numbers.start, "count": len(numbers)}
    prefix = keys.phantoms(image_size, numbers.start, len(numbers))
    return Step(storage, prefix, job="draw-phantoms", settings=settings, inputs={})


def drawn(storage: Storage, image_size: int, count: int) -> list[Step]:
    """Return the finished steps of all parts of `count` phantoms. Raises UserError if a part is missing."""
    steps = [part(storage, image_size, numbers) for numbers in parts(count)]
    if not all(step.finished() for step in steps):
        raise UserError(
            f"there are no {count} phantoms of {image_size} pixels in {storage.url}: run "
            f"`mrigan draw-phantoms --storage {storage.url} --image-size {image_size} --phantoms {count}` first"
        )
    return steps


def has_lesion(number: int) -> bool:
    """Return whether the phantom with this number has a lesion: every second one."""
    return number % 2 == 1


def heads(numbers: Iterable[int]) -> Iterator[np.ndarray]:
    """Yield the head, uint8 [height, width], of each of the `numbers`."""
    for number in numbers:
        yield draw_randomized(has_lesion(number), np.random.default_rng(derive(0, "phantoms", number)))


def write(step: Step, pixels: Sequence[np.ndarray], numbers: range) -> None:
    """Write the phantoms of a part, each uint8 [image_size, image_size], and finish its step."""
    labels = np.array([has_lesion(number) for number in numbers], np.int64)
    step.write(PHANTOMS_FILE, tensors.to_bytes({"pixels": np.stack(pixels), "labels": labels}, {}))
    step.finish()


def read_phantoms(steps: Sequence[Step]) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 [count, image_size, image_size] and labels int64 [count]: 0 no lesion, 1 one or several.

    Raises MachineError if a file is missing or damaged.
    """
    arrays = [tensors.from_bytes(step.read(PHANTOMS_FILE), PHANTOMS_FILE)[0] for step in steps]
    return np.concatenate([one["pixels"] for one in arrays]), np.concatenate([one["labels"] for one in arrays])
