"""Differentiable augmentation: what it may do to an image, and that nothing else happens."""

import numpy as np
import pytest
import tensorflow as tf

from jobs.gan import augmentation

COUNT, SIZE = 40, 16


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (COUNT, SIZE, SIZE, 1)).astype(np.float32)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Return a function that leaves one kind of change beside mirroring."""

    def keep(name: str) -> None:
        for other in {"BRIGHTNESS", "CONTRAST", "TRANSLATION", "CUTOUT"} - {name}:
            monkeypatch.setattr(augmentation, other, 0.0)

    return keep


def augmented(images: np.ndarray, seed: int = 0) -> np.ndarray:
    return augmentation.augment(tf.constant(images), tf.constant([5, seed])).numpy()


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    padded = np.pad(image, SIZE, constant_values=-1.0)
    return padded[SIZE - down : 2 * SIZE - down, SIZE - right : 2 * SIZE - right]


def test_the_seed_alone_decides(images: np.ndarray) -> None:
    np.testing.assert_array_equal(augmented(images), augmented(images))
    assert (augmented(images, 1) != augmented(images)).any()


def test_each_image_is_mirrored_or_not_and_moved_by_up_to_an_eighth(images: np.ndarray, only) -> None:
    only("TRANSLATION")
    found = []
    for before, after in zip(images[..., 0], augmented(images)[..., 0], strict=True):
        found += [
            (mirror, down, right)
            for mirror in (False, True)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.allclose(after, moved(before[:, ::-1] if mirror else before, down, right), atol=1e-6)
        ]
    assert len(found) == COUNT
    mirrors, downs, rights = map(set, zip(*found, strict=True))
    assert mirrors == {False, True}
    assert downs == rights == {-2, -1, 0, 1, 2}


def test_brightness_shifts_each_image_as_a_whole(images: np.ndarray, only) -> None:
    only("BRIGHTNESS")
    shifts = augmented(images).mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))
    assert np.abs(shifts).max() <= 0.5
    assert shifts.std() > 0.2
    np.testing.assert_allclose(augmented(images).std(axis=(1, 2, 3)), images.std(axis=(1, 2, 3)), rtol=1e-4)


def test_contrast_keeps_the_mean(images: np.ndarray, only) -> None:
    only("CONTRAST")
    after = augmented(images)
    np.testing.assert_allclose(after.mean(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3)), atol=1e-5)
    factors = after.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert 0.5 <= factors.min() < 0.7
    assert 1.3 < factors.max() <= 1.5


def test_cutout_leaves_a_gray_square_that_may_pass_the_edge(images: np.ndarray, only) -> None:
    only("CUTOUT")
    holes = augmented(images)[..., 0] == 0
    for hole in holes:
        rows, columns = hole.any(axis=1), hole.any(axis=0)
        np.testing.assert_array_equal(hole, rows[:, None] & columns[None])
        assert SIZE // 4 <= rows.sum() <= SIZE // 2
    assert holes.sum(axis=(1, 2)).max() == (SIZE // 2) ** 2
    assert holes.any(axis=0).all()


def test_gradients_flow_through_what_is_left(images: np.ndarray, only) -> None:
    only("TRANSLATION")
    variable = tf.Variable(images)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(augmentation.augment(variable, tf.constant([5, 0])))
    gradient = tape.gradient(total, variable).numpy()
    assert set(np.unique(gradient)) == {0, 1}
    assert gradient.mean() > 0.7
