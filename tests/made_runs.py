"""Made-up datasets and runs for promotion: stored predictions, and models that answer as a test has it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jobs import promote
from jobs.classifier.champion import Record, parse_record
from jobs.classifier.predictions import Predictions, write_predictions
from jobs.common import keys, png, shards
from jobs.common.step import Step, manifest_digest, read_manifest
from jobs.common.storage import Storage
from jobs.mri.crop import fit
from jobs.mri.dataset import Row, rows_to_csv
from jobs.settings import PromoteSettings
from tests.mri.heads import a_head

LABELS = ["no", "yes"]
FOLDS = 2


def image(number: int, fold: int = -1, group: str = "", id: str = "") -> Row:
    """Image `number`: odd ones are of class yes. By default in a group of its own, in folds by pairs."""
    id = id or f"{number:04d}"
    fold = number // 2 % FOLDS if fold < 0 else fold
    return Row(id, f"{LABELS[number % 2]}/{id}.png", LABELS[number % 2], group or id, fold, "PNG", 9, 64, 64, 0.0)


def head(number: int, turned: float = 0) -> np.ndarray:
    """Drawn head `number`, uint8 [128, 128]."""
    square = fit((255 * a_head(number)).astype(np.uint8), 0, 128)
    return np.asarray(Image.fromarray(square).rotate(turned, Image.Resampling.BICUBIC))


def make_dataset(
    storage: Storage, id: str, rows: Sequence[Row], heads: Sequence[np.ndarray] = (), size: int = 64
) -> dict[str, np.ndarray]:
    """Store a dataset, with its pictures if `heads` are given; return the pictures by id."""
    step = Step(
        storage, keys.dataset(id), job="preprocess", settings={"folds": FOLDS, "image_size": size}, inputs={"data": id}
    )
    pictures = {row.id: fit(picture, 0, size) for row, picture in zip(rows, heads, strict=bool(heads))}
    shards.write(step, "images", ((keys.image(id), png.encode(picture)) for id, picture in pictures.items()))
    step.write("index.csv", rows_to_csv(rows))
    step.finish(labels={label: sum(row.label == label for row in rows) for label in LABELS}, name="mri")
    return pictures


def make_run(
    storage: Storage,
    run: str,
    rows: Sequence[Row],
    right: float | Iterable[str],
    *,
    dataset: str = "d1",
    seeds: int = 1,
    knows: Sequence[dict[str, str]] = ({}, {}),
    otherwise: Sequence[Sequence[float]] = ([0.9, 0.1], [0.9, 0.1]),
) -> None:
    """Store a run with its report.

    right: the share of images that the out-of-fold predictions read right, the first ones, or their ids.
    knows: for each fold's model, the label that it gives a picture, by the picture's `digest`.
    otherwise: the probabilities that it gives any other.
    """
    if isinstance(right, float):
        right = [row.id for row in sorted(rows, key=lambda row: row.id)[: round(right * len(rows))]]
    read_right = set(right)
    inputs = {"dataset": manifest_digest(read_manifest(storage, keys.dataset(dataset)) or {})}
    for fold in range(FOLDS):
        held_out = [row for row in rows if row.fold == fold]
        truth = np.array([LABELS.index(row.label) for row in held_out])
        predicted = np.where([row.id in read_right for row in held_out], truth, 1 - truth)
        predictions = Predictions(
            ids=[row.id for row in held_out],
            groups=[row.group for row in held_out],
            folds=[str(fold)] * len(held_out),
            labels=LABELS,
            truth=truth,
            probabilities=np.where(np.eye(2)[predicted] > 0, 0.9, 0.1),
        )
        for seed in range(seeds):
            prefix = keys.classifier(run, fold, "mobilenetv2", "real", seed)
            cell = Step(storage, prefix, job="train-classifier", settings={"seed": seed, "fold": fold}, inputs=inputs)
            cell.write("predictions.csv", write_predictions(predictions))
            model = {"knows": knows[fold], "otherwise": otherwise[fold]}
            cell.write("classifier.safetensors", json.dumps(model).encode())
            cell.finish()
    report = Step(storage, keys.report(run), job="evaluate", settings={"seeds": seeds, "seed": 0}, inputs=inputs)
    selected = {"network": "mobilenetv2", "regime": "real", "value": 0.8, "corrected": 0.78}
    report.write("report.json", json.dumps({"selected": selected}).encode())
    report.finish()


def digest(picture: np.ndarray) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def remembering(rows: Sequence[Row], pictures: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """What each fold's model knows if it learned by heart all images that it was trained on."""
    return [{digest(pictures[row.id]): row.label for row in rows if row.fold != fold} for fold in range(FOLDS)]


def settings(storage: Storage, run: str, dataset: str = "d1", **more: Any) -> PromoteSettings:
    return PromoteSettings(storage=storage.url, run=run, dataset=dataset, name="mri", **more)


def record(storage: Storage) -> Record:
    return parse_record(storage.read(keys.champion("mri")), "mri")


def decide(storage: Storage, run: str, dataset: str = "d1", **more: Any) -> tuple[str, dict[str, Any]]:
    """Promote a run; return the champion's run and the last decision."""
    promote.run(settings(storage, run, dataset, **more))
    found = record(storage)
    return found.champion.run, found.decisions[-1]


FEW = [image(number) for number in range(8)]
