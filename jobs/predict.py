"""Images and the champion -> a label and its probability for each image.

mrigan is no medical device: for research only, never for diagnosis.
"""

import sys
from pathlib import Path
from typing import Annotated

from jobs.common.errors import UserError
from jobs.common.settings import ExecutionSettings, Several, StorageSettings, setting
from jobs.common.storage import open_storage

DISCLAIMER = "mrigan is no medical device: this is research output, not a diagnosis."


class PredictSettings(StorageSettings, ExecutionSettings):
    """What predict can be told."""

    images: Annotated[tuple[str, ...], Several] = setting(..., "image files to read", positional=True, result=False)
    name: str = setting("", "dataset's name of the champion; empty: the only champion in storage", result=False)


def run(settings: PredictSettings) -> None:
    """Print a line for each image, or each slice of a volume: file, label, probability.

    Images are read and cropped like the training images, and read by the mean of the champion's models. An unreadable
    one is named and left out; if there was any, UserError ends the job after the others.
    """
    from jobs.classifier.champion import predict, read_champion

    storage = open_storage(settings.storage)
    champion = read_champion(storage, settings.name)

    import numpy as np

    from jobs.common.hardware import configure
    from jobs.mri.crop import crop_to_head
    from jobs.mri.read import read
    from jobs.mri.slices import Unusable

    names: list[str] = []
    pixels: list[np.ndarray] = []
    unusable = 0
    for path in settings.images:
        try:
            slices = read(Path(path).read_bytes(), path).slices
        except (OSError, Unusable) as error:
            unusable += 1
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"mrigan predict: {path}: {reason}", file=sys.stderr)
            continue
        for one in slices:
            name = path if one.number is None else f"{path}#{one.number}"
            try:
                pixels.append(crop_to_head(one.pixels, champion.settings["image_size"]))
                names.append(name)
            except Unusable as error:
                unusable += 1
                print(f"mrigan predict: {name}: {error}", file=sys.stderr)

    if pixels:
        configure(settings)
        total = predict(storage, champion, np.stack(pixels))
        width = max(map(len, names))
        for name, probabilities in zip(names, total, strict=True):
            best = int(np.argmax(probabilities))
            print(f"{name:<{width}}  {champion.labels[best]}  {probabilities[best]:.3f}")
        print(DISCLAIMER, file=sys.stderr)
    if unusable:
        raise UserError(f"{unusable} of {unusable + len(pixels)} images could not be read: see above")
