"""Phantoms to learn from: the same ones every time, half of them with a lesion."""

import numpy as np
from scipy import ndimage

from jobs.common.storage import open_storage
from jobs.mri import drawing, phantoms


def test_phantoms_are_the_same_every_time_and_more_begin_with_the_same(tmp_path) -> None:
    few, lesions = phantoms.read(phantoms.make(open_storage(str(tmp_path)), 32, 4))
    more, _ = phantoms.read(phantoms.make(open_storage(str(tmp_path)), 32, 6))
    assert (few.shape, few.dtype) == ((4, 32, 32), np.uint8)
    assert lesions.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(more[:4], few)
    assert phantoms.make(open_storage(str(tmp_path)), 32, 4).reused
    assert len(np.unique(more.reshape(6, -1), axis=0)) == 6


def test_a_head_in_any_sequence_shows_its_gray_values() -> None:
    values = drawing.any_sequence(np.random.default_rng(0))
    head = drawing.draw_head("healthy", np.random.default_rng(1), (0.9, 0.0, 0.3, 0.3, 0.3, 1.0))
    middle = ndimage.zoom(head, 0.25)[20:-20, 15:-15]
    assert len(values) == 6
    assert np.median(middle) / 255 < 0.4
    assert head.max() / 255 > 0.6
