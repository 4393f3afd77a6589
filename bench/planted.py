"""Draws data sets of any size with planted copies: heads of two classes, some of them stored again with changes."""

import io
import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.common.machine import usable_cores
from jobs.phantoms.drawing import draw_head

CLASSES = ("healthy", "lesion")
COPIED = 10  # every so many-th head has a copy


def data_set(folder: Path, heads: int) -> list[tuple[str, str]]:
    """Draw `heads` heads and the copies below `folder`, unless they are there; return the planted pairs of paths.

    A head and its copy have one class. The same number of heads gives the same files.
    """
    names = [f"{CLASSES[number % 2]}/{number:06d}" for number in range(heads)]
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        for _ in pool.imap_unordered(partial(_draw, folder), enumerate(names), 16):
            pass
    return [(f"{name}.jpg", f"{name}-copy.jpg") for name in names[::COPIED]]


def _draw(folder: Path, item: tuple[int, str]) -> None:
    number, name = item
    path = folder / f"{name}.jpg"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((2026, number))
    head = draw_head(CLASSES[number % 2], rng)
    if number % COPIED == 0:
        path.with_name(f"{path.stem}-copy.jpg").write_bytes(changed_somehow(head, rng))
    path.write_bytes(_jpeg(head, 90))


def changed_somehow(picture: np.ndarray, rng: np.random.Generator) -> bytes:
    """Return a JPEG of `picture`, uint8 [height, width], with random changes; see `changed`."""
    return changed(
        picture,
        angle=rng.uniform(0, 360),
        mirrored=rng.random() < 0.5,
        scale=rng.uniform(0.7, 1.4),
        gamma=rng.uniform(0.7, 1.4),
        contrast=rng.uniform(0.8, 1.2),
        brightness=rng.uniform(-0.05, 0.05),
        crop=tuple(rng.uniform(0, 0.1, 2)) if rng.random() < 0.5 else (0, 0),
        quality=int(rng.integers(30, 96)),
    )


def changed(
    picture: np.ndarray,
    *,
    angle: float = 0,
    mirrored: bool = False,
    scale: float = 1,
    gamma: float = 1,
    contrast: float = 1,
    brightness: float = 0,
    crop: tuple[float, float] = (0, 0),
    quality: int = 95,
) -> bytes:
    """Return a JPEG of `picture`, uint8 [height, width], as someone else may have stored it.

    `angle` is in degrees; `contrast` and `brightness` change gray values of 0 to 1; `crop` is the part of the head that
    is cut off at top and left, `quality` that of the JPEG.
    """
    image = Image.fromarray(picture)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    box = image.point(lambda value: 255 * (value > 30)).getbbox()
    left, top, right, bottom = box or (0, 0, *image.size)
    top, left = top + round(crop[0] * (bottom - top)), left + round(crop[1] * (right - left))
    if any(crop):
        image = image.crop((left, top, right, bottom))
    values = contrast * (np.asarray(image) / 255) ** gamma + brightness
    return _jpeg((255 * np.clip(values, 0, 1)).astype(np.uint8), quality)


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=quality)
    return stored.getvalue()
