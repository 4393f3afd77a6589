"""Training of classifiers: batches, augmentation, schedule, and that what was learned is there at inference."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from sklearn.metrics import log_loss

from jobs.classifier import augmentation, networks, stepping, training
from jobs.classifier.networks import Architecture
from jobs.classifier.training import Epoch, Hyperparameters, Images
from jobs.common import hardware
from jobs.common.checkpoint import Checkpoints
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.settings import ExecutionSettings

SIZE = 32
HYPERPARAMETERS = Hyperparameters(epochs=1, steps_per_epoch=1, batch=8, learning_rate=3e-3, augmentation=1.0, seed=4)


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    step = Step(open_storage(str(tmp_path)), "c", job="train-classifier", settings={}, inputs={})
    with Checkpoints(step, every_steps=10**9, every_seconds=1e9) as checkpoints:
        yield checkpoints


def heads(count: int, seed: int) -> Images:
    """Discs of two classes: those of class 1 have a small bright spot."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.arange(count) % 2
    pixels = []
    for label in labels:
        image = 90.0 * ((rows - 15.5) ** 2 + (columns - 15.5) ** 2 < rng.uniform(10, 14) ** 2)
        y, x = rng.uniform(10, 22, 2)
        image += label * 120.0 * ((rows - y) ** 2 + (columns - x) ** 2 < 9)
        pixels.append(np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8))
    return Images(np.stack(pixels), labels)


# ---- batches ----------------------------------------------------------------------------------------------------


def test_synthetic_images_come_before_real_ones_and_classes_in_their_shares() -> None:
    generated = Images(np.full((30, 4, 4), 1, np.uint8), np.repeat([0, 1, 2], 10))
    real = Images(np.full((90, 4, 4), 2, np.uint8), np.repeat([0, 1, 2], [10, 30, 50]))
    frequencies = np.array([10, 30, 50]) / 90
    settings = Hyperparameters(10, 30, 32, 1e-3, 1.0, seed=7)
    total = np.zeros(3)
    for step in range(300):
        pixels, targets = training.batch(settings, [generated, real], None, frequencies, step)
        assert (pixels == (1 if step < 100 else 2)).all()
        assert (training.batch(settings, [real], None, frequencies, step)[0] == 2).all()
        counts = targets.sum(axis=0)
        assert (np.abs(counts - 32 * frequencies) < 1).all()
        total += counts
    np.testing.assert_allclose(total / total.sum(), frequencies, atol=0.01)


# ---- augmentation -----------------------------------------------------------------------------------------------


def test_augmentation_follows_from_its_seed_and_stays_in_range() -> None:
    images = tf.cast(heads(6, 0).pixels, tf.float32) / 255.0
    first, again, other = (augmentation.augment(images, tf.constant([1, step])).numpy() for step in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    assert np.corrcoef(first.ravel(), images.numpy().ravel())[0, 1] > 0.3


def test_augmentation_without_strength_mirrors_only() -> None:
    images = heads(20, 0).pixels.astype(np.float32) / 255.0
    faint = augmentation.augment(tf.constant(images), tf.constant([1, 5]), 0.0).numpy()
    likeness = np.abs(faint - images).max(axis=(1, 2)), np.abs(faint - images[:, :, ::-1]).max(axis=(1, 2))
    assert np.minimum(*likeness).max() < 1e-4
    assert {bool(plain < mirrored) for plain, mirrored in zip(*likeness, strict=True)} == {True, False}


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_images_are_moved_as_scipy_moves_them(mirror: float) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((SIZE, SIZE)), 1.5).astype(np.float32)
    angle, scale_x, scale_y, shear, shift_x, shift_y = 0.2, 1.1, 0.9, 0.1, 0.05, -0.03
    asked = (angle, scale_x, scale_y, shear, shift_x, shift_y, mirror)
    moved = augmentation._affine(image[None], *(tf.constant([value]) for value in asked))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # of (x, y)
    back = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([mirror / scale_x, 1.0 / scale_y])
    matrix = back[::-1, ::-1]  # of (row, column)
    middle = np.full(2, (SIZE - 1) / 2)
    offset = middle - matrix @ middle + np.array([shift_y, shift_x]) * SIZE
    expected = ndimage.affine_transform(image, matrix, offset, order=1)
    np.testing.assert_allclose(moved[0, 6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-4)


def test_an_image_is_seen_in_turns_scales_and_mirrored() -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((SIZE, SIZE)), 1.5).astype(np.float32)
    seen = augmentation.views(tf.constant(image[np.newaxis])).numpy()
    assert len(np.unique(seen.reshape(len(seen), -1), axis=0)) == len(seen) == 18
    middle = np.full(2, (SIZE - 1) / 2)
    angle, scale = 0.2, 1.1
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    expected = ndimage.affine_transform(image, matrix, middle - matrix @ middle, order=1)[6:-6, 6:-6]
    for wanted in (image[6:-6, 6:-6], image[:, ::-1][6:-6, 6:-6], expected):
        assert np.abs(seen[:, 6:-6, 6:-6] - wanted).max(axis=(1, 2)).min() < 1e-4


def test_a_covered_square_is_gray_and_all_else_stays() -> None:
    image = np.random.default_rng(0).random((1, SIZE, SIZE)).astype(np.float32)
    across, down, extent = (tf.constant([value]) for value in (0.0, 0.5, 1.0))
    covered = augmentation._cover(tf.constant(image), across, down, extent).numpy()
    rows, columns = np.nonzero(covered[0] != image[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (19, 29, 11, 21)
    assert len(rows) == 11 * 11
    np.testing.assert_allclose(covered[0, 19:30, 11:22], image.mean(), rtol=1e-5)


def test_images_and_targets_are_mixed_alike() -> None:
    classes = np.arange(8) % 2
    images = np.ones((8, 4, 4), np.float32) * classes[:, None, None].astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[classes]
    mixed, wanted = augmentation.mix(tf.constant(images), tf.constant(targets), tf.constant([1, 2]))
    np.testing.assert_allclose(mixed.numpy()[:, 0, 0], wanted.numpy()[:, 1], rtol=1e-6)
    np.testing.assert_allclose(wanted.numpy().sum(axis=1), 1.0, rtol=1e-6)
    assert (wanted.numpy().argmax(axis=1) == classes).all()
    assert 0 < np.abs(wanted.numpy() - targets).max() <= augmentation.MIX
    _, less = augmentation.mix(tf.constant(images), tf.constant(targets), tf.constant([1, 2]), 0.3)
    np.testing.assert_allclose(less.numpy() - targets, 0.3 * (wanted.numpy() - targets), atol=1e-6)


# ---- schedule and scores ----------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    settings = Hyperparameters(epochs=4, steps_per_epoch=50, batch=8, learning_rate=0.01, augmentation=0.0, seed=0)
    rates = np.array([training.learning_rate(settings, step) for step in range(200)])
    assert rates.max() == pytest.approx(0.01)
    top = int(rates.argmax())
    assert 0 < top <= 20
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top + 1 :]) < 0).all()
    assert 0 < rates[-1] < 1e-4
    short = Hyperparameters(1, 1, 8, 0.01, 0.0, 0)
    assert training.learning_rate(short, 0) == pytest.approx(0.01)


def test_augmentation_grows_for_half_of_the_steps() -> None:
    settings = Hyperparameters(epochs=4, steps_per_epoch=50, batch=8, learning_rate=0.01, augmentation=1.0, seed=0)
    strengths = [training.strength(settings, step) for step in range(200)]
    assert strengths[0] == pytest.approx(0.1)
    np.testing.assert_allclose(np.diff(strengths[:101]), 0.9 / 100)
    assert strengths[100:] == [1.0] * 100
    weaker = [training.strength(replace(settings, augmentation=0.3), step) for step in range(200)]
    np.testing.assert_allclose(weaker, 0.3 * np.array(strengths))


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 50)
    labels = rng.integers(0, 3, 50)
    loss, accuracy = training.loss_and_accuracy(probabilities, labels)
    assert loss == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]))
    assert accuracy == pytest.approx((probabilities.argmax(1) == labels).mean())


def test_history_leaves_out_what_nothing_was_held_out_for() -> None:
    lines = training.history_csv([Epoch(1, 10, 0.5, 0.8, 0.4, 0.7), Epoch(2, 20, 0.5, 0.8, None, None)]).decode()
    assert lines.splitlines() == [
        "epoch,step,train_loss,train_accuracy,held_out_loss,held_out_accuracy",
        "1,10,0.500000,0.800000,0.400000,0.700000",
        "2,20,0.500000,0.800000,,",
    ]


# ---- the whole --------------------------------------------------------------------------------------------------


def accuracies(model: keras.Model, images: Images) -> tuple[float, float]:
    """Of training mode (statistics of the batch) and inference mode (moving statistics)."""
    inputs = networks.network_input(tf.cast(images.pixels, tf.float32) / 255.0)
    saved = model.get_weights()
    by_batch = (model(inputs, training=True).numpy().argmax(1) == images.labels).mean()
    model.set_weights(saved)
    return by_batch, (networks.predict(model, images.pixels).argmax(1) == images.labels).mean()


def test_training_and_inference_mode_agree_after_few_steps(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = Architecture("mobilenetv2", ("no", "yes"), SIZE)
    settings = Hyperparameters(epochs=1, steps_per_epoch=120, batch=16, learning_rate=3e-3, augmentation=0.0, seed=0)
    initial = networks.initial_weights(architecture, "none", 0)
    images, unseen = heads(100, 0), heads(100, 1)
    half = np.array([0.5, 0.5])

    model, history = training.train(architecture, initial, [images], half, unseen, settings, checkpoints)
    by_batch, by_average = accuracies(model, unseen)
    assert by_batch > 0.9
    assert by_average > 0.9
    seen = training.loss_and_accuracy(networks.one_view_predictor(model, 16)(unseen.pixels), unseen.labels)
    assert (history[-1].held_out_loss, history[-1].held_out_accuracy) == seen
    assert seen[0] != training.loss_and_accuracy(networks.predict(model, unseen.pixels), unseen.labels)[0]

    # With the momentum that Keras gives MobileNetV2, the same training leaves inference near chance.
    monkeypatch.setattr(networks, "BATCHNORM_MOMENTUM", 0.999)
    stepping.prepare.cache_clear()
    model, _ = training.train(architecture, initial, [images], half, unseen, settings, checkpoints)
    stepping.prepare.cache_clear()
    by_batch, by_average = accuracies(model, unseen)
    assert by_batch > 0.9
    assert by_average < 0.7


def test_resnet152v2_learns_whole_in_two_steps() -> None:
    architecture = Architecture("resnet152v2", ("no", "yes"), SIZE)
    state, take_steps = stepping.prepare(architecture, "float32", 2, True, False)
    stepping.prepare.cache_clear()
    state.start(networks.initial_weights(architecture, "none", 0))
    before = state.arrays()
    images = heads(2, 0)
    rates, full, targets = np.float32([1e-4]), np.float32([1]), np.eye(2, dtype=np.float32)[images.labels][None]

    def step(number: int) -> np.ndarray:
        at = np.array([number], np.int32)
        return take_steps(images.pixels[None], targets, rates, full, np.int32(0), at).numpy()

    values = step(0)
    assert values.shape == (1, 2)
    assert np.isfinite(values).all()
    # Keras' without top, and the logits.
    assert networks.parameter_count(state.model) == len(before["weights"]) == 58_187_904 + 2 * 2048 + 2
    after = state.arrays()
    for name in ("weights", "statistics"):
        expected = 0.1 * before[name] + 0.9 * after[name]
        np.testing.assert_allclose(after[f"average_{name}"], expected, rtol=1e-4, atol=1e-6)
    state.show_average()
    shown = np.concatenate([variable.numpy().ravel() for variable in state.model.non_trainable_variables])
    np.testing.assert_array_equal(shown, after["average_statistics"])
    # Through ends of zeros nothing reaches what lies before them.
    step(1)
    assert (state.arrays()["weights"] != before["weights"]).mean() > 0.9
