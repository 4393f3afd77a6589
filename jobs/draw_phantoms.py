"""Draw phantoms: heads with and without a lesion, for the training of classifiers in addition to images.

Writes  phantoms/<image size>/<first>-<count>/: phantoms.safetensors, manifest.json. A part has at most 1000 phantoms.
"""

import contextlib
import itertools
import logging
from collections.abc import Sequence
from functools import partial

import numpy as np

from jobs.common import parallel, progress
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.mri.crop import crop_to_head
from jobs.phantoms import learning
from jobs.settings import DrawPhantomsSettings

log = logging.getLogger("mrigan.draw-phantoms")

PIECE = 50  # phantoms that a process draws at a time: a second


def run(settings: DrawPhantomsSettings) -> None:
    """Draw the parts that do not exist yet. Raises UserError if the part number is invalid."""
    storage = open_storage(settings.storage)
    parts = learning.parts(settings.phantoms)
    if settings.part != "all":
        if settings.part >= len(parts):
            raise UserError(f"--part: {settings.phantoms} phantoms have the parts 0 to {len(parts) - 1}")
        parts = [parts[settings.part]]
    missing = []
    for numbers in parts:
        step = learning.part(storage, settings.image_size, numbers)
        if step.finished():
            log.info("%s exists: nothing to do", step.prefix)
        else:
            missing.append(numbers)
    total, done = sum(map(len, missing)), 0
    pieces = [piece for numbers in missing for piece in parallel.pieces(numbers, PIECE)]
    with contextlib.closing(parallel.mapped(partial(_drawn, size=settings.image_size), pieces)) as drawn:
        for numbers in missing:
            step = learning.part(storage, settings.image_size, numbers)
            log.info("drawing phantoms %d to %d of %d pixels", numbers.start, numbers.stop - 1, settings.image_size)
            mine = step.take()
            pixels: list[np.ndarray] = []
            for more in itertools.islice(drawn, len(parallel.pieces(numbers, PIECE))):
                pixels += more
                done += len(more)
                progress.tell(done, total)
            if mine:
                learning.write(step, pixels, numbers)


def _drawn(numbers: Sequence[int], size: int) -> list[np.ndarray]:
    """Return the phantoms of these numbers, each uint8 [size, size]."""
    return [crop_to_head(head, size) for head in learning.heads(numbers)]
