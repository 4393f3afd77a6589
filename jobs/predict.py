"""Classify images with the champion: print a label and its probability for each image.

mrigan is not a medical device: for research only, never for diagnosis.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs.classifier.champion import read_champion
from jobs.classifier.ensemble import mean_prediction
from jobs.common.errors import UserError
from jobs.common.hardware import configure
from jobs.common.storage import open_storage
from jobs.mri import examine, readers
from jobs.mri.crop import fit
from jobs.mri.slices import Unusable
from jobs.settings import PredictSettings

DISCLAIMER = "mrigan is not a medical device: this output is for research, not a diagnosis."


def run(settings: PredictSettings) -> None:
    """Print a line for each image, or each slice of a volume: file, label, probability.

    Images are read and cropped like the training images. The probability is the mean over the champion's models.
    Unreadable images are listed and skipped; UserError is then raised after all other images.
    """
    storage = open_storage(settings.storage)
    champion = read_champion(storage, settings.name)

    names: list[str] = []
    pixels: list[np.ndarray] = []
    findings: list[str] = []
    paths: list[str] = []

    def contents() -> Iterator[tuple[str, bytes]]:
        for path in settings.images:
            try:
                data = Path(path).read_bytes()
            except OSError as error:
                findings.append(f"{path}: {error.strerror}")
                continue
            paths.append(path)
            yield Path(path).name, data

    work = functools.partial(examine.heads, volume=settings.volume)
    for number, (_, found) in enumerate(readers.shared().map(work, contents())):
        if isinstance(found, Unusable):
            findings.append(f"{paths[number]}: {found}")
            continue
        for slice, head, background in found:
            name = paths[number] if slice is None else f"{paths[number]}#{slice}"
            if isinstance(head, Unusable):
                findings.append(f"{name}: {head}")
            else:
                pixels.append(fit(head, background, champion.image_size))
                names.append(name)
    for finding in findings:
        print(f"mrigan predict: {finding}", file=sys.stderr)

    if pixels:
        configure(settings)
        means = mean_prediction(storage, champion, np.stack(pixels))
        width = max(map(len, names))
        for name, probabilities in zip(names, means, strict=True):
            best = int(np.argmax(probabilities))
            print(f"{name:<{width}}  {champion.labels[best]}  {probabilities[best]:.3f}")
        print(DISCLAIMER, file=sys.stderr)
    if findings:
        raise UserError(f"{len(findings)} of {len(findings) + len(pixels)} images could not be read: see above")
