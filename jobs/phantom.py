"""Draw a data set without licence restrictions: heads with and without a lesion, as input of preprocess.

Writes  <out>/<class>/: PNG and JPEG images, each drawn with its own seed, and typical defects of real collections:
        altered and exact copies, one image under two labels, and unreadable files.
"""

import contextlib
import functools
import io
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from jobs.common import parallel, png, progress
from jobs.common.errors import UserError
from jobs.common.seeds import derive
from jobs.common.storage import open_storage, write_many
from jobs.phantoms.drawing import KINDS, draw_head
from jobs.settings import PhantomSettings

log = logging.getLogger("mrigan.phantom")

PIECE = 100  # files that a process draws at a time: a second
# Changes of the near-duplicates in each class; a small class has fewer.
WAYS = ("rotated", "flipped", "rescaled", "recompressed", "brighter", "cropped")


def run(settings: PhantomSettings) -> None:
    """Draw the data set; the same settings give the same files, byte for byte.

    Raises UserError if the folder contains other files.
    """
    out = open_storage(settings.out)
    files = _plan(settings)
    if Path(settings.out).is_file():
        raise UserError(f"--out: {settings.out} is a file: use a folder")
    if others := sorted(set(out.list("")) - set(files)):
        raise UserError(f"--out: {settings.out} contains other files, such as {others[0]}: use an empty or new folder")
    names = list(files)
    pieces = parallel.pieces(names, PIECE)
    with contextlib.closing(parallel.mapped(partial(_drawn, settings), pieces)) as drawn:
        write_many(out, _told(zip(names, itertools.chain.from_iterable(drawn), strict=True), len(names)))
    log.info("%d files in %s", len(files), settings.out)


def _told(files: Iterable[tuple[str, bytes]], total: int) -> Iterator[tuple[str, bytes]]:
    """Yield the `files`, and report how many of the `total` there were."""
    for done, file in enumerate(files, 1):
        yield file
        progress.tell(done, total)


def _drawn(settings: PhantomSettings, names: Sequence[str]) -> list[bytes]:
    """Return the content of the files with these names."""
    files = _plan(settings)
    return [files[name]() for name in names]


@functools.cache
def _plan(settings: PhantomSettings) -> dict[str, Callable[[], bytes]]:
    """Return the names of the files to write, with functions that return the content."""

    def head(kind: str, number: int | str) -> Callable[[], np.ndarray]:
        return lambda: draw_head(kind, np.random.default_rng(derive(settings.seed, "phantom", kind, number)))

    files: dict[str, Callable[[], bytes]] = {}
    kinds = KINDS[: settings.classes]
    for kind in kinds:
        for number in range(settings.count):
            suffix = "jpg" if number % 2 else "png"
            files[f"{kind}/{kind}-{number:04d}.{suffix}"] = partial(_encoded, head(kind, number), suffix)
        for number, way in enumerate(WAYS[: settings.count // 2]):
            files[f"{kind}/{kind}-copy-of-{number:04d}-{way}.jpg"] = partial(_altered, head(kind, number), way)
        files[f"{kind}/{kind}-copy-of-0000-exact.png"] = files[f"{kind}/{kind}-0000.png"]
    for kind in kinds[:2]:
        files[f"{kind}/in-two-classes.png"] = partial(_encoded, head(kinds[1], "in-two-classes"), "png")
    whole = files[f"{kinds[0]}/{kinds[0]}-0001.jpg"]
    files[f"{kinds[0]}/truncated.jpg"] = lambda: whole()[: len(whole()) // 3]
    files[f"{kinds[0]}/not-an-image.png"] = lambda: b"This is a note that someone gave the name of a picture.\n"
    files[f"{kinds[1]}/blank.png"] = partial(_plain, 200)
    files[f"{kinds[1]}/too-small.png"] = partial(_plain, 20)
    return files


def _encoded(head: Callable[[], np.ndarray], suffix: str, quality: int = 90) -> bytes:
    if suffix == "png":
        return png.encode(head())
    buffer = io.BytesIO()
    Image.fromarray(head()).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _plain(side: int) -> bytes:
    return _encoded(lambda: np.zeros((side, side), np.uint8), "png")


def _altered(head: Callable[[], np.ndarray], way: str) -> bytes:
    """Return a JPEG of a near-duplicate of `head`; `way` is one of WAYS."""
    image = Image.fromarray(head())
    width, height = image.size
    if way == "rotated":
        image = image.rotate(17, Image.Resampling.BICUBIC, expand=True)
    elif way == "flipped":
        image = ImageOps.mirror(image)
    elif way == "rescaled":
        image = image.resize((round(0.7 * width), round(0.7 * height)), Image.Resampling.BICUBIC)
    elif way == "brighter":
        image = image.point(lambda value: min(255, round(1.25 * value + 6)))
    elif way == "cropped":
        image = image.crop((round(0.03 * width), round(0.02 * height), width, height))
    return _encoded(lambda: np.asarray(image), "jpg", 45 if way == "recompressed" else 85)
