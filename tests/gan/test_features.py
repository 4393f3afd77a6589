"""Random features against SciPy's convolution; what they see; the user's own weights."""

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.ndimage

from jobs.common.errors import UserError
from jobs.gan import features, quality


def pictures(count: int, seed: int, size: int = 32) -> np.ndarray:
    """Disks with soft texture on black, uint8 [count, size, size]."""
    random = np.random.default_rng(seed)
    texture = scipy.ndimage.gaussian_filter(random.normal(size=(count, size, size)), (0, 1.5, 1.5))
    y, x = np.mgrid[:size, :size] - size / 2
    radius = random.uniform(0.3, 0.48, (count, 1, 1)) * size
    disk = 1 / (1 + np.exp((np.hypot(x, y) - radius) * 2))
    return np.clip(disk * (110 + 25 * texture / texture.std()), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def random() -> features.Features:
    return features.random_networks(32)


def test_the_weights_are_these(random: features.Features) -> None:
    assert random.digest == "18da2055b3e5063f860e8a1282054dfcca138eeecf87dda597f13e588e4f84d9"
    assert random.digest != features.random_networks(64).digest


def test_a_random_network_is_convolution_relu_and_pooling(random: features.Features) -> None:
    image = pictures(1, 1)
    x = image[0, ..., np.newaxis] / 127.5 - 1
    found = []
    for kernel in features._random_weights(32, 2):
        maps = [
            sum(
                scipy.ndimage.correlate(x[..., i], kernel[..., i, o].astype(float), mode="constant")
                for i in range(x.shape[-1])
            )
            for o in range(kernel.shape[-1])
        ]
        relu = np.maximum(np.stack(maps, axis=-1), 0)
        half = len(relu) // 2
        x = relu.reshape(half, 2, half, 2, -1).mean(axis=(1, 3))
        found.append(x.mean(axis=(0, 1)))
    quarters = x.reshape(2, 2, 2, 2, -1).mean(axis=(1, 3)).reshape(-1)
    expected = np.concatenate([*found[:-1], quarters])
    assert random.networks[2](image)[0] == pytest.approx(expected, abs=1e-4)


def test_features_of_an_image_do_not_depend_on_its_company(random: features.Features) -> None:
    images = pictures(40, 1)
    together = random.networks[0](images)
    assert together.shape[0] == 40 and together.dtype == np.float64
    assert random.networks[0](images[:3]).tobytes() == together[:3].tobytes()
    assert random.networks[0](images[32:]).tobytes() == together[32:].tobytes()


def test_networks_differ(random: features.Features) -> None:
    values = [network(pictures(2, 1)) for network in random.networks]
    assert len(values) == features.RANDOM_NETWORKS
    assert len({value.tobytes() for value in values}) == features.RANDOM_NETWORKS


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_any_image_size_serves(size: int) -> None:
    one = features.random_networks(size, count=1)
    assert np.isfinite(one.networks[0](pictures(2, 1, size))).all()


@pytest.mark.parametrize("fault", ["blur", "noise", "checkerboard", "brightness"])
def test_faults_that_generators_have_are_seen(random: features.Features, fault: str) -> None:
    real = pictures(60, 1).astype(float)
    board = np.indices((32, 32)).sum(axis=0) % 2 * 2 - 1
    faulty = {
        "blur": scipy.ndimage.gaussian_filter(real, (0, 0.7, 0.7)),
        "noise": real + np.random.default_rng(0).normal(0, 10, real.shape),
        "checkerboard": real + 8 * board * (real > 10),
        "brightness": real * 0.85,
    }[fault]
    shown = np.clip(faulty, 0, 255).astype(np.uint8)
    result = quality.compare(random, shown, pictures(60, 2), pictures(60, 3), 0)
    kid = result["figures"][0]
    assert kid["generated"]["value"] > kid["real"]["value"] + 5 * kid["real"]["error"]


def test_feature_weights_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "notes.h5"
    path.write_text("not weights")
    with pytest.raises(
        UserError, match=r"notes\.h5 does not fit: it must be a Keras \.h5 file of InceptionV3"
    ) as caught:
        features.inception(str(path), "0")
    assert "\n" not in str(caught.value)


def test_features_of_the_users_weights_are_those_of_keras_inception(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3))
    path = tmp_path / "inception.weights.h5"
    model.save_weights(path)
    loaded = features.inception(str(path), "0")
    assert loaded.name == "inceptionv3" and not loaded.standardized and loaded.digest == "0"
    images = pictures(2, 1, 299)
    rgb = np.repeat(images[..., np.newaxis], 3, axis=-1).astype(np.float32)
    expected = model(keras.applications.inception_v3.preprocess_input(rgb), training=False)
    assert loaded.networks[0](images) == pytest.approx(np.asarray(expected), abs=1e-4)
