"""Classify images with the champion: print a label and its probability for each image.

Without any champion in storage, the packaged weights say whether a head has a lesion.

mrigan is not a medical device: for research only, never for diagnosis.
"""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobs.classifier import networks, starting
from jobs.classifier.champion import read_champion
from jobs.classifier.ensemble import mean_prediction
from jobs.common import tables
from jobs.common.errors import UserError
from jobs.common.hardware import configure
from jobs.common.storage import Storage, open_storage
from jobs.mri import examine, readers
from jobs.mri.crop import fit
from jobs.mri.slices import Unusable
from jobs.settings import PredictSettings

log = logging.getLogger("mrigan.predict")

NETWORK, IMAGE_SIZE = "mobilenetv2", 64  # of the packaged weights
DISCLAIMER = "mrigan is not a medical device: this output is for research, not a diagnosis."


class Classifier(NamedTuple):
    """`predict` returns float64 [n, labels] for images uint8 [n, image_size, image_size]."""

    labels: Sequence[str]
    image_size: int
    predict: Callable[[np.ndarray], np.ndarray]


class Prediction(NamedTuple):
    """The prediction for a file, or for the slice `slice` of a volume.

    Either `probabilities`, one for each class, or a `finding`: why the image cannot be used.
    """

    file: str
    slice: int | None
    probabilities: Sequence[float] = ()
    finding: str = ""

    @property
    def name(self) -> str:
        """The file, with `#n` for slice n."""
        return self.file if self.slice is None else f"{self.file}#{self.slice}"


def run(settings: PredictSettings) -> None:
    """Print the prediction of each image, or of each slice of a volume.

    Images are read and cropped like the training images. The probability is the mean over the champion's models, or
    that of the packaged weights if storage has no champion and no name is given.
    Unreadable images are listed and skipped; UserError is then raised after all other images.
    """
    storage = open_storage(settings.storage)
    classifier = _classifier(storage, settings.name)

    pixels: list[np.ndarray] = []
    # By the number of the file, since files are read ahead.
    predictions: dict[int, list[Prediction]] = {number: [] for number in range(len(settings.images))}
    readable: list[int] = []

    def contents() -> Iterator[tuple[str, bytes]]:
        for number, path in enumerate(settings.images):
            try:
                data = Path(path).read_bytes()
            except OSError as error:
                predictions[number].append(Prediction(path, None, finding=str(error.strerror)))
                continue
            readable.append(number)
            yield Path(path).name, data

    work = functools.partial(examine.heads, volume=settings.volume, step=settings.slice_step)
    for order, (_, found) in enumerate(readers.shared().map(work, contents())):
        number = readable[order]
        path = settings.images[number]
        for slice, head, background in [(None, found, 0)] if isinstance(found, Unusable) else found:
            finding = str(head) if isinstance(head, Unusable) else ""
            predictions[number].append(Prediction(path, slice, finding=finding))
            if not isinstance(head, Unusable):
                pixels.append(fit(head, background, classifier.image_size))
    rows = [row for several in predictions.values() for row in several]
    findings = [row for row in rows if row.finding]
    for row in findings:
        print(f"mrigan predict: {row.name}: {row.finding}", file=sys.stderr)

    if pixels:
        configure(settings)
        means = iter(classifier.predict(np.stack(pixels)).tolist())
        rows = [row if row.finding else row._replace(probabilities=next(means)) for row in rows]
    PRINTERS[settings.format](rows, classifier.labels)
    if pixels:
        print(DISCLAIMER, file=sys.stderr)
    if findings:
        raise UserError(f"{len(findings)} of {len(rows)} images could not be read: see above")


def _classifier(storage: Storage, name: str) -> Classifier:
    """Return the champion, or the packaged classifier of phantoms if there is none. Raises UserError without a name of
    several champions, or with a name that has none."""
    if name or any(storage.list("champions")):
        champion = read_champion(storage, name)
        predict = functools.partial(mean_prediction, storage, champion)
        return Classifier(champion.labels, champion.image_size, predict)
    log.warning(
        "%s has no champion: using weights that come with mrigan and learned from drawn heads only", storage.url
    )
    log.warning("%s", starting.in_words(starting.card(NETWORK, IMAGE_SIZE)))
    log.warning("to train a champion on your images: mrigan pipeline")

    def predict_lesions(pixels: np.ndarray) -> np.ndarray:
        model, _ = networks.load_classifier(starting.packaged(NETWORK, IMAGE_SIZE).data)
        return networks.predict(model, pixels)

    return Classifier(starting.LABELS, IMAGE_SIZE, predict_lesions)


def _best(row: Prediction) -> int:
    return int(np.argmax(row.probabilities))


def _print_text(rows: Sequence[Prediction], labels: Sequence[str]) -> None:
    """Print name, label and probability of each image that could be read."""
    usable = [row for row in rows if not row.finding]
    width = max((len(row.name) for row in usable), default=0)
    for row in usable:
        print(f"{row.name:<{width}}  {labels[_best(row)]}  {row.probabilities[_best(row)]:.3f}")


def _print_csv(rows: Sequence[Prediction], labels: Sequence[str]) -> None:
    """Print a table with the columns of predictions.csv for label and probabilities."""
    lines = []
    for row in rows:
        shown = [""] * (1 + len(labels))
        if not row.finding:
            shown = [labels[_best(row)], *(format(value, ".9g") for value in row.probabilities)]
        lines.append([row.file, "" if row.slice is None else row.slice, *shown, row.finding])
    header = ["file", "slice", "prediction", *(f"p:{label}" for label in labels), "finding"]
    print(tables.to_csv(header, lines).decode(), end="")


def _print_json(rows: Sequence[Prediction], labels: Sequence[str]) -> None:
    """Print an array of objects; what an image does not have is null."""
    objects = [
        {
            "file": row.file,
            "slice": row.slice,
            "prediction": None if row.finding else labels[_best(row)],
            "probabilities": None if row.finding else dict(zip(labels, row.probabilities, strict=True)),
            "finding": row.finding or None,
        }
        for row in rows
    ]
    print(json.dumps(objects, indent=1))


PRINTERS = {"text": _print_text, "csv": _print_csv, "json": _print_json}
