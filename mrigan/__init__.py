"""Read what mrigan stored from Python: datasets, synthetic images, predictions and reports.

    import mrigan

    run = mrigan.runs("out")[0]
    data = mrigan.dataset("out", run.dataset)
    heads = data.pixels(data.rows)
    drawn = mrigan.images("out", run.run, "yes", fold=0)

`storage` is what `--storage` is on the command line: a folder, or `s3://bucket/prefix`, which is reached with boto3's
default credential chain and `AWS_ENDPOINT_URL`. Nothing is written. Every file is compared with the digest that was
stored with it.

Every function raises UserError if something is not there or access is denied, and MachineError if the storage fails or
a file is damaged. The message says what to do.
"""

import json
import os
from typing import Any, NamedTuple

import numpy as np

from jobs.classifier.predictions import Predictions, join_predictions, read_predictions
from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import MANIFEST, stored
from jobs.common.storage import Storage, open_storage
from jobs.gan import synthetic
from jobs.mri.dataset import Dataset, Row, open_dataset

__all__ = [
    "Dataset",
    "MachineError",
    "Predictions",
    "Row",
    "Run",
    "UserError",
    "dataset",
    "images",
    "predictions",
    "report",
    "runs",
]

Place = str | os.PathLike[str]


class Run(NamedTuple):
    """A finished run: its name, the id of its dataset, and the name of the data (`--name`)."""

    run: str
    dataset: str
    name: str


def runs(storage: Place) -> list[Run]:
    """Return the runs that have a report, sorted by the name of the data and of the run."""
    place = _open(storage)
    found = (key.split("/") for key in place.list("runs"))
    names = [parts[1] for parts in found if parts[2:] == ["report", MANIFEST]]
    reports = (_report(place, name) for name in names)
    known = [Run(one["run"], one["dataset"]["id"], one["dataset"]["name"]) for one in reports]
    return sorted(known, key=lambda one: (one.name, one.run))


def dataset(storage: Place, id: str) -> Dataset:
    """Return a prepared dataset.

    `rows` has one Row for each image: `id`, `source` (file), `label` (class), `group` (of one patient, as far as
    known), `fold` (in which the image is held out) and properties of the file. `labels` are the classes, sorted;
    `folds` is the number of folds. `pixels(rows)` returns uint8 [len(rows), image_size, image_size], gray values from 0
    to 255, of all rows or some. `training(fold)` and `held_out(fold)` return the rows of one side of a split.
    """
    return open_dataset(_open(storage), id)


def images(storage: Place, run: str, label: str, fold: int | str = 0) -> np.ndarray:
    """Return a run's synthetic images of one class: uint8 [n, image_size, image_size], gray values from 0 to 255.

    Their generator was trained without the held-out images of `fold`; for fold "all", with all images. The order is
    that of the image numbers.
    """
    place = _open(storage)
    step = stored(place, keys.synthetic(run, fold, label))
    if step is None:
        raise UserError(
            f"{place.url} has no synthetic images of class {label} in fold {fold} of run {run}: check these names, or "
            "wait until the images are generated"
        )
    return np.stack(list(synthetic.images(step)))


def predictions(
    storage: Place, run: str, network: str | None = None, regime: str | None = None, seed: int | None = None
) -> Predictions:
    """Return the predictions of a run's classifier for all n real images, each from the fold in which it is held out.

    `ids`, `groups`, `folds`: n strings each, in order of id; `labels`: the k classes; `truth`: int64 [n], the index of
    the true class; `probabilities`: float64 [n, k], from 0 to 1, each row with the sum 1; `predicted`: int64 [n], the
    index of the most probable class.

    network: "mobilenetv2" or "resnet152v2"; regime: "real", "synthetic" or "real+synthetic". By default those that the
    report names as selected, of the first seed.
    """
    place = _open(storage)
    found = _report(place, run)
    network = network or found["selected"]["network"]
    regime = regime or found["selected"]["regime"]
    seed = found["settings"]["seed"] if seed is None else seed
    parts = []
    for fold in range(found["dataset"]["folds"]):
        step = stored(place, keys.classifier(run, fold, network, regime, seed))
        if step is None:
            asked = found["settings"]
            raise UserError(
                f"run {run} has no classifier {network} trained on {regime} with seed {seed}; it has "
                f"networks {', '.join(asked['networks'])}; regimes {', '.join(asked['regimes'])}; "
                f"seeds {asked['seed']} to {asked['seed'] + asked['seeds'] - 1}"
            )
        parts.append(read_predictions(step.read("predictions.csv")))
    return join_predictions(parts)


def report(storage: Place, run: str) -> dict[str, Any]:
    """Return the content of a run's report.json; docs/report.md describes every field."""
    return _report(_open(storage), run)


def _report(place: Storage, run: str) -> dict[str, Any]:
    step = stored(place, keys.report(run))
    if step is None:
        raise UserError(f"{place.url} has no report of run {run}: see mrigan.runs, or wait until the report is written")
    return json.loads(step.read("report.json"))


def _open(place: Place) -> Storage:
    return open_storage(os.fspath(place))
