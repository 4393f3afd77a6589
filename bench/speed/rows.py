"""What is measured, against what, and with which goals. Each row of ROWS returns the figures of one or more lines."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import drawing, planted, preprocess, storage
from bench.speed.measuring import ENVIRONMENT, PEERS, ROOT, Figure, Measured, Side, alternate, speeds
from jobs.common.errors import MachineError
from jobs.settings import GanSettings
from tests import s3_server

STACKED = 8  # DCGANs that are trained together
TORCHVISION = {"mobilenetv2": "mobilenet_v2", "resnet152v2": "resnet152"}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: of each comparison; `few` of those whose rounds are long.
        seconds: of one side in a round, about.
        small, large: pixels.
        width, batch, latent: of the DCGAN that PyTorch trains too.
        narrow: width of the recipe.
        residual: the larger network of classifiers.
        compiling: whether PyTorch may compile.
        matrix: side of the matrices whose product is the machine's roof.
        files: images in S3; `heads`: drawn heads; `predicted`: images to predict; `prepared`: heads for preprocess.
        pipeline: flags of the shortened pipeline; `people`: images of each class that it gets.
    """

    rounds: int = 5
    few: int = 2
    seconds: float = 4.0
    small: int = 64
    large: int = 128
    width: int = 64
    batch: int = 64
    latent: int = 100
    narrow: int = 16
    residual: str = "resnet152v2"
    compiling: bool = True
    matrix: int = 2048
    files: int = 50_000
    heads: int = 400
    predicted: int = 1000
    prepared: int = 3000
    people: int = 60
    pipeline: tuple[str, ...] = (
        *("--folds=2", "--regimes=synthetic,real", "--gan-epochs=60", "--synthetic-count=300", "--healthy=off"),
        *("--classifier-epochs=1", "--classifier-steps-per-epoch=40"),
    )


# So small that the figures mean nothing: to see that every row runs.
TINY = Sizes(
    rounds=2,
    few=1,
    seconds=0.1,
    small=32,
    large=32,
    width=4,
    batch=8,
    latent=8,
    narrow=4,
    residual="mobilenetv2",
    compiling=False,
    matrix=256,
    files=64,
    heads=20,
    predicted=4,
    prepared=30,
    people=8,
    pipeline=(
        *("--folds=2", "--gan-epochs=2", "--gan-width=4", "--synthetic-count=8", "--healthy=off"),
        *("--classifier-epochs=1", "--classifier-steps-per-epoch=2", "--classifier-batch=8", "--resamples=100"),
    ),
)


class Row(NamedTuple):
    """A function that measures, whether it makes sense on a GPU, and whether it needs the environment of PyTorch."""

    measure: Callable[[Sizes], list[Figure]]
    on_gpu: bool = False
    torch: bool = False


# ---- GAN -------------------------------------------------------------------------------------------------------------


def dcgan(sizes: Sizes, image_size: int) -> list[Figure]:
    """Training steps of the plain DCGAN. A step of the large images, at half of the batch, takes twice the time."""
    batch = sizes.batch * sizes.small // image_size
    same = {"image_size": image_size, "width": sizes.width, "batch": batch, "latent": sizes.latent}
    sides = [
        Side("bench.speed.gan:steps", same | {"recipe": False}),
        Side("bench.speed.torch_peers:dcgan_shipped", same, PEERS),
        Side("bench.speed.torch_peers:dcgan_tuned", same | {"compiling": sizes.compiling}, PEERS),
    ]
    ours, shipped, tuned = alternate(sides, sizes.rounds, sizes.seconds)
    work = f"DCGAN, {image_size} px, width {sizes.width}, batch {batch}: training, plain"
    return [
        _ratio(work, "PyTorch, as commonly shipped", ours, shipped, 2.5),
        _ratio(work, f"PyTorch, tuned ({tuned.facts['chosen']})", ours, tuned, 1.2),
    ]


def recipe(sizes: Sizes) -> list[Figure]:
    """Training steps of the recipe's GAN, in whole periods of its penalty."""
    figures = []
    for width in dict.fromkeys((sizes.narrow, sizes.width)):
        given = GanSettings(gan_width=width)
        same = {"image_size": sizes.small, "width": width, "batch": given.gan_batch, "latent": given.latent}
        sides = [Side("bench.speed.gan:steps", same | {"recipe": recipe}) for recipe in (True, False)]
        ours, plain = alternate(sides, sizes.rounds, sizes.seconds, multiple=8)
        work = f"the recipe's GAN, {sizes.small} px, width {width}, batch {given.gan_batch}: training"
        times = [1 / speed for speed in speeds(ours, plain)]
        figures.append(Figure(work, "the plain one", times, "x the time", 1.25, facts=_facts(ours, plain)))
    return figures


def stacked(sizes: Sizes) -> list[Figure]:
    """Several plain DCGANs in one process: steps of all of them."""
    same = {"image_size": sizes.small, "width": sizes.narrow, "batch": GanSettings().gan_batch, "latent": sizes.latent}
    sides = [
        *(Side("bench.speed.stacked:steps", same | {"count": count}) for count in (STACKED, 1)),
        Side("bench.speed.gan:steps", same | {"recipe": False}),
    ]
    together, alone, plain = alternate(sides, sizes.rounds, sizes.seconds, multiple=STACKED)
    work = f"{STACKED} DCGANs in one process, {sizes.small} px, width {sizes.narrow}, batch {same['batch']}: training"
    others = {"one after another, the same code": alone, "one after another, as train-gan": plain}
    return [
        Figure(work, against, speeds(together, other), "x", facts=_facts(together, other))
        for against, other in others.items()
    ]


def generate(sizes: Sizes) -> list[Figure]:
    """Synthetic images, stored."""
    same = {"image_size": sizes.small, "width": sizes.narrow}
    sides = [Side("bench.speed.gan:generated", same), Side("bench.speed.gan:forward", same)]
    ours, bare = alternate(sides, sizes.rounds, sizes.seconds, multiple=32)
    work = f"generate, {sizes.small} px, width {sizes.narrow}: images drawn, bent, encoded and stored"
    return [_ratio(work, "the generator's bare forward pass", ours, bare, 0.9)]


# ---- classifiers -----------------------------------------------------------------------------------------------------


def classifier(sizes: Sizes, network: str) -> list[Figure]:
    """Training steps of a classifier."""
    same = {"image_size": sizes.small, "batch": 32}
    sides = [
        Side("bench.speed.classifier:steps", same | {"network": network}),
        Side("bench.speed.classifier:keras_fit", same | {"network": network}),
    ]
    if PEERS.exists():
        tuned = same | {"network": TORCHVISION[network], "compiling": False}
        sides.append(Side("bench.speed.torch_peers:torchvision_tuned", tuned, PEERS))
    ours, fit, *torchvision = alternate(sides, sizes.rounds, sizes.seconds)
    work = f"{network}, {sizes.small} px, batch 32: training, no augmentation"
    figures = [_ratio(work, "Keras fit of the same network", ours, fit, 2.5)]
    for peer in torchvision:
        figures.append(_ratio(work, f"torchvision's network, tuned ({peer.facts['chosen']})", ours, peer, 1.3))
    return figures


def predict(sizes: Sizes) -> list[Figure]:
    """The job predict, from files to printed probabilities, with the packaged weights."""
    same = {"network": "mobilenetv2", "image_size": 64}
    sides = [
        Side("bench.speed.classifier:predicted", {"files": sizes.predicted}),
        Side("bench.speed.classifier:forward", same),
    ]
    ours, bare = alternate(sides, sizes.rounds, sizes.seconds, steps=sizes.predicted)
    work = f"predict, mobilenetv2, 64 px: {sizes.predicted} files, packaged weights"
    return [_ratio(work, "a bare batched forward pass of all views", ours, bare, 0.8)]


# ---- jobs and storage ------------------------------------------------------------------------------------------------


def pipeline(sizes: Sizes) -> list[Figure]:
    """A shortened pipeline on drawn heads."""
    ratios = []
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder:
        _mrigan("phantom", f"--out={folder}/data", f"--count={sizes.people}")
        flags = (f"--data={folder}/data", f"--image-size={sizes.small}", *sizes.pipeline)
        ways = {"parallel": ("--workers=0", "--threads=1"), "serial": ("--workers=1", "--threads=0")}
        for number in range(sizes.few):
            seconds = {}
            for way in ways if number % 2 else reversed(ways):
                seconds[way] = _mrigan("pipeline", f"--storage={folder}/{way}-{number}", *flags, *ways[way])
            ratios.append(seconds["serial"] / seconds["parallel"])
    work = f"pipeline, {sizes.small} px, 2 folds, shortened: a task on each core"
    return [Figure(work, "one task after another on all threads", ratios, "x", 1.7)]


def preprocessed(sizes: Sizes) -> list[Figure]:
    """The figures of bench/preprocess.py."""
    found = preprocess.measure(sizes.prepared)
    work = f"preprocess, {found['images']} images"
    before = found["read_ms"] + found["rest_ms"]
    figures = [
        Figure(f"{work}: all but the search for near-duplicates, one core", "", [before], "ms", 8),
        Figure(f"{work}: the search for near-duplicates, one core", "", [found["duplicates_ms"]], "ms"),
        Figure(f"{work}: all", "decoding and resizing alone", [found["to_bare"]], "x the time"),
        Figure(f"{work}: planted copies found, with {found['wrong']} wrong pairs", "", [100 * found["found"]], "%"),
    ]
    return figures + (
        hashed(sizes, work, (before + found["duplicates_ms"]) * found["images"] / 1000) if PEERS.exists() else []
    )


def hashed(sizes: Sizes, work: str, ours: float) -> list[Figure]:
    """The same images by imagededup, beside `ours` seconds of a core for this `work`."""
    folder = preprocess.DRAWN / str(sizes.prepared)
    planted_pairs = {tuple(sorted(pair)) for pair in planted.data_set(folder, sizes.prepared)}
    found = json.loads(_run("bench.speed.hashing_peer", str(folder), python=PEERS))
    ratio = ours / found["seconds"]
    figures = [Figure(f"{work}: all", "imagededup, PHash: hashes and pairs", [ratio], "x the time")]
    for bits, pairs in found["pairs"].items():
        right = len(planted_pairs & set(map(tuple, pairs)))
        wrong = len(pairs) - right
        share = 100 * right / len(planted_pairs)
        said = f"imagededup, PHash, up to {bits} bits apart: planted copies found, with {wrong} wrong pairs"
        figures.append(Figure(said, "", [share], "%"))
    return figures


def phantoms(sizes: Sizes) -> list[Figure]:
    """The figures of bench/drawing.py."""
    found = drawing.measure(sizes.heads, sizes.rounds)["works"]["phantoms, cropped"]
    return [
        Figure("drawing a phantom, one core", "a Gaussian blur of 256 px, sigma 10", found["blurs"], "x the time"),
        Figure("drawing a phantom, one core", "", found["one_core_ms"], "ms"),
        Figure("drawing a phantom, all cores", "", found["all_cores_ms"], "ms"),
    ]


def shards(sizes: Sizes) -> list[Figure]:
    """The figures of bench/storage.py."""
    with (
        tempfile.TemporaryDirectory(prefix="mrigan-") as folder,
        s3_server.running(Path(folder), volumes=400) as server,
    ):
        found = storage.measure(server, sizes.files, sizes.large, sizes.rounds)
    figures, work = [], f"S3, {sizes.files} images of {sizes.large} px"
    for kind in ("write", "read"):
        ratios = [bare / ours for ours, bare in zip(found[kind]["seconds"], found[kind]["bare_seconds"], strict=True)]
        figures.append(Figure(f"{work}: {kind}", "a bare copy of the same bytes", ratios, "x", 0.8))
    shares = [a / b for a, b in zip(found["digests"], found["read"]["bare_seconds"], strict=True)]
    alone = f"{work}: SHA-256 of the bytes alone, one core"
    return [*figures, Figure(alone, "a bare copy to here", shares, "x the time")]


def first_step(sizes: Sizes) -> list[Figure]:
    """A job in a new process, on a dataset that is there."""
    whole: dict[str, list[float]] = {"gan": [], "classifier": []}
    traced: dict[str, list[float]] = {"gan": [], "classifier": []}
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder:
        _run("jobs.cli", "phantom", f"--out={folder}/data", "--count=20")
        read = ("preprocess", f"--data={folder}/data", f"--image-size={sizes.small}", "--folds=2")
        dataset = _run("jobs.cli", *read, f"--storage={folder}/out").strip().rpartition("/")[2]
        place = (f"--storage={folder}/out", f"--dataset={dataset}", "--run=r", "--fold=0")
        jobs = {
            "gan": ("train-gan", f"--gan-width={sizes.narrow}"),
            "classifier": ("train-classifier", f"--network={sizes.residual}", "--healthy=off"),
        }
        for _ in range(sizes.rounds):
            for name, (job, *flags) in jobs.items():
                began = time.perf_counter()
                traced[name].append(float(_run("bench.speed.first_step", job, *place, *flags)))
                whole[name].append(time.perf_counter() - began)
    gan, network = f"a GAN, {sizes.small} px", f"{sizes.residual}, {sizes.small} px"
    return [
        Figure(f"from the start of the process to the first step of {gan}", "", whole["gan"], "s", 8),
        Figure(f"building and tracing {network}, and the first step", "", traced["classifier"], "s", 20),
        Figure(f"from the start of the process to the first step of {network}", "", whole["classifier"], "s"),
    ]


def roofs(sizes: Sizes) -> dict[str, Any]:
    """Return the device, and the floating-point operations per second of matrix products by precision, medians."""
    sides = {
        precision: Side("bench.speed.arithmetic:roof", {"precision": precision, "size": sizes.matrix})
        for precision in ("float32", "bfloat16")
    }
    measured = alternate(list(sides.values()), sizes.rounds, sizes.seconds / 4)
    roof = {
        precision: Figure("", "", [one.facts["flops"] / seconds for seconds in one.seconds], "").median
        for precision, one in zip(sides, measured, strict=True)
    }
    return {"kind": measured[0].facts["kind"], "device": measured[0].facts["device"], "roof": roof}


ROWS: dict[str, Row] = {
    "gan-64": Row(lambda sizes: dcgan(sizes, sizes.small), on_gpu=True, torch=True),
    "gan-128": Row(lambda sizes: dcgan(sizes, sizes.large), on_gpu=True, torch=True),
    "recipe": Row(recipe, on_gpu=True),
    "stacked": Row(stacked, on_gpu=True),
    "mobilenetv2": Row(lambda sizes: classifier(sizes, "mobilenetv2"), on_gpu=True),
    "resnet152v2": Row(lambda sizes: classifier(sizes, sizes.residual), on_gpu=True),
    "pipeline": Row(pipeline),
    "preprocess": Row(preprocessed),
    "phantoms": Row(phantoms),
    "generate": Row(generate, on_gpu=True),
    "storage": Row(shards),
    "predict": Row(lambda sizes: predict(replace(sizes, rounds=sizes.few)), on_gpu=True),
    "first-step": Row(lambda sizes: first_step(replace(sizes, rounds=sizes.few + 1)), on_gpu=True),
}


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _ratio(work: str, against: str, ours: Measured, theirs: Measured, goal: float) -> Figure:
    """Return the ratio of speeds, and what share of the machine our side uses."""
    figure = Figure(work, against, speeds(ours, theirs), "x", goal, facts=_facts(ours, theirs))
    if "flops" not in ours.facts:
        return figure
    seconds = Figure("", "", ours.seconds, "s").median
    return replace(figure, flops=ours.facts["flops"] / seconds, precision=ours.facts["precision"])


def _facts(ours: Measured, theirs: Measured) -> dict[str, Any]:
    return {"ours": ours.facts | {"seconds": ours.seconds}, "theirs": theirs.facts | {"seconds": theirs.seconds}}


def _environment() -> dict[str, str]:
    return dict(os.environ) | ENVIRONMENT


def _run(module: str, *arguments: str, python: Path = Path(sys.executable)) -> str:
    """Return what a command printed. Raises MachineError if it fails."""
    command = [str(python), "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"{' '.join(arguments)} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _mrigan(*arguments: str) -> float:
    """Return the seconds of a command of mrigan."""
    began = time.perf_counter()
    _run("jobs.cli", *arguments)
    return time.perf_counter() - began
