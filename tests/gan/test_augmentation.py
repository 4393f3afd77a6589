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
        for other in {"BRIGHTNESS_SHIFT", "TRANSLATION"} - {name}:
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
    only("BRIGHTNESS_SHIFT")
    shifts = augmented(images).mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))
    assert np.abs(shifts).max() <= 0.2
    assert shifts.std() > 0.08
    np.testing.assert_allclose(augmented(images).std(axis=(1, 2, 3)), images.std(axis=(1, 2, 3)), rtol=1e-4)


def test_gradients_flow_through_what_is_left(images: np.ndarray, only) -> None:
    only("TRANSLATION")
    variable = tf.Variable(images)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(augmentation.augment(variable, tf.constant([5, 0])))
    gradient = tape.gradient(total, variable).numpy()
    assert set(np.unique(gradient)) == {0, 1}
    assert gradient.mean() > 0.7
