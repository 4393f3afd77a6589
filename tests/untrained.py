"""A dataset of noise, and generators as they are before training: for tests of what draws images."""

import numpy as np
from PIL import Image

from jobs.common import keys, png, shards
from jobs.common.step import Step
from jobs.common.storage import Storage
from jobs.gan import networks
from jobs.mri.dataset import Row, rows_to_csv

LABELS = ("no", "yes")
SIZE = 32


def write_dataset(storage: Storage, name: str, size: int = SIZE, seed: int = 0) -> str:
    """A dataset of 2 folds, 12 groups of 2 images a class; return its digest."""
    random = np.random.default_rng(seed)
    step = Step(storage, keys.dataset(name), job="preprocess", settings={"image_size": size, "folds": 2}, inputs={})
    rows, files = [], []
    for number in range(48):
        label, group = LABELS[number % 2], number // 4
        pixels = random.integers(0, 256, (size // 8, size // 8), np.uint8)
        image = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
        row = Row(f"{number:016x}", f"{number}.png", label, f"g{group}{label}", group % 2, "PNG", 99, 40, 50, 1.0)
        files.append((keys.image(row.id), png.encode(image)))
        rows.append(row)
    shards.write(step, "images", files)
    step.write("index.csv", rows_to_csv(rows))
    step.finish(labels=dict.fromkeys(LABELS, 24))
    return step.digest


def write_generator(
    storage: Storage, dataset: str, place: str, labels: tuple[str, ...], fold: int | str = 0, size: int = SIZE
) -> None:
    config = networks.GanConfig(size, width=2, latent=4, labels=labels)
    model = networks.build_generator(config, seed=5)
    for variable in model.trainable_variables:
        # As they are drawn the weights give images of one gray.
        variable.assign(variable * 20)
    step = Step(storage, keys.gan("r", fold, place), job="train-gan", settings={}, inputs={"dataset": dataset})
    step.write(networks.GENERATOR, networks.save_generator(model, config))
    step.finish()
