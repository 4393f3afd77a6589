"""Noise and blur against SciPy's filters, and shapes in a box against the same shapes in the whole picture."""

import numpy as np
import pytest
from scipy import ndimage

from jobs.phantoms import painting

SHAPE = (211, 180)


@pytest.mark.parametrize("grain", [2, 3.3, 7, 18, 40])
def test_noise_is_white_noise_after_a_periodic_gaussian_filter(grain: float) -> None:
    white = np.random.default_rng(1).standard_normal(SHAPE)
    smooth = ndimage.gaussian_filter(white, grain, mode="wrap", truncate=6)
    found = painting.noise(SHAPE, grain, np.random.default_rng(1))
    assert found.dtype == np.float32
    assert found.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, smooth / smooth.std(), atol=2e-3)


def test_blurs_are_gaussian_filters_one_after_the_other() -> None:
    image = np.random.default_rng(2).random(SHAPE).astype(np.float32)
    for sigmas in ((0.6,), (1.1, 0.7), (0.05, 0.5), (2,)):
        expected = image
        for sigma in sigmas:
            expected = ndimage.gaussian_filter(expected, sigma)
        np.testing.assert_allclose(painting.blurred(image, *sigmas), expected, atol=1e-5)


def test_ellipses_are_painted_as_far_as_they_reach() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        plane, distance = painting.coordinates(rng)
        warp = 0.04 * painting.noise(distance.shape, 20, rng)
        plane = painting.Plane(plane.x + warp, plane.y - warp)
        inside = distance < 0.9
        shapes = [
            (*rng.uniform(-1.1, 1.1, 2).tolist(), *rng.uniform(0.005, 0.4, 2).tolist(), rng.uniform(0, 3))
            for _ in range(rng.integers(1, 3))
        ]
        found, expected = np.zeros_like(distance), np.zeros_like(distance)
        painting.paint_ellipses(found, 0.7, plane, shapes, inside)
        whole = np.max([painting.ellipse(plane.x, plane.y, *shape) for shape in shapes], axis=0)
        painting.paint(expected, 0.7, np.where(inside, whole, np.float32(-1)))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_distance_is_positive_inside_of_a_turned_ellipse() -> None:
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.linspace(-1, 1, 201), np.linspace(-1, 1, 201)))
    distance = painting.ellipse(x, y, 0.1, -0.2, 0.5, 0.25, np.pi / 6)
    along = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    for share, sign in ((0.0, 1), (0.95, 1), (1.05, -1)):
        for axis, half in ((along, 0.5), (along[::-1] * (-1, 1), 0.25)):
            column, row = np.rint(100 + 100 * (np.array([0.1, -0.2]) + share * half * axis)).astype(int)
            assert np.sign(distance[row, column]) == sign
    assert distance.max() == pytest.approx(0.25, abs=0.01)


def test_a_fissure_is_painted_as_far_as_it_reaches() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        plane, distance = painting.coordinates(rng)
        brain, phase, half, gap = 0.95 - distance, rng.uniform(0, 6), rng.uniform(0.002, 0.012), rng.uniform(0, 0.45)
        found, expected = np.zeros_like(distance), np.zeros_like(distance)
        painting.paint_fissure(found, 1.0, plane, brain, half, phase, gap)
        middle = np.abs(plane.x + 0.012 * np.sin(5 * plane.y + phase))
        inside = half + 0.012 * np.abs(plane.y) ** 3 - middle
        painting.paint(expected, 1.0, np.where((brain > 0) & (np.abs(plane.y) > gap), inside, np.float32(-1)))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert found.max() == 1
