"""What is measured: each function of SERIES yields the points of one job or more, a series for each dimension."""

import functools
from collections.abc import Callable, Iterable, Iterator

from bench.scale import made
from bench.scale.growth import Series
from bench.scale.points import CLASSES, FOLDS, PIXELS, RUN, Bench, Json, Point, measured, point
from jobs.common.storage import open_storage
from tests import fake_run

# ---- whole jobs ------------------------------------------------------------------------------------------------------


def preprocess(bench: Bench) -> Iterator[Series]:
    """Drawn heads, a tenth of which have a copy."""
    sizes = bench.sizes
    images = [bench.dataset(heads)[1] for heads in sizes.images]
    base = {"images": bench.dataset(sizes.few)[1]["x"], "pixels": PIXELS, "classes": CLASSES}
    yield Series("preprocess", "images", base, images)
    sides = [bench.dataset(sizes.few, pixels)[1] | {"x": pixels} for pixels in sizes.pixels]
    yield Series("preprocess", "pixels", base, sides)
    classes = [bench.dataset(sizes.few, PIXELS, classes)[1] | {"x": classes} for classes in sizes.classes]
    yield Series("preprocess", "classes", base, classes)


def phantoms(bench: Bench) -> Iterator[Series]:
    """Phantoms that classifiers learn."""
    sizes, few = bench.sizes, bench.sizes.drawn[-2]
    base = {"count": few, "pixels": PIXELS}

    @functools.cache
    def drawn(count: int, pixels: int) -> Json:
        flags = (f"--phantoms={count}", f"--image-size={pixels}")
        return bench.mrigan("draw-phantoms", *flags, storage=str(bench.folder / f"{count}-of-{pixels}"))

    counts = [point(count, drawn(count, PIXELS)) for count in sizes.drawn]
    yield Series("draw-phantoms", "count", base, counts)
    yield Series("draw-phantoms", "pixels", base, [point(pixels, drawn(few, pixels)) for pixels in sizes.pixels])


def training_images(bench: Bench) -> Iterator[Series]:
    """Whole trainings of a step for a classifier and of an epoch for a GAN: mostly for their memory."""
    base = {"pixels": PIXELS, "classes": CLASSES}
    for job, flags in (
        ("train-gan", ("--gan-epochs=1",)),
        ("train-classifier", ("--healthy=off", "--classifier-epochs=1", "--classifier-steps-per-epoch=1")),
    ):
        points = []
        for heads in bench.sizes.images[::2]:
            dataset, prepared = bench.dataset(heads)
            where = (f"--dataset={dataset}", f"--run=of-{heads}", "--fold=0")
            points.append(point(prepared["x"], bench.mrigan(job, *where, *flags)))
        yield Series(job, "images", base, points)


def generate(bench: Bench) -> Iterator[Series]:
    """Synthetic images of one class, drawn, stored and judged, by a generator without training."""
    sizes, some = bench.sizes, bench.sizes.synthetic[-2]
    base = {"count": some, "pixels": PIXELS, "images": bench.dataset(sizes.few)[1]["x"]}

    @functools.cache
    def generated(count: int, heads: int, pixels: int) -> Json:
        dataset, _ = bench.dataset(heads, pixels)
        run = f"{RUN}-{count}-{heads}-{pixels}"
        made.write_generator(bench.storage, dataset, ("class-00", "class-01"), pixels, run)
        where = (f"--dataset={dataset}", f"--run={run}", "--fold=0", "--label=class-00", f"--synthetic-count={count}")
        return bench.mrigan("generate", *where)

    counts = [point(count, generated(count, sizes.few, PIXELS)) for count in sizes.synthetic]
    yield Series("generate", "count", base, counts)
    sides = [point(pixels, generated(some, sizes.few, pixels)) for pixels in sizes.pixels]
    yield Series("generate", "pixels", base, sides)
    images = [point(bench.dataset(heads)[1]["x"], generated(some, heads, PIXELS)) for heads in sizes.images[1:]]
    yield Series("generate", "images", base, images)


def evaluate(bench: Bench) -> Iterator[Series]:
    """Made-up predictions: three regimes of one network. promote then makes the run its first champion."""
    sizes = bench.sizes
    base = {"images": sizes.judged[1], "classes": CLASSES, "folds": FOLDS, "seeds": 1, "networks": 1}
    run = (f"--dataset={fake_run.DATASET}", f"--run={fake_run.RUN}")

    @functools.cache
    def evaluated(images: int, classes: int, folds: int, seeds: int, networks: int) -> tuple[str, Json]:
        where = str(bench.folder / f"evaluate-{images}-{classes}-{folds}-{seeds}-{networks}")
        labels, names = [f"class-{number:02}" for number in range(classes)], sizes.networks[:networks]
        fake_run.make(open_storage(where), labels, images=images // classes, folds=folds, seeds=seeds, networks=names)
        return where, bench.mrigan("evaluate", *run, f"--seeds={seeds}", f"--networks={','.join(names)}", storage=where)

    def along(dimension: str, values: Iterable[int]) -> list[Point]:
        return [point(value, evaluated(**base | {dimension: value})[1]) for value in values]

    yield Series("evaluate", "images", base, along("images", sizes.judged))
    for dimension in ("classes", "folds", "seeds"):
        yield Series("evaluate", dimension, base, along(dimension, getattr(sizes, dimension)))
    yield Series("evaluate", "networks", base, along("networks", range(1, len(sizes.networks) + 1)))
    places = {count: evaluated(**base | {"images": count})[0] for count in sizes.judged}
    promoted = [
        point(count, bench.mrigan("promote", *run, f"--name={made.NAME}", storage=place))
        for count, place in places.items()
    ]
    yield Series("promote", "images", {}, promoted)


def predict(bench: Bench) -> Iterator[Series]:
    """Files of one person after another, by a champion of one MobileNetV2 without training."""
    sizes, some = bench.sizes, bench.sizes.counted[-2]
    base = {"count": some, "pixels": PIXELS}
    files = sorted(bench.files(sizes.few, CLASSES).glob("*/*.jpg"))

    @functools.cache
    def predicted(count: int, pixels: int) -> Json:
        where = str(bench.folder / f"champion-{pixels}")
        made.write_champion(where, pixels)
        images = [str(files[number % len(files)]) for number in range(count)]
        return bench.mrigan("predict", f"--name={made.NAME}", "--format=csv", *images, storage=where)

    counts = [point(count, predicted(count, PIXELS)) for count in sizes.counted]
    yield Series("predict", "count", base, counts)
    yield Series("predict", "pixels", base, [point(pixels, predicted(some, pixels)) for pixels in sizes.pixels])


# ---- steps of training -----------------------------------------------------------------------------------------------


def steps(bench: Bench) -> Iterator[Series]:
    """Steps of the recipe's GAN, and of both networks of classifiers with augmentation."""
    sizes = bench.sizes
    for network, job, sides in (
        ("gan", "train-gan step", sizes.pixels),
        ("mobilenetv2", "mobilenetv2 step", sizes.pixels),
        ("resnet152v2", "resnet152v2 step", sizes.residual),
    ):
        points = []
        for pixels in sides:
            asked = (network, str(pixels), str(sizes.batch), str(sizes.seconds))
            found = measured("-m", "bench.scale.steps", *asked)
            seconds, taken = (float(word) for word in found["out"].split()[-2:])
            start = max(0.0, found["seconds"] - seconds * taken)
            one = {"seconds": seconds, "cpu": seconds * found["cpu"] / found["seconds"], "mib": found["mib"]}
            points.append(point(pixels, one, start=start))
        yield Series(job, "pixels", {}, points, unit="step")


SERIES: dict[str, Callable[[Bench], Iterator[Series]]] = {
    "preprocess": preprocess,
    "draw-phantoms": phantoms,
    "training": training_images,
    "generate": generate,
    "evaluate": evaluate,
    "predict": predict,
    "steps": steps,
}
