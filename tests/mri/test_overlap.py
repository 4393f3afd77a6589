"""The overlap of two datasets, compared with an exhaustive search."""

import numpy as np
import pytest

from jobs.mri import overlap
from jobs.mri.dataset import Dataset, Row


def rows(rng: np.random.Generator, ids: list[int], groups: int) -> list[Row]:
    return [Row(str(id), "", "a", str(rng.integers(groups)), int(rng.integers(3)), "PNG", 1, 64, 64, 0.0) for id in ids]


@pytest.mark.parametrize("seed", range(5))
def test_a_group_has_the_folds_of_all_that_is_known_of_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    mine, others = rows(rng, list(range(30)), 12), rows(rng, list(range(20, 45)), 10)
    copies = {(row.id, other.id) for row in mine for other in others if row.id != other.id and rng.random() < 0.02}
    monkeypatch.setattr(Dataset, "pixels", lambda self, rows: np.array([[[int(row.id)]] for row in rows], np.uint8))
    monkeypatch.setattr(overlap, "for_comparison", lambda image: image)
    monkeypatch.setattr(overlap, "describe", lambda image: image.ravel())

    def repeats(pictures: np.ndarray, descriptors: np.ndarray, load: object) -> list[list[int]]:
        known = [str(int(one[0])) for one in descriptors]
        return [[place for place, id in enumerate(known) if (str(one.item()), id) in copies] for one in pictures]

    monkeypatch.setattr(overlap, "repeats", repeats)
    dataset, other = (Dataset(None, "d", {}, these, ("a",), 1, 3) for these in (mine, others))  # type: ignore[arg-type]

    new = {row.id for row in mine} - {row.id for row in others}
    expected = {}
    for row in mine:
        group = {one.id for one in mine if one.group == row.group}
        expected[row.id] = {
            one.fold
            for one in others
            if one.id in group or any((member, one.id) in copies for member in group if member in new)
        }
    assert overlap.folds_of_kin(dataset, other) == expected
    assert len({len(folds) for folds in expected.values()}) > 1


def test_images_keep_their_bytes_at_their_own_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    assert overlap.resized(images, 64) is images
    small = overlap.resized(images, 32)
    assert (small.shape, small.dtype) == ((3, 32, 32), np.uint8)
    assert small.mean() == pytest.approx(images.mean(), abs=1)
