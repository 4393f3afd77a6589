"""Planted copies of drawn heads are found; neighbouring slices and other heads do not count as copies."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jobs.mri import duplicates
from jobs.mri.crop import crop_to_head
from jobs.mri.duplicates import describe, near_duplicates, propose, repeats

SIZE = 128
PIXEL = 1.2  # mm
SLICES = (0.0, 5.0, 10.0)  # mm
HEADS = 16
COPIES = 40


def same_picture(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two pictures, each the other's only neighbour, are found to be the same."""
    pictures = np.stack([first, second])
    return near_duplicates(np.stack([describe(one) for one in pictures]), pictures.__getitem__) == [(0, 1)]


@cache
def draw_head(shape: int, tissue: int) -> list[np.ndarray]:
    """Return uint8 [208, 176] at each of SLICES: the outline is drawn from `shape`, what is inside from `tissue`."""
    rng = np.random.default_rng((1, shape))
    half = rng.uniform((80, 62, 75), (92, 72, 90))  # mm: front to back, side to side, up
    level = rng.uniform(-10, 25)
    bone = rng.uniform(3, 7)
    rng = np.random.default_rng((2, tissue))
    y, x = (np.indices((208, 176)) - np.array([104, 88])[:, None, None]) * PIXEL
    layers = round(SLICES[-1] / PIXEL) + 1
    folds = sum(
        weight * _even(ndimage.gaussian_filter(rng.normal(size=(layers + 16, 208, 176)), width / PIXEL)[8:-8])
        for weight, width in ((1.0, 3.0), (0.7, 5.5))
    )
    gray, white, liquid, scalp = [*rng.permutation([110, 165]).tolist(), rng.choice([25, 235]), rng.uniform(120, 255)]
    ventricles = rng.uniform((-15, 5, 0, 18, 5, 14), (5, 11, 8, 30, 10, 28))
    lesion = rng.uniform((-45, -35, 0, 6), (45, 35, 10, 18))
    pictures = []
    for z in SLICES:
        across = np.sqrt(1 - ((level + z) / half[2]) ** 2)
        reach = np.hypot(y / half[0], x / half[1]) / across
        depth = (1 - reach) * half[1] * across  # mm below the skin, nearly
        pattern = folds[round(z / PIXEL)] + np.clip((18 - depth) / 12, -1, 1)
        picture = np.where(pattern > 0, gray, white) + 8.0 * folds[round(z / PIXEL)]
        at_y, at_x, at_z, long, wide, high = ventricles
        tall = np.sqrt(max(0.0, 1 - ((z - at_z) / high) ** 2))
        for side in (-1, 1):
            inside = np.hypot((y - at_y) / long, (x - side * (at_x + abs(y - at_y) / 4)) / wide) < tall
            picture[inside] = liquid
        at_y, at_x, at_z, radius = lesion
        picture[(y - at_y) ** 2 + (x - at_x) ** 2 + (z - at_z) ** 2 < radius**2] = 240
        picture[depth < 6 + bone] = 12
        picture[depth < 6] = scalp
        picture[depth < 0] = 0
        picture = ndimage.gaussian_filter(picture, 0.7) + rng.normal(0, 3, picture.shape)
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    return pictures


def _even(values: np.ndarray) -> np.ndarray:
    return values / values.std()


def change(
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
) -> np.ndarray:
    """Return `picture` as someone else may have stored it; `crop` is the part cut off the head at top and left."""
    image = Image.fromarray(picture)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top, right, bottom = image.point(lambda value: 255 * (value > 30)).getbbox()
    top, left = top + round(crop[0] * (bottom - top)), left + round(crop[1] * (right - left))
    if any(crop):
        image = image.crop((left, top, right, bottom))
    values = contrast * (np.asarray(image) / 255) ** gamma + brightness
    stored = io.BytesIO()
    Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8)).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))


def change_somehow(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return change(
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


def head(shape: int, tissue: int | None = None, slice_number: int = 1) -> np.ndarray:
    return draw_head(shape, shape if tissue is None else tissue)[slice_number]


def test_planted_copies_are_found_among_neighbouring_slices_and_other_heads() -> None:
    rng = np.random.default_rng(0)
    sources = [picture for number in range(HEADS) for picture in draw_head(number, number)]
    copied = rng.choice(len(sources), COPIES, replace=False)
    pictures = [crop_to_head(picture, SIZE) for picture in sources]
    pictures += [crop_to_head(change_somehow(sources[index], rng), SIZE) for index in copied]
    planted = {(int(index), len(sources) + place) for place, index in enumerate(copied)}

    found = near_duplicates(np.stack([describe(picture) for picture in pictures]), pictures.__getitem__)

    assert found == sorted(found)
    assert len(planted & set(found)) >= 0.95 * len(planted)
    assert len(set(found) - planted) <= 0.05 * len(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"angle": 90},
        {"angle": 37},
        {"angle": 180, "mirrored": True},
        {"mirrored": True},
        {"scale": 0.7},
        {"scale": 1.4},
        {"gamma": 0.7},
        {"gamma": 1.5, "contrast": 0.8},
        {"contrast": 0.7, "brightness": 0.1},
        {"quality": 30},
        {"crop": (0.1, 0.1)},
        {"angle": 205, "mirrored": True, "scale": 0.8, "gamma": 1.2, "crop": (0.05, 0.1), "quality": 40},
    ],
    ids=str,
)
def test_a_changed_picture_is_the_same_picture(changes: dict) -> None:
    for number in (0, 1):
        first, second = head(number), change(head(number), **changes)
        assert same_picture(crop_to_head(first, SIZE), crop_to_head(second, SIZE))


def test_what_repeats_another_picture_is_told_at_64_pixels() -> None:
    def coarse(picture: np.ndarray) -> np.ndarray:
        small = Image.fromarray(crop_to_head(picture, 64))
        return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    known = [coarse(head(number)) for number in range(12)]
    changed = [coarse(change(head(number), angle=15, mirrored=True, gamma=1.4)) for number in range(4)]
    new = [coarse(head(number)) for number in range(12, 16)]
    descriptors = np.stack([describe(picture) for picture in known])
    found = repeats(np.stack(changed + new), descriptors, known.__getitem__)
    assert found == [[0], [1], [2], [3], [], [], [], []]


def test_slices_five_millimetres_apart_are_not_the_same_picture() -> None:
    for number in range(8):
        first, second, third = (crop_to_head(picture, SIZE) for picture in draw_head(number, number))
        assert not same_picture(first, second)
        assert not same_picture(second, third)


def test_different_heads_of_one_outline_are_not_the_same_picture() -> None:
    for number in range(8):
        assert not same_picture(crop_to_head(head(number), SIZE), crop_to_head(head(number, number + 100), SIZE))


def test_a_blank_picture_is_like_no_head() -> None:
    picture = crop_to_head(head(0), SIZE)
    for value in (0, 128):
        blank = np.full((SIZE, SIZE), value, np.uint8)
        assert np.isfinite(describe(blank)).all()
        assert not same_picture(picture, blank)
        assert not same_picture(blank, picture)


def test_a_descriptor_stays_when_the_picture_is_turned_or_mirrored_and_is_small() -> None:
    picture = crop_to_head(head(3), SIZE)
    descriptor = describe(picture)
    assert descriptor.dtype == np.float32
    assert descriptor.nbytes <= 1024
    others = [describe(crop_to_head(head(number), SIZE)) for number in range(4, 10)]
    for turned in (np.rot90(picture), np.rot90(picture, 2), picture[:, ::-1], picture.T):
        distance = np.linalg.norm(describe(np.ascontiguousarray(turned)) - descriptor)
        assert distance < 0.2 * min(np.linalg.norm(other - descriptor) for other in others)


@pytest.mark.parametrize(("count", "neighbours"), [(1000, 20), (1000, 1), (130, 129), (70, 500)])
def test_proposals_are_those_of_brute_force(count: int, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", 96)
    monkeypatch.setattr(duplicates, "BLOCK_COLUMNS", 160)
    descriptors = np.random.default_rng(0).random((count, 24)).astype(np.float32)
    centered = descriptors - descriptors.mean(0, dtype=np.float64)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    near = centered @ centered.T
    np.fill_diagonal(near, -np.inf)
    nearest = np.argsort(-near, axis=1)[:, : min(neighbours, count - 1)]
    expected = {(min(i, int(j)), max(i, int(j))) for i in range(count) for j in nearest[i]}
    assert propose(descriptors, neighbours) == sorted(expected)


def test_proposals_among_few_or_equal_pictures() -> None:
    assert propose(np.zeros((0, 4), np.float32)) == []
    assert propose(np.ones((1, 4), np.float32)) == []
    assert propose(np.ones((3, 4), np.float32)) == [(0, 1), (0, 2), (1, 2)]
    assert len(propose(np.ones((50, 4), np.float32), 3)) >= 50 * 3 / 2


def test_a_picture_of_another_size_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"128, 128"):
        describe(np.zeros((64, 64), np.uint8))
