"""Regions grow and shrink as with scipy.ndimage, also at the edges of a picture."""

import numpy as np
import pytest
from scipy import ndimage

from jobs.mri import morphology

SQUARE = np.ones((3, 3), bool)


def regions(seed: int) -> np.ndarray:
    """Return bool [height, width]: spots of any size, some of which touch the edges."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=rng.integers(1, 50, 2)), rng.uniform(0.3, 3))
    return values > np.quantile(values, rng.uniform(0, 1))


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_the_results_are_those_of_scipy(reach: int) -> None:
    for seed in range(40):
        marked = regions(seed)
        for picture in (marked, marked.T, np.ones_like(marked), np.zeros_like(marked)):
            grown, shrunk = (
                work(picture, iterations=reach) for work in (ndimage.binary_dilation, ndimage.binary_erosion)
            )
            shrunk_by_square = ndimage.binary_erosion(picture, SQUARE, iterations=reach)
            expected = {
                "grown": grown,
                "shrunk": shrunk,
                "opened": ndimage.binary_dilation(shrunk, iterations=reach),
                "closed": ndimage.binary_erosion(grown, iterations=reach),
                "shrunk_by_square": shrunk_by_square,
                "opened_by_square": ndimage.binary_dilation(shrunk_by_square, SQUARE, iterations=reach),
            }
            for name, result in expected.items():
                np.testing.assert_array_equal(getattr(morphology, name)(picture, reach), result, name)


def test_holes_are_filled_and_bays_are_not() -> None:
    for seed in range(40):
        marked = regions(seed)
        np.testing.assert_array_equal(morphology.filled(marked), ndimage.binary_fill_holes(marked))
