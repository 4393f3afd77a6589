"""The points that are measured, and how: a job in a process of its own, on one core."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import planted
from bench.preprocess import DRAWN
from bench.speed.measuring import ENVIRONMENT, ROOT
from jobs.common.errors import MachineError

RUN = "made"
# Of the points of one dimension, the others: the size of the recipe, and few images.
PIXELS, CLASSES, FOLDS = 64, 2, 5
Json = dict[str, Any]
Point = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """The points. The first one of `images`, `drawn`, `synthetic` and `counted` is little more than a job's start.

    Attributes:
        images: drawn heads, without their planted copies; `few` of them where another dimension grows.
        pixels: sides of images; `residual` for ResNet152V2.
        drawn: phantoms; `synthetic`: synthetic images; `counted`: images to predict; `judged`: images of evaluate.
        classes, folds, seeds, networks: of evaluate; preprocess has the classes too.
        batch: of a step; `seconds`: of the steps that are measured, at least.
    """

    images: tuple[int, ...] = (20, 500, 1000, 2000, 4000)
    few: int = 500
    pixels: tuple[int, ...] = (32, 64, 128, 256)
    residual: tuple[int, ...] = (32, 64, 128)
    drawn: tuple[int, ...] = (2, 50, 100, 200)
    synthetic: tuple[int, ...] = (2, 500, 2000, 4000)
    counted: tuple[int, ...] = (2, 100, 200, 400)
    judged: tuple[int, ...] = (40, 400, 1600, 6400)
    classes: tuple[int, ...] = (2, 4, 20)
    folds: tuple[int, ...] = (2, 5, 10)
    seeds: tuple[int, ...] = (1, 2, 4)
    networks: tuple[str, ...] = ("mobilenetv2", "resnet152v2")
    batch: int = 32
    seconds: float = 4.0


# So small that the figures mean nothing: to see that every series runs.
TINY = Sizes(
    images=(20, 25, 30, 35, 40),
    few=30,
    pixels=(32, 64),
    residual=(32, 40),
    drawn=(2, 4, 6),
    synthetic=(2, 4, 6),
    counted=(2, 4, 6),
    judged=(40, 60, 80),
    classes=(2, 4),
    folds=(2, 5),
    seeds=(1, 2),
    batch=2,
    seconds=0.1,
)


@dataclass
class Bench:
    """A folder for all outputs, and what was measured of preprocess so far, by images, pixels and classes."""

    folder: Path
    sizes: Sizes
    prepared: dict[tuple[int, int, int], tuple[str, Point]] = field(default_factory=dict)

    @property
    def storage(self) -> str:
        """Where jobs write."""
        return str(self.folder / "storage")

    def mrigan(self, *words: str, storage: str = "") -> Json:
        """Run a job in a process of its own and return its figures (see bench.scale.launcher)."""
        return measured("-m", "jobs.cli", *words, f"--storage={storage or self.storage}")

    def dataset(self, heads: int, pixels: int = PIXELS, classes: int = CLASSES) -> tuple[str, Point]:
        """Prepare a dataset of so many heads, unless it is there; return its id and the figures of preprocess."""
        asked = (heads, pixels, classes)
        if asked not in self.prepared:
            files = self.files(heads, classes)
            flags = (f"--data={files}", f"--image-size={pixels}", f"--folds={FOLDS}")
            found = self.mrigan("preprocess", *flags)
            id = found["out"].strip().rpartition("/")[2]
            self.prepared[asked] = id, point(len(list(files.glob("*/*"))), found)
        return self.prepared[asked]

    def files(self, heads: int, classes: int) -> Path:
        """Return a folder with heads and planted copies of every tenth, in so many classes of equal size."""
        drawn, folder = DRAWN / str(max(self.sizes.images)), self.folder / f"{heads}-heads-{classes}-classes"
        if not folder.exists():
            for file in sorted(drawn.glob("*/*.jpg")):
                number = int(file.stem.partition("-")[0])
                if number < heads:
                    place = folder / f"class-{number % classes:02}" / file.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, place)
        return folder


def measured(*words: str) -> Json:
    """Return the figures of a Python command, measured in a process of its own. Raises MachineError if it fails."""
    launcher = [sys.executable, "-m", "bench.scale.launcher", sys.executable, *words]
    done = subprocess.run(launcher, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if found.pop("code"):
        raise MachineError(f"{' '.join(words)} failed:\n{found['err'][-3000:]}")
    return found


def point(x: float, found: Json, **more: float) -> Point:
    """Return a point as it is stored."""
    figures = {name: found[name] for name in ("seconds", "cpu", "mib")} | more
    return {"x": x} | {name: round(value, 4) for name, value in figures.items()}


@contextmanager
def one_core() -> Iterator[None]:
    """Let this process and those that it starts use one core, where the system can (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def bench(sizes: Sizes) -> Iterator[Bench]:
    """Yield a Bench whose heads are drawn, on all cores."""
    planted.data_set(DRAWN / str(max(sizes.images)), max(sizes.images))
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder, one_core():
        yield Bench(Path(folder), sizes)
