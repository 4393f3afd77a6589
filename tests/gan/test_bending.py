"""Where a bend takes each pixel from."""

import numpy as np
from scipy import ndimage

from jobs.gan.bending import NODES, bend

SIZE = 48


def head() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    smooth = ndimage.gaussian_filter(noise, 4)
    return np.rint(np.interp(smooth, (smooth.min(), smooth.max()), (20, 230))).astype(np.uint8)


def test_no_displacement_changes_nothing() -> None:
    assert np.array_equal(bend(head(), np.zeros((2, NODES, NODES))), head())


def test_nodes_that_look_the_same_way_shift_the_image() -> None:
    displacements = np.stack([np.full((NODES, NODES), 3 / SIZE), np.full((NODES, NODES), -2 / SIZE)])
    assert np.array_equal(bend(head(), displacements), ndimage.shift(head(), (-3, 2), order=0, mode="nearest"))


def test_a_node_moves_its_own_part_most() -> None:
    displacements = np.zeros((2, NODES, NODES))
    displacements[:, 0, 0] = 0.1
    change = np.abs(bend(head(), displacements).astype(float) - head())
    third = SIZE // 3
    assert change[:third, :third].mean() > 5 * change[-third:, -third:].mean()


def test_gray_values_stay_in_the_images_range() -> None:
    edges = np.where(head() > 120, np.uint8(200), np.uint8(50))
    bent = bend(edges, np.random.default_rng(1).normal(0, 0.05, (2, NODES, NODES)))
    assert bent.dtype == np.uint8 and bent.min() == 50 and bent.max() == 200


def test_the_field_is_a_cubic_spline_in_both_directions() -> None:
    displacements = np.random.default_rng(2).normal(0, 0.05, (2, NODES, NODES))
    field = ndimage.zoom(displacements, (1, SIZE / NODES, SIZE / NODES), order=3, mode="nearest", grid_mode=True)
    taken = ndimage.map_coordinates(head(), np.indices((SIZE, SIZE)) + SIZE * field, float, order=3, mode="nearest")
    np.testing.assert_allclose(bend(head(), displacements), np.clip(taken, head().min(), head().max()), atol=0.5001)
