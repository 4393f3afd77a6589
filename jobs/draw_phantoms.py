"""Draw phantoms: heads with and without a lesion, for the training of classifiers in addition to images.

Writes  phantoms/<image size>/<first>-<count>/: phantoms.safetensors, manifest.json. A part has at most 1000 phantoms.
"""

import logging

from jobs.common import progress
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.mri.crop import crop_to_head
from jobs.phantoms import learning
from jobs.settings import DrawPhantomsSettings

log = logging.getLogger("mrigan.draw-phantoms")


def run(settings: DrawPhantomsSettings) -> None:
    """Draw the parts that do not exist yet. Raises UserError if the part number is invalid."""
    storage = open_storage(settings.storage)
    parts = learning.parts(settings.phantoms)
    if settings.part != "all":
        if settings.part >= len(parts):
            raise UserError(f"--part: {settings.phantoms} phantoms have the parts 0 to {len(parts) - 1}")
        parts = [parts[settings.part]]
    for numbers in parts:
        step = learning.part(storage, settings.image_size, numbers)
        if step.finished():
            log.info("%s exists: nothing to do", step.prefix)
            continue
        log.info("drawing phantoms %d to %d of %d pixels", numbers.start, numbers.stop - 1, settings.image_size)
        step.forget()
        pixels, labels = [], []
        for done, (head, lesion) in enumerate(learning.labelled_heads(numbers), 1):
            pixels.append(crop_to_head(head, settings.image_size))
            labels.append(lesion)
            progress.tell(done, len(numbers))
        learning.write(step, pixels, labels)
