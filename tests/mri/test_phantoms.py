"""Phantoms to learn from: the same ones every time, half of them with a lesion, no two alike."""

import numpy as np
import pytest

from jobs.common.storage import open_storage
from jobs.mri import phantoms
from jobs.mri.randomized import draw_randomized


def test_phantoms_are_the_same_every_time_and_more_begin_with_the_same(tmp_path) -> None:
    few, lesions = phantoms.read(phantoms.make(open_storage(str(tmp_path)), 32, 4))
    more, _ = phantoms.read(phantoms.make(open_storage(str(tmp_path)), 32, 6))
    assert (few.shape, few.dtype) == ((4, 32, 32), np.uint8)
    assert lesions.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(more[:4], few)
    assert phantoms.make(open_storage(str(tmp_path)), 32, 4).reused
    assert len(np.unique(more.reshape(6, -1), axis=0)) == 6


@pytest.fixture(scope="module")
def pairs() -> list[np.ndarray]:
    """Each [2, height, width]: the same head without and with lesions."""
    return [
        np.stack([draw_randomized(lesion, np.random.default_rng(seed)) for lesion in (False, True)]).astype(float)
        for seed in range(24)
    ]


def test_lesions_stand_out_and_leave_the_rest_as_it_is(pairs: list[np.ndarray]) -> None:
    changed = np.array([(np.abs(lesion - healthy) > 25).mean() for healthy, lesion in pairs])
    assert changed.min() > 0.002 and changed.max() < 0.4
    for healthy, lesion in pairs:
        rows, columns = np.nonzero(healthy != lesion)
        margin = np.array(healthy.shape) // 20
        assert (margin < (rows.min(), columns.min())).all() and len(rows) < 0.6 * healthy.size


def test_heads_are_of_many_gray_values(pairs: list[np.ndarray]) -> None:
    middles = [np.median(healthy[80:-80, 60:-60]) for healthy, _ in pairs]
    assert max(middles) - min(middles) > 100
