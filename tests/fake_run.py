"""A run whose every output is made up, written as the jobs write theirs: for tests of what reads a run."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.classifier.predictions import Predictions, write_predictions
from jobs.common import keys, png, shards, tables
from jobs.common.seeds import derive
from jobs.common.step import MANIFEST, Step, read_manifest, seal
from jobs.common.storage import Storage
from jobs.gan.grid import grid_png
from jobs.mri.dataset import Row, rows_to_csv

DATASET, RUN = "d1", "r1"
# How far a class's score stands out from noise, by regime.
SKILL = {"synthetic": 1.0, "real": 2.0, "real+synthetic": 2.3, "real-permuted": 0.0, "real-leaky": 2.2}
HARDWARE = {
    "device": "a processor",
    "threads": 1,
    "precision": "float32",
    "xla": False,
    "reason": "the processor has no matrix units for bfloat16",
}


def picture(label: int, number: int, size: int) -> np.ndarray:
    """A bright disc on black, uint8 [size, size]; its place follows the class, its width the number."""
    rng = np.random.default_rng(derive(number, "picture", label))
    y, x = np.mgrid[:size, :size] / size - 0.5
    disc = np.hypot(x, y) < rng.uniform(0.35, 0.45)
    spot = np.hypot(x - 0.2 + 0.1 * label, y - rng.uniform(-0.2, 0.2)) < 0.1
    return np.clip(110 * disc + 90 * spot + rng.normal(0, 12, (size, size)), 0, 255).astype(np.uint8)


def make(
    storage: Storage,
    labels: Sequence[str] = ("no", "yes"),
    *,
    images: int = 40,
    folds: int = 2,
    size: int = 32,
    networks: Sequence[str] = ("mobilenetv2",),
    regimes: Sequence[str] = ("synthetic", "real", "real+synthetic"),
    seeds: int = 1,
    controls: bool = False,
    draw: Any = picture,
) -> list[Row]:
    """Write dataset d1 (`images` of each class, in groups of one or two) and run r1 on it; return the rows."""
    digest, rows = _dataset(storage, labels, images, folds, size, draw)
    for fold in range(folds):
        if set(regimes) != {"real"}:
            for number, label in enumerate(labels):
                _generator(storage, digest, rows, fold, label, number, size, draw)
        for network in networks:
            wrong = ["real-permuted", "real-leaky"] if controls and network == networks[0] else []
            for regime in [*regimes, *wrong]:
                for seed in range(1 if regime in wrong else seeds):
                    _classifier(storage, digest, rows, labels, fold, network, regime, seed)
    return rows


def _dataset(
    storage: Storage, labels: Sequence[str], images: int, folds: int, size: int, draw: Any
) -> tuple[str, list[Row]]:
    step = Step(
        storage,
        keys.dataset(DATASET),
        job="preprocess",
        settings={"image_size": size, "folds": folds, "seed": 0},
        inputs={"data": "0"},
    )
    rows, files = [], []
    for number, label in enumerate(labels):
        for image in range(images):
            id, group = f"{number:02d}{image:06d}", image - image % 2 if image % 3 else image
            rng = np.random.default_rng(derive(image, "file", number))
            width, height = (int(side) for side in rng.integers(180, 500, 2))
            file = Row(id, f"{label}/Y{image}.jpg", label, f"{number:02d}{group:06d}", group % folds, "JPEG",
                       width * height // 5, width, height, float(rng.integers(0, 30)))  # fmt: skip
            rows.append(file)
            files.append((keys.image(id), png.encode(draw(number, image, size))))
    shards.write(step, "images", files)
    step.write("index.csv", rows_to_csv(rows))
    refused = [
        ("yes/Y0 copy.jpg", "duplicate", "exact duplicate of yes/Y0.jpg"),
        ("no/notes<1>.png", "not-an-image", ""),
    ]
    step.write("quarantine.csv", tables.to_csv(("source", "reason", "detail"), refused))
    step.finish(
        name="demo",
        labels=dict.fromkeys(labels, images),
        images=len(rows),
        groups=len({row.group for row in rows}),
        largest_group=2,
        large_groups=0,
        near_duplicate_pairs=12,
        formats={"JPEG": len(rows)},
        quarantine={"duplicate": 1, "not-an-image": 1},
        patients="none",
    )
    return step.digest, rows


def _generator(
    storage: Storage, digest: str, rows: list[Row], fold: int, label: str, number: int, size: int, draw: Any
) -> None:
    inputs = {"dataset": digest}
    rng = np.random.default_rng(derive(fold, "gan", label))
    gan = Step(storage, keys.gan(RUN, fold, label), job="train-gan", settings={"gan_epochs": 300}, inputs=inputs)
    steps = np.arange(1, 301)
    losses = zip(
        steps, steps * 4, 1 + 0.5 * np.log1p(steps / 40) + rng.normal(0, 0.1, 300), 1.3 - 0.2 * np.log1p(steps / 60)
        + rng.normal(0, 0.05, 300), strict=True,
    )  # fmt: skip
    columns = ("epoch", "step", "generator_loss", "discriminator_loss")
    gan.write("losses.csv", tables.to_csv(columns, [[f"{x:.6f}" for x in row] for row in losses]))
    for epoch in (100, 200, 300):
        blur = np.random.default_rng(epoch).normal(0, 12000 / epoch, (64, size, size))
        drawn = np.clip(np.stack([draw(number, 1000 + i, size) for i in range(16)] * 4) + blur, 0, 255)
        gan.write(f"samples/epoch-{epoch:06d}.png", grid_png(drawn.astype(np.uint8), 8))
    gan.finish(hardware=HARDWARE, training_seconds=512.5)

    made = Step(storage, keys.synthetic(RUN, fold, label), job="generate", settings={}, inputs=inputs)
    files = ((keys.synthetic_image(image), png.encode(draw(number, 2000 + image, size))) for image in range(8))
    shards.write(made, "images", files)
    made.write("nearest.png", grid_png(np.stack([draw(number, 2000 + image, size) for image in range(16)]), 8))
    real = {"kid": 0.002, "precision": 0.81, "recall": 0.77, "density": 0.97, "coverage": 0.93, "fid": 14.2}
    quality = {
        "schema": 2,
        "count": 8,
        "reference": "held-out",
        "features": {"name": "five random networks", "digest": "0", "networks": 5, "dimensions": 64},
        "figures": [
            {
                "metric": metric,
                "better": "lower" if metric in ("kid", "fid") else "higher",
                "generated": {"value": value * (3 if metric in ("kid", "fid") else 0.8), "error": 0.01},
                "real": {"value": value, "error": None},
            }
            for metric, value in real.items()
        ],
        "memorization": {
            "copies": {"generated": 0.02 + 0.3 * (number == 1 and fold == 0), "real": None if number else 0.01},
            "distance": {"generated": 21.3, "real": 24.8},
            "near_duplicates": {"generated": 0.04, "real": 0.0},
            "suspicious": number == 1 and fold == 0,
        },
        "nearest": [{"training": rows[0].id, "mirrored": False, "distance": 20.0, "image": "000000.png"}],
    }
    made.write("quality.json", json.dumps(quality).encode())
    made.finish(hardware=HARDWARE, count=8, suspicious=number == 1 and fold == 0)


def _classifier(
    storage: Storage,
    digest: str,
    rows: list[Row],
    labels: Sequence[str],
    fold: int,
    network: str,
    regime: str,
    seed: int,
) -> None:
    held_out = [row for row in rows if row.fold == fold]
    truth = np.array([labels.index(row.label) for row in held_out])
    rng = np.random.default_rng(derive(seed, network, regime, fold))
    scores = rng.normal(size=(len(truth), len(labels))) + SKILL[regime] * np.eye(len(labels))[truth]
    probabilities = np.exp(1.4 * scores) / np.exp(1.4 * scores).sum(axis=1, keepdims=True)
    step = Step(
        storage,
        keys.classifier(RUN, fold, network, regime, seed),
        job="train-classifier",
        settings={"network": network, "regime": regime, "seed": seed, "fold": fold, "classifier_epochs": 20},
        inputs={"dataset": digest},
    )
    predictions = Predictions(
        ids=[row.id for row in held_out],
        groups=[row.group for row in held_out],
        folds=[str(row.fold) for row in held_out],
        labels=list(labels),
        truth=truth,
        probabilities=probabilities,
    )
    step.write("predictions.csv", write_predictions(predictions))
    loss = 0.7 * np.exp(-np.arange(1, 21) / 8)
    held_out_loss = loss + 0.2 + rng.normal(0, 0.04, 20)
    history = [
        (epoch, epoch * 100, f"{loss[epoch - 1]:.6f}", "0.9", f"{held_out_loss[epoch - 1]:.6f}", "0.8")
        for epoch in range(1, 21)
    ]
    columns = ("epoch", "step", "train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy")
    step.write("history.csv", tables.to_csv(columns, history))
    chosen_on = f"No image chose anything in {20 + fold} epochs."
    if regime == "synthetic":
        chosen_on += " Real images changed no weight."
    by_heart = {"learned": 0.95 + 0.02 * fold} if regime == "real-permuted" else {}
    step.finish(hardware=HARDWARE, labels=list(labels), selection=chosen_on, **by_heart)


def replace_output(storage: Storage, prefix: str, name: str, data: bytes) -> None:
    """Let a finished step hold other bytes, as if its job had written them."""
    manifest = read_manifest(storage, prefix) or {}
    storage.write(f"{prefix}/{name}", data)
    replace_manifest(storage, prefix, outputs=manifest["outputs"] | {name: hashlib.sha256(data).hexdigest()})


def replace_manifest(storage: Storage, prefix: str, **fields: Any) -> None:
    """Let a finished step's manifest say something else, as if its job had written it."""
    manifest = read_manifest(storage, prefix) or {}
    storage.write(f"{prefix}/{MANIFEST}", seal(manifest | fields))
