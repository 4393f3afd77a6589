"""Generator -> synthetic images of one class, and how good they are.

Reads   runs/<run>/fold-<fold>/<class>/gan/, or all-classes/gan/ of a class-conditional GAN; datasets/<id>/.
Writes  runs/<run>/fold-<fold>/<class>/synthetic/: images/<i>.png, grid.png, nearest.png, quality.json, manifest.json.

Image i depends on the generator, the seed, the bend and i alone, so images can be made in parts by several pods: a part
that starts beyond 0 lies in synthetic-<first>/, whole in itself.

nearest.png shows generated images, each above the training image nearest to it.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jobs.common import keys, metrics, progress
from jobs.common.errors import UserError
from jobs.common.files import file_digest, local_file
from jobs.common.seeds import derive
from jobs.common.settings import NAME, ExecutionSettings, Settings, StorageSettings, setting
from jobs.common.step import Step, manifest_digest, read_manifest, read_output
from jobs.common.storage import Storage, open_storage

if TYPE_CHECKING:
    import keras
    import numpy as np

    from jobs.gan.features import Features
    from jobs.gan.networks import GanConfig
    from jobs.mri.dataset import Dataset, Row

log = logging.getLogger("mrigan.generate")

QUALITY_SCHEMA = 1
GENERATOR = "generator.safetensors"
# Images are always drawn in these blocks, whole, though a part may start or end inside one: a matrix product may sum in
# another order for another shape or place, and an image must not depend on its company.
BLOCK = 32
READ = 256  # real images in memory at a time when all are looked through
GRID = 64
SHOWN = 16  # generated images shown with the nearest training image
COLUMNS = 8
# Synthetic and held-out images that are aligned with training images, and the fewest pixels that show their structure.
ALIGNED, ALIGNED_SIZE = 50, 64


class SyntheticSettings(Settings):
    """How many synthetic images there are, and how they are judged."""

    synthetic_count: int = setting(1000, "synthetic images of each class", unit="images", ge=1)
    synthetic_bend: float = setting(
        0.025,
        "how far synthetic images are bent, away from training images: standard deviation of a smooth displacement",
        unit="share of the side",
        ge=0,
        le=0.1,
    )
    feature_weights: str = setting(
        "",
        "Keras .h5 file (path or s3://) of InceptionV3 without its top, to judge images by; five random networks if "
        "not given",
        result=False,
    )


class GenerateSettings(SyntheticSettings, StorageSettings, ExecutionSettings):
    """What generate can be told."""

    dataset: str = setting(..., "dataset's id: preprocess prints it", result=False, pattern=NAME)
    run: str = setting(..., "name of the run that the generator belongs to", result=False, pattern=NAME)
    fold: int | Literal["all"] = setting(..., "fold whose images were held out; all: none were")
    label: str = setting(..., "class to draw")
    synthetic_first: int = setting(0, "number of the first image: to make images in parts", ge=0)
    seed: int = setting(0, "where all randomness comes from", ge=0)


def run(settings: GenerateSettings) -> Step:
    """Make the images and judge them unless it is done; return the step, whose facts are first, count and suspicious.

    Raises UserError if there is no generator of this class, or one for another dataset or image size, MachineError if
    its file is damaged.
    """
    from jobs.mri.dataset import open_dataset

    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    if settings.label not in dataset.labels:
        raise UserError(f"--label: one of {', '.join(dataset.labels)}, not {settings.label!r}")
    training = [row for row in dataset.training(settings.fold) if row.label == settings.label]
    held_out = [row for row in dataset.held_out(settings.fold) if row.label == settings.label]
    prefix, manifest = find_generator(storage, settings)
    step = Step(
        storage,
        keys.synthetic(settings.run, settings.fold, settings.label, settings.synthetic_first),
        job="generate",
        settings=settings.result(),
        inputs={
            "dataset": dataset.digest,
            "generator": manifest_digest(manifest),
            "feature_weights": _weights_digest(settings.feature_weights),
        },
    )
    if step.finished():
        log.info("fold %s, %s: the synthetic images are there already", settings.fold, settings.label)
        return step

    # ---- generator ------------------------------------------------------------------------------------------------
    from jobs.common import hardware

    hw = hardware.configure(settings)

    import numpy as np

    from jobs.gan import features, grid, quality

    weights = settings.feature_weights and str(local_file("--feature-weights", settings.feature_weights))
    judges = features.load(weights, step.inputs["feature_weights"], dataset.image_size)
    generator, config = read_generator(storage, prefix, manifest)
    if config.image_size != dataset.image_size:
        raise UserError(
            f"the generator in {prefix} draws {config.image_size} pixels, dataset {dataset.id} has "
            f"{dataset.image_size}: train it on this dataset"
        )
    if manifest["inputs"].get("dataset") != dataset.digest:
        # It may have seen images that are held out here.
        raise UserError(f"the generator in {prefix} was trained on another dataset than {dataset.id}: train it on this")

    # ---- images ---------------------------------------------------------------------------------------------------
    log.info("fold %s, %s: drawing %d images", settings.fold, settings.label, settings.synthetic_count)
    step.forget()
    first, end = settings.synthetic_first, settings.synthetic_first + settings.synthetic_count
    _delete_others(step, range(first, end))
    judged: list[np.ndarray] = []

    def files() -> Iterator[tuple[str, bytes]]:
        for number, image in draw(generator, config, settings, range(first, end)):
            # One image is like another, so the first ones stand for all.
            if len(judged) < quality.SAMPLES:
                judged.append(image)
            progress.tell(number - first + 1, end - first)
            metrics.generated().inc()
            yield keys.synthetic_image(number), grid.png(image)

    step.write_many(files())
    step.write("grid.png", grid.grid_png(np.stack(judged[:GRID]), COLUMNS))

    # ---- quality --------------------------------------------------------------------------------------------------
    found, beside = judge(judges, np.stack(judged), dataset, training, held_out, settings.seed)
    report = {"schema": QUALITY_SCHEMA, "first": first, "count": end - first} | found
    for number, entry in enumerate(report["nearest"], first):
        entry["image"] = keys.synthetic_image(number)
    step.write("nearest.png", grid.grid_png(beside, COLUMNS))
    step.write("quality.json", (json.dumps(report, indent=1) + "\n").encode())
    suspicious = report["memorization"]["suspicious"]
    if suspicious:
        log.warning(
            "fold %s, %s: the generator copies training images (see nearest.png)", settings.fold, settings.label
        )
    # A generator draws in float32, in whatever arithmetic it learned.
    step.finish(hardware=hw.record() | {"precision": "float32"}, first=first, count=end - first, suspicious=suspicious)
    return step


def find_generator(storage: Storage, settings: GenerateSettings) -> tuple[str, dict[str, Any]]:
    """Return prefix and manifest of the generator of this class, else of the class-conditional one."""
    for place in (settings.label, keys.CLASS_CONDITIONAL):
        prefix = keys.gan(settings.run, settings.fold, place)
        manifest = read_manifest(storage, prefix)
        if manifest:
            return prefix, manifest
    raise UserError(
        f"no finished generator in {keys.gan(settings.run, settings.fold, settings.label)}: run train-gan first"
    )


def read_generator(storage: Storage, prefix: str, manifest: dict[str, Any]) -> "tuple[keras.Model, GanConfig]":
    """Return the generator and its configuration. Raises MachineError if the file is not the one that was written."""
    from jobs.gan import networks

    return networks.load_generator(read_output(storage, prefix, manifest, GENERATOR))


def draw(
    generator: "keras.Model", config: "GanConfig", settings: GenerateSettings, numbers: range
) -> "Iterator[tuple[int, np.ndarray]]":
    """Yield (number, image) for each of the consecutive `numbers`; an image is uint8 [size, size]."""
    from jobs.gan import networks
    from jobs.gan.bending import NODES, bend

    seed, label = settings.seed, config.labels.index(settings.label)
    for block in range(numbers.start // BLOCK * BLOCK, numbers.stop, BLOCK):
        within = range(block, block + BLOCK)
        with metrics.gpu_use():
            images = networks.sample(generator, latents(seed, within, config.latent), label)
        for number, image in zip(within, networks.to_uint8(images[..., 0]), strict=True):
            if number not in numbers:
                continue
            if settings.synthetic_bend:
                normal = _stream(seed, "bends", number).standard_normal((2, NODES, NODES))
                image = bend(image, settings.synthetic_bend * normal)
            yield number, image


def latents(seed: int, numbers: range, length: int) -> "np.ndarray":
    """Return float32 [len(numbers), length], standard normal; a row depends on `seed` and its number alone."""
    import numpy as np

    return np.stack([_stream(seed, "latents", number).standard_normal(length, np.float32) for number in numbers])


def _stream(seed: int, purpose: str, number: int) -> "np.random.Generator":
    """Return an image's own randomness."""
    import numpy as np

    # The counter's highest word is the image's number: streams that never meet.
    return np.random.Generator(np.random.Philox(key=derive(seed, purpose), counter=[0, 0, 0, number]))


def judge(
    judges: "Features",
    generated: "np.ndarray",
    dataset: "Dataset",
    training: "Sequence[Row]",
    held_out: "Sequence[Row]",
    seed: int,
) -> "tuple[dict[str, Any], np.ndarray]":
    """Return what quality.json says of `generated`, uint8 [n, size, size], and the images of nearest.png.

    That is: what jobs.gan.quality.compare returns; `memorization`, what jobs.gan.nearest.memorization returns and
    `near_duplicates`: {generated, real}, the share of the first ALIGNED generated and held-out images that the search
    for near-duplicates takes for a training image (null under ALIGNED_SIZE pixels), whereby more than SUSPICIOUS are
    suspicious too; and `nearest`, for each image shown: training (id), mirrored, distance [gray levels].
    """
    import numpy as np

    from jobs.gan import nearest, quality

    def some(rows: "Sequence[Row]", purpose: str) -> "list[Row]":
        return [rows[number] for number in quality.subset(len(rows), derive(seed, "judged", purpose))]

    reference = some(held_out, "held-out")
    reals = dataset.pixels(reference)
    found = quality.compare(judges, generated, dataset.pixels(some(training, "training")), reals, seed)

    def every_training_image() -> "Iterator[np.ndarray]":
        for start in range(0, len(training), READ):
            yield dataset.pixels(training[start : start + READ])

    groups = [row.group for row in reference]
    # Both at once, so that all training images are read only once.
    near = nearest.nearest(np.concatenate([generated, reals]), every_training_image())
    ours = nearest.Nearest(*(values[: len(generated)] for values in near))
    theirs = nearest.Nearest(*(values[len(generated) :] for values in near))
    found["memorization"] = nearest.memorization(
        (ours, nearest.nearest(generated, [reals])), (theirs, nearest.nearest(reals, [reals], groups, groups))
    )
    shares = _near_duplicates(generated, reals, dataset, training)
    found["memorization"]["near_duplicates"] = shares
    if shares["generated"] is not None and shares["generated"] > nearest.SUSPICIOUS:
        found["memorization"]["suspicious"] = True
    shown = generated[:SHOWN]
    rows = [training[index] for index in ours.number[:SHOWN]]
    found["nearest"] = [
        {"training": row.id, "mirrored": bool(mirrored), "distance": round(float(distance), 3)}
        for row, mirrored, distance in zip(rows, ours.mirrored, ours.distance, strict=False)
    ]
    beside = dataset.pixels(rows)
    mirrored = ours.mirrored[:SHOWN]
    beside[mirrored] = beside[mirrored][:, :, ::-1]
    return found, _above(shown, beside)


def _near_duplicates(
    generated: "np.ndarray", reals: "np.ndarray", dataset: "Dataset", training: "Sequence[Row]"
) -> dict[str, float | None]:
    """Return the shares of the first ALIGNED generated and real images that repeat a training image (see judge)."""
    import numpy as np

    from jobs.mri.duplicates import describe, picture, repeats

    shares: dict[str, float | None] = {"generated": None, "real": None}
    if dataset.image_size < ALIGNED_SIZE:
        return shares

    def load(index: int) -> np.ndarray:
        return picture(dataset.pixels([training[index]])[0])

    descriptors = np.stack([describe(load(index)) for index in range(len(training))])
    for whose, images in (("generated", generated), ("real", reals)):
        if len(images):
            some = np.stack([picture(image) for image in images[:ALIGNED]])
            shares[whose] = round(float(np.mean([bool(same) for same in repeats(some, descriptors, load)])), 4)
    return shares


def _above(upper: "np.ndarray", lower: "np.ndarray") -> "np.ndarray":
    """Return the images of a grid of COLUMNS in which each of `upper` stands above its partner in `lower`."""
    import numpy as np

    lines = []
    for start in range(0, len(upper), COLUMNS):
        for images in (upper, lower):
            line = images[start : start + COLUMNS]
            missing = 0 if len(upper) <= COLUMNS else COLUMNS - len(line)
            lines.append(np.pad(line, ((0, missing), (0, 0), (0, 0))))
    return np.concatenate(lines)


def _weights_digest(path: str) -> str:
    """Return the SHA-256 of the user's feature weights, or the name of our own."""
    return file_digest("--feature-weights", path) if path else "random"


def _delete_others(step: Step, numbers: range) -> None:
    """Delete images that other settings left behind."""
    own = {f"{step.prefix}/{keys.synthetic_image(number)}" for number in numbers}
    for key in step.storage.list(f"{step.prefix}/images"):
        if key not in own:
            step.storage.delete(key)
