"""Generate synthetic images of one class, and measure their quality.

Reads   runs/<run>/fold-<fold>/<class>/gan/, or all-classes/gan/ of a class-conditional GAN; datasets/<id>/.
Writes  runs/<run>/fold-<fold>/<class>/synthetic/: images/ (shards of <i>.png), images.csv, grid.png, nearest.png,
        quality.json, manifest.json.

Image i depends only on the generator, the seed, the bend and i: a larger --synthetic-count keeps the first images
unchanged.

nearest.png shows generated images, each above its nearest training image.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jobs.common import hardware, keys, png, progress, shards
from jobs.common.errors import UserError
from jobs.common.files import file_digest, local_file
from jobs.common.seeds import derive
from jobs.common.step import Step, manifest_digest, read_output
from jobs.common.storage import open_storage
from jobs.gan import drawing, features, grid, nearest, networks, quality, synthetic
from jobs.gan.features import Features
from jobs.mri.dataset import Dataset, Row, open_dataset
from jobs.mri.duplicates import describe, for_comparison, repeats
from jobs.settings import GenerateSettings

log = logging.getLogger("mrigan.generate")

QUALITY_SCHEMA = 2
READ_IMAGES = 256  # real images in memory at a time during a pass over all of them
GRID_IMAGES = 64
NEAREST_SHOWN = 16  # generated images shown with the nearest training image
GRID_COLUMNS = 8
# Number of synthetic and of held-out images that are aligned with training images, and the image size that this needs.
ALIGNED, ALIGNED_SIZE = 50, 64


def run(settings: GenerateSettings) -> Step:
    """Generate and evaluate the images unless that is done; return the step, whose facts are count and suspicious.

    Raises UserError if there is no generator of this class, or only one for another dataset or image size, MachineError
    if its file is damaged.
    """
    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    if settings.label not in dataset.labels:
        raise UserError(f"--label: one of {', '.join(dataset.labels)}, not {settings.label!r}")
    what = f"fold {settings.fold}, {settings.label}"
    training = [row for row in dataset.training(settings.fold) if row.label == settings.label]
    held_out = [row for row in dataset.held_out(settings.fold) if row.label == settings.label]
    prefix, manifest = drawing.find_generator(storage, settings.run, settings.fold, settings.label)
    path = settings.feature_weights
    hw = hardware.configure(settings)
    # A generator runs in float32, whatever the precision of its training.
    exact = {"precision": "float32"}
    step = Step(
        storage,
        keys.synthetic(settings.run, settings.fold, settings.label),
        job="generate",
        settings=settings.result(),
        inputs={
            "dataset": dataset.digest,
            "generator": manifest_digest(manifest),
            "feature_weights": file_digest("--feature-weights", path) if path else "random",
        },
        arithmetic=hw.arithmetic() | exact,
    )
    if step.finished():
        log.info("%s: the synthetic images exist: nothing to do", what)
        return step

    # ---- generator ------------------------------------------------------------------------------------------------
    if path:
        judges = features.inception(str(local_file("--feature-weights", path)), step.inputs["feature_weights"])
    else:
        judges = features.random_networks(dataset.image_size)
    generator, config = networks.load_generator(read_output(storage, prefix, manifest, networks.GENERATOR))
    if config.image_size != dataset.image_size:
        raise UserError(
            f"the generator in {prefix} generates {config.image_size} pixels, dataset {dataset.id} has "
            f"{dataset.image_size}: train it on this dataset"
        )
    if manifest["inputs"].get("dataset") != dataset.digest:
        # Its training images may include images that are held out here.
        raise UserError(
            f"the generator in {prefix} was trained on another dataset than {dataset.id}: train it again on this one"
        )

    # ---- images ---------------------------------------------------------------------------------------------------
    log.info("%s: generating %d images", what, settings.synthetic_count)
    if not step.take():
        return step
    numbers = range(settings.synthetic_count)
    judged: list[np.ndarray] = []

    def files() -> Iterator[tuple[str, bytes]]:
        seed, bend = settings.seed, settings.synthetic_bend
        for number, image in drawing.draw_images(generator, config, settings.label, numbers, seed=seed, bend=bend):
            # The images are independent and identically distributed, so the first ones are a random sample.
            if len(judged) < quality.MOST_IMAGES:
                judged.append(image)
            progress.tell(number + 1, len(numbers), "images")
            synthetic.generated().inc()
            yield keys.synthetic_image(number), png.encode(image)

    shards.write(step, "images", files())
    step.write("grid.png", grid.grid_png(np.stack(judged[:GRID_IMAGES]), GRID_COLUMNS))

    # ---- quality --------------------------------------------------------------------------------------------------
    found, beside = judge(judges, np.stack(judged), dataset, training, held_out, settings.seed)
    report = {"schema": QUALITY_SCHEMA, "count": len(numbers)} | found
    for number, entry in enumerate(report["nearest"]):
        entry["image"] = keys.synthetic_image(number)
    step.write("nearest.png", grid.grid_png(beside, GRID_COLUMNS))
    step.write("quality.json", (json.dumps(report, indent=1) + "\n").encode())
    suspicious = report["memorization"]["suspicious"]
    if suspicious:
        log.warning("%s: the generator copies training images (see nearest.png)", what)
    step.finish(hardware=hw.record() | exact, count=len(numbers), suspicious=suspicious)
    return step


def judge(
    judges: Features,
    generated: np.ndarray,
    dataset: Dataset,
    training: Sequence[Row],
    held_out: Sequence[Row],
    seed: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the content of quality.json for `generated`, uint8 [n, size, size], and the images of nearest.png.

    The content is:

    - the fields that jobs.gan.quality.compare returns;
    - `memorization`: the fields that jobs.gan.nearest.memorization returns, and `near_duplicates`: {generated, real},
      the share of the first ALIGNED generated and held-out images that the search for near-duplicates matches to a
      training image (null under ALIGNED_SIZE pixels). A share above SUSPICIOUS also sets `suspicious`;
    - `nearest`: for each image shown: training (id), mirrored, distance [gray levels].
    """

    def subset(rows: Sequence[Row], purpose: str) -> list[Row]:
        return [rows[number] for number in quality.subset(len(rows), derive(seed, "judged", purpose))]

    reference = subset(held_out, "held-out")
    reals = dataset.pixels(reference)
    found = quality.compare(judges, generated, dataset.pixels(subset(training, "training")), reals, seed)

    starts = range(0, len(training), READ_IMAGES)
    blocks = (dataset.pixels(training[start : start + READ_IMAGES]) for start in starts)
    groups = [row.group for row in reference]
    # Generated and held-out images together, so that the training images are read only once.
    near = nearest.nearest(np.concatenate([generated, reals]), blocks)
    ours = nearest.Nearest(*(values[: len(generated)] for values in near))
    theirs = nearest.Nearest(*(values[len(generated) :] for values in near))
    found["memorization"] = nearest.memorization(
        (ours, nearest.nearest(generated, [reals])), (theirs, nearest.nearest(reals, [reals], groups, groups))
    )
    shares = _near_duplicates(generated, reals, dataset, training)
    found["memorization"]["near_duplicates"] = shares
    if shares["generated"] is not None and shares["generated"] > nearest.SUSPICIOUS:
        found["memorization"]["suspicious"] = True
    shown = generated[:NEAREST_SHOWN]
    rows = [training[index] for index in ours.number[:NEAREST_SHOWN]]
    found["nearest"] = [
        {"training": row.id, "mirrored": bool(mirrored), "distance": round(float(distance), 3)}
        for row, mirrored, distance in zip(rows, ours.mirrored, ours.distance, strict=False)
    ]
    beside = dataset.pixels(rows)
    mirrored = ours.mirrored[:NEAREST_SHOWN]
    beside[mirrored] = beside[mirrored][:, :, ::-1]
    return found, _above(shown, beside)


def _near_duplicates(
    generated: np.ndarray, reals: np.ndarray, dataset: Dataset, training: Sequence[Row]
) -> dict[str, float | None]:
    """Return the shares of the first ALIGNED generated and real images that repeat a training image (see judge)."""
    shares: dict[str, float | None] = {"generated": None, "real": None}
    if dataset.image_size < ALIGNED_SIZE:
        return shares

    def load(index: int) -> np.ndarray:
        return for_comparison(dataset.pixels([training[index]])[0])

    described = {number: describe(for_comparison(image)) for number, image in dataset.each(training)}
    descriptions = np.stack([described[number] for number in range(len(training))])
    for whose, images in (("generated", generated), ("real", reals)):
        if len(images):
            some = np.stack([for_comparison(image) for image in images[:ALIGNED]])
            shares[whose] = round(float(np.mean([bool(same) for same in repeats(some, descriptions, load)])), 4)
    return shares


def _above(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the images of a grid of GRID_COLUMNS in which each image of `upper` is above its partner in `lower`."""
    lines = []
    for start in range(0, len(upper), GRID_COLUMNS):
        for images in (upper, lower):
            line = images[start : start + GRID_COLUMNS]
            missing = 0 if len(upper) <= GRID_COLUMNS else GRID_COLUMNS - len(line)
            lines.append(np.pad(line, ((0, missing), (0, 0), (0, 0))))
    return np.concatenate(lines)
