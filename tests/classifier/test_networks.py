"""The networks against those of keras.applications, and a classifier's way into bytes and back."""

from pathlib import Path
from typing import get_args

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from jobs.classifier import augmentation, networks
from jobs.classifier.networks import Architecture
from jobs.common import hardware, tensors
from jobs.common.errors import MachineError, UserError
from jobs.report.words import NETWORK_NAMES
from jobs.settings import ExecutionSettings, Network

SMALL = Architecture("mobilenetv2", ("glioma", "no"), 32)
# More than are predicted in one pass.
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 32, 32), dtype=np.uint8)


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


@pytest.fixture(scope="module")
def stock() -> keras.Model:
    """Keras' own MobileNetV2 without top, random weights and random statistics."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    rng = np.random.default_rng(1)
    # The vectors alone are zeros and ones: a shift of the kernels would drive every feature to its bound of 6.
    model.set_weights([w + rng.uniform(0, 0.2, w.shape) * (w.ndim == 1) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    built = networks.build(SMALL)
    tensors.load_model_arrays(built, networks.initial_weights(SMALL, "none", seed=3))
    return built


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_a_file_of_keras_weights_gives_keras_features(stock: keras.Model, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notop{suffix}"
    if suffix == ".h5":
        # Keras still publishes its weights in this layout, and reads it, but has no public function that writes it.
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, stock)
    else:
        stock.save_weights(path)
    built = networks.build(SMALL, weights=str(path))
    inputs = networks.network_input(tf.cast(IMAGES, tf.float32) / 255.0)
    features = keras.Model(built.input, built.get_layer("out_relu").output)
    expected = stock(inputs, training=False)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(features(inputs, training=False), expected, rtol=1e-4, atol=1e-6)


def test_each_network_of_the_settings_is_known_everywhere() -> None:
    assert set(get_args(Network)) == set(networks.NETWORKS) == set(NETWORK_NAMES)
    described = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    assert all(f"`{network}`" in described for network in networks.NETWORKS)


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_inputs_are_what_keras_prepares(network: str) -> None:
    preprocess = networks.NETWORKS[network].application
    expected = preprocess.preprocess_input(np.repeat(IMAGES[..., None], 3, axis=-1).astype(np.float32))
    np.testing.assert_allclose(networks.network_input(tf.cast(IMAGES, tf.float32) / 255.0), expected, atol=1e-6)


def test_a_network_has_a_logit_for_each_class_and_statistics_that_follow_fast() -> None:
    built = networks.build(Architecture("mobilenetv2", ("a", "b", "c"), 32))
    assert built.output_shape == (None, 3)
    momenta = {layer.momentum for layer in built.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert momenta == {0.9}


def test_each_block_of_resnet_is_the_identity_at_first() -> None:
    built = networks.build(Architecture("resnet152v2", ("a", "b"), 32))
    sums = [layer for layer in built.layers if isinstance(layer, keras.layers.Add)]
    assert len(sums) == 50
    ends = keras.Model(built.input, [(layer.input[0], layer.output) for layer in sums])
    for shortcut, whole in ends(networks.network_input(tf.cast(IMAGES, tf.float32) / 255.0)):
        assert np.std(whole) > 0.01
        np.testing.assert_array_equal(whole, shortcut)


def test_an_image_is_judged_alike_alone_and_among_others(model: keras.Model) -> None:
    together = networks.predict(model, IMAGES)
    alone = np.concatenate([networks.predict(model, IMAGES[i : i + 1]) for i in range(len(IMAGES))])
    np.testing.assert_array_equal(alone, together)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together.sum(axis=1), 1.0)
    seen = augmentation.views(tf.cast(IMAGES, tf.float32) / 255.0)
    logits = model(networks.network_input(seen), training=False).numpy().reshape(len(IMAGES), -1, 2)
    np.testing.assert_allclose(together, tf.nn.softmax(logits.mean(axis=1)), atol=1e-6)
    assert networks.predict(model, IMAGES[:0]).shape == (0, 2)


class Counted:
    """A model that keeps the number of images in each of its passes."""

    input_shape, output_shape = (None, 32, 32, 3), (None, 2)

    def __init__(self) -> None:
        self.passes: list[int] = []

    def __call__(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        assert not training
        self.passes.append(inputs.shape[0])
        return tf.reduce_mean(inputs, axis=(1, 2))[:, :2]


def test_a_curve_takes_one_view_in_batches_and_a_prediction_all_views_of_each_image() -> None:
    images = np.random.default_rng(1).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    curve, predictions, traced = Counted(), Counted(), Counted()
    tf.config.run_functions_eagerly(True)
    try:
        assert networks.one_view_predictor(curve, 8)(images).shape == (20, 2)
        networks.predict(predictions, images)
    finally:
        tf.config.run_functions_eagerly(False)
    assert curve.passes == [8, 8, 8]
    assert predictions.passes == [8 * 18] * 3
    look = networks.one_view_predictor(traced, 8)
    for count in (20, 8, 3):
        look(images[:count])
    assert traced.passes == [8]


def test_one_view_is_the_image_itself(model: keras.Model) -> None:
    expected = tf.nn.softmax(model(networks.network_input(tf.cast(IMAGES, tf.float32) / 255.0), training=False))
    for batch in (2, 5, 8):
        np.testing.assert_allclose(networks.one_view_predictor(model, batch)(IMAGES), expected, atol=1e-6)


def test_an_image_and_its_mirror_image_are_judged_alike(model: keras.Model) -> None:
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    assert (mirrored != IMAGES).any()
    np.testing.assert_allclose(networks.predict(model, mirrored), networks.predict(model, IMAGES), rtol=1e-6)


def test_images_of_another_size_are_refused(model: keras.Model) -> None:
    with pytest.raises(UserError, match="32 x 32"):
        networks.predict(model, np.zeros((1, 64, 64), np.uint8))


def test_a_stored_classifier_says_the_same(model: keras.Model) -> None:
    data = networks.save_classifier(model, SMALL)
    loaded, architecture = networks.load_classifier(data)
    assert architecture == SMALL
    np.testing.assert_array_equal(networks.predict(loaded, IMAGES), networks.predict(model, IMAGES))
    assert networks.save_classifier(loaded, architecture) == data


def test_other_files_are_no_classifiers(model: keras.Model) -> None:
    data = networks.save_classifier(model, SMALL)
    with pytest.raises(UserError, match="not a classifier"):
        networks.load_classifier(tensors.to_bytes({"w": np.zeros(1)}, {"latent": "16"}))
    with pytest.raises(MachineError, match="damaged"):
        networks.load_classifier(data[:-1])
    arrays, meta = tensors.from_bytes(data)
    with pytest.raises(UserError, match="another network"):
        networks.load_classifier(tensors.to_bytes(dict(list(arrays.items())[:-1]), meta))


def test_the_seed_decides_the_initial_weights() -> None:
    first, again, other = (networks.initial_weights(SMALL, "none", seed) for seed in (5, 5, 6))
    assert tensors.to_bytes(first, {}) == tensors.to_bytes(again, {})
    assert tensors.to_bytes(first, {}) != tensors.to_bytes(other, {})


def test_bfloat16_computes_alike_and_keeps_float32_weights_and_logits(model: keras.Model) -> None:
    fast = networks.build(SMALL, precision="bfloat16")
    tensors.load_model_arrays(fast, tensors.model_arrays(model))
    assert fast.get_layer("Conv1").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in fast.variables} == {"float32"}
    assert fast.output.dtype == "float32"
    np.testing.assert_allclose(networks.predict(fast, IMAGES), networks.predict(model, IMAGES), atol=0.02)


def test_weights_that_cannot_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such file"):
        networks.build(SMALL, weights=str(tmp_path / "nothing.h5"))
    (tmp_path / "broken.h5").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"broken\.h5.* do not fit mobilenetv2") as refusal:
        networks.build(SMALL, weights=str(tmp_path / "broken.h5"))
    assert "\n" not in str(refusal.value)
    # A network without a way out, and without what was downloaded before.
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib reads the proxies once in a process: neither earlier requests nor later ones may share this reading.
    monkeypatch.setattr("urllib.request._opener", None)
    with pytest.raises(MachineError, match="ImageNet weights of mobilenetv2 cannot be downloaded") as failure:
        networks.build(SMALL, weights="imagenet")
    assert "\n" not in str(failure.value)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(UserError, match="use one of mobilenetv2, resnet152v2"):
        networks.build(Architecture("vgg", ("a", "b"), 32))
