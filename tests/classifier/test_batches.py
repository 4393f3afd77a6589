"""Batches: classes in their shares, pixels with their labels, half of them phantoms."""

import numpy as np
import pytest

from jobs.classifier.batches import Images, Phantoms, assemble
from jobs.common.errors import UserError


def test_a_batch_follows_from_its_seed_and_pixels_stay_with_their_label() -> None:
    labels = np.arange(40) % 2
    pool = Images(np.arange(40, dtype=np.uint8).repeat(4).reshape(40, 2, 2), labels)
    half = np.array([0.5, 0.5])
    pixels, targets = assemble(pool, None, half, 32, seed=3)
    np.testing.assert_array_equal(np.eye(2)[labels[pixels[:, 0, 0]]], targets)
    np.testing.assert_array_equal(assemble(pool, None, half, 32, seed=3)[0], pixels)
    assert (assemble(pool, None, half, 32, seed=4)[0] != pixels).any()


def test_phantoms_fill_half_of_a_batch_in_the_same_shares() -> None:
    pool = Images(np.full((60, 2, 2), 9, np.uint8), np.repeat([0, 1, 2], [12, 18, 30]))
    phantoms = Phantoms(np.arange(20, dtype=np.uint8).repeat(4).reshape(20, 2, 2) % 2, np.arange(20) % 2, healthy=1)
    pixels, targets = assemble(pool, phantoms, np.array([0.2, 0.3, 0.5]), 40, seed=0)
    drawn = pixels[:, 0, 0] < 9
    assert drawn.sum() == 20
    np.testing.assert_array_equal(targets[~drawn].sum(axis=0), [4, 6, 10])
    # A lesion may be of either of the other classes, the more frequent one as much more likely.
    expected = np.where(pixels[drawn][:, :1, 0] == 1, [2 / 7, 0, 5 / 7], [0, 1, 0])
    np.testing.assert_allclose(targets[drawn], expected, rtol=1e-6)
    assert targets[:, 1].sum() == 12


def test_a_class_without_images_is_named() -> None:
    pool = Images(np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int64))
    with pytest.raises(UserError, match="no training image of class number 1"):
        assemble(pool, None, np.array([0.5, 0.5]), 32, seed=0)
