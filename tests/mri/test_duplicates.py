"""Planted copies of drawn heads are found; neighbouring slices and other heads do not count as copies."""

import io
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bench import planted
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
    return pairs_among(pictures) == [(0, 1)]


def pairs_among(pictures: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    described = np.stack([describe(picture) for picture in pictures])
    return near_duplicates(described["descriptors"], described["sketch"].__getitem__, pictures.__getitem__)


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


def change(picture: np.ndarray, **changes: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(planted.changed(picture, **changes))))


def change_somehow(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(planted.changed_somehow(picture, rng))))


def head(shape: int, tissue: int | None = None, slice_number: int = 1) -> np.ndarray:
    return draw_head(shape, shape if tissue is None else tissue)[slice_number]


def test_planted_copies_are_found_among_neighbouring_slices_and_other_heads() -> None:
    rng = np.random.default_rng(0)
    sources = [picture for number in range(HEADS) for picture in draw_head(number, number)]
    copied = rng.choice(len(sources), COPIES, replace=False)
    pictures = [crop_to_head(picture, SIZE) for picture in sources]
    pictures += [crop_to_head(change_somehow(sources[index], rng), SIZE) for index in copied]
    copies = {(int(index), len(sources) + place) for place, index in enumerate(copied)}

    found = pairs_among(pictures)

    assert found == sorted(found)
    assert len(copies & set(found)) >= 0.98 * len(copies)
    assert set(found) <= copies


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
    descriptions = np.stack([describe(picture) for picture in known])
    found = repeats(np.stack(changed + new), descriptions, known.__getitem__)
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
        assert np.isfinite(describe(blank)["descriptors"]).all()
        assert not same_picture(picture, blank)
        assert not same_picture(blank, picture)


def test_descriptors_stay_when_the_picture_is_turned_or_mirrored_and_are_small() -> None:
    picture = crop_to_head(head(3), SIZE)
    described = describe(picture)
    assert described.nbytes <= SIZE * SIZE
    others = [describe(crop_to_head(head(number), SIZE)) for number in range(4, 10)]
    for turned in (np.rot90(picture), np.rot90(picture, 2), picture[:, ::-1], picture.T):
        distance = distances(describe(np.ascontiguousarray(turned)), described)
        assert (distance < 0.2 * np.min([distances(other, described) for other in others], axis=0)).all()


def distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one["descriptors"] - two["descriptors"], axis=1)


def test_the_second_descriptor_stays_when_a_part_of_the_head_is_cut_off() -> None:
    for number in range(4):
        whole, cut = (describe(crop_to_head(change(head(number), crop=crop), SIZE)) for crop in ((0, 0), (0.1, 0.1)))
        first, second = distances(whole, cut)
        assert second < 0.8 * first


@pytest.mark.parametrize(("count", "neighbours"), [(1000, 20), (1000, 1), (130, 129), (70, 500)])
def test_proposals_are_those_of_brute_force(count: int, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", 96)
    monkeypatch.setattr(duplicates, "BLOCK_COLUMNS", 160)
    descriptors = np.random.default_rng(0).random((count, 2, 24)).astype(np.float32)
    centered = descriptors - descriptors.mean(0, dtype=np.float64)
    centered /= np.linalg.norm(centered, axis=2, keepdims=True)
    near = np.einsum("ikd,jkd->kij", centered, centered).max(0)
    np.fill_diagonal(near, -np.inf)
    nearest = np.argsort(-near, axis=1)[:, : min(neighbours, count - 1)]
    expected = {(min(i, int(j)), max(i, int(j))) for i in range(count) for j in nearest[i]}
    assert list(map(tuple, propose(descriptors, neighbours).tolist())) == sorted(expected)


def test_proposals_among_few_or_equal_pictures() -> None:
    assert propose(np.zeros((0, 2, 4), np.float32)).tolist() == []
    assert propose(np.ones((1, 2, 4), np.float32)).tolist() == []
    assert propose(np.ones((3, 2, 4), np.float32)).tolist() == [[0, 1], [0, 2], [1, 2]]
    assert len(propose(np.ones((50, 2, 4), np.float32), 3)) >= 50 * 3 / 2


def test_many_pairs_are_tested_in_processes_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [crop_to_head(head(number), SIZE) for number in range(6)]
    pictures += [crop_to_head(change(head(number), angle=40, crop=(0.05, 0.05)), SIZE) for number in range(6)]
    found = pairs_among(pictures)
    monkeypatch.setattr(duplicates, "SCREENED", 5)
    monkeypatch.setattr(duplicates, "ALIGNED", 2)
    assert pairs_among(pictures) == found == [(number, number + 6) for number in range(6)]


def test_a_picture_of_another_size_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"128, 128"):
        describe(np.zeros((64, 64), np.uint8))


SEARCH = """
import resource
import numpy as np
from jobs.mri.duplicates import propose

descriptors = np.random.default_rng(0).standard_normal((10_000, 2, 32), np.float32)
descriptors[5_000:] = descriptors[:5_000]
propose(descriptors[:100])  # the libraries get their own memory first
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**28, used + 2**28))
print(len({(i, i + 5_000) for i in range(5_000)} & set(map(tuple, propose(descriptors).tolist()))))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_the_search_needs_less_memory_than_the_similarity_of_all_pairs() -> None:
    # 256 MiB; the similarities of all pairs alone are 382 MiB.
    done = subprocess.run([sys.executable, "-c", SEARCH], capture_output=True, text=True, check=False)
    assert done.stdout == "5000\n", done.stderr
