"""The two networks: their shapes, what each switch changes, and the generator's file."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from jobs.common import tensors
from jobs.common.errors import MachineError, UserError
from jobs.gan import anchors, networks
from jobs.gan.dropout import Dropout
from jobs.gan.networks import GanConfig

TINY = GanConfig(32, 4, 8, ("glioma",))
CONDITIONAL = GanConfig(32, 4, 8, ("glioma", "none"))


def latents(count: int, config: GanConfig = TINY, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, config.latent)).astype(np.float32)


def judge(discriminator: keras.Model, images: np.ndarray, label: int = 0) -> np.ndarray:
    return np.asarray(discriminator([images, np.full(len(images), label, np.int32)]))


@pytest.fixture(scope="module")
def generator() -> keras.Model:
    return networks.build_generator(TINY)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (6, 32, 32, 1)).astype(np.float32)


@pytest.mark.parametrize("size", networks.IMAGE_SIZES)
def test_one_definition_serves_every_size(size: int) -> None:
    config = GanConfig(size, 2, 8, ("glioma",))
    image = networks.sample(networks.build_generator(config), latents(1))
    assert image.shape == (1, size, size, 1)
    assert image.dtype == np.float32
    assert np.abs(image).max() <= 1
    for patches, side in ((True, 8), (False, 1)):
        discriminator = networks.build_discriminator(config, patches=patches)
        assert judge(discriminator, image).shape == (1, side, side)
    assert config.channels(size // 2) == 2
    assert config.channels(4) == min(16, size // 4)


def test_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="not of 48"):
        GanConfig(48, 4, 8, ("glioma",))


@pytest.mark.parametrize("config", [TINY, CONDITIONAL], ids=["one-class", "conditional"])
def test_the_file_gives_the_same_generator(config: GanConfig) -> None:
    generator = networks.build_generator(config, seed=3)
    data = networks.save_generator(generator, config)
    loaded, read = networks.load_generator(data)
    assert read == config
    assert networks.save_generator(loaded, read) == data
    drawn = [networks.sample(model, latents(3), len(config.labels) - 1) for model in (generator, loaded)]
    np.testing.assert_array_equal(*drawn)


def test_the_file_is_the_same_in_another_process(generator: keras.Model) -> None:
    code = (
        "import hashlib; from jobs.gan import networks; config = networks.GanConfig(32, 4, 8, ('glioma',));"
        "print(hashlib.sha256(networks.save_generator(networks.build_generator(config), config)).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(networks.save_generator(generator, TINY)).hexdigest() == other


def test_what_is_no_generator_is_refused(generator: keras.Model) -> None:
    data = networks.save_generator(generator, TINY)
    with pytest.raises(MachineError, match="damaged"):
        networks.load_generator(data[:-10])
    with pytest.raises(UserError, match="not a generator"):
        networks.load_generator(tensors.to_bytes({"w": np.zeros(1)}, {"kind": "classifier"}))
    arrays, meta = tensors.from_bytes(data)
    with pytest.raises(UserError, match="another network"):
        networks.load_generator(tensors.to_bytes(arrays, meta | {"width": "8"}))


def test_the_seed_decides_the_first_weights() -> None:
    first, again, other = (networks.build_generator(TINY, seed=seed) for seed in (1, 1, 2))
    assert networks.save_generator(first, TINY) == networks.save_generator(again, TINY)
    assert networks.save_generator(first, TINY) != networks.save_generator(other, TINY)


def test_the_class_matters_only_to_a_conditional_gan(generator: keras.Model, images: np.ndarray) -> None:
    conditional = networks.build_generator(CONDITIONAL)
    assert (networks.sample(generator, latents(2), 0) == networks.sample(generator, latents(2), 1)).all()
    assert (networks.sample(conditional, latents(2), 0) != networks.sample(conditional, latents(2), 1)).any()
    mixed = networks.sample(conditional, latents(2), np.array([0, 1]))
    np.testing.assert_allclose(mixed[1], networks.sample(conditional, latents(2), 1)[1], atol=1e-6)
    for config, matters in ((TINY, False), (CONDITIONAL, True)):
        for patches in (False, True):
            discriminator = networks.build_discriminator(config, patches=patches)
            assert (judge(discriminator, images, 0) != judge(discriminator, images, 1)).all() == matters


@pytest.mark.parametrize(("size", "doublings"), [(32, 3), (64, 4)])
def test_the_plain_dcgan_has_the_layers_of_the_reference(size: int, doublings: int) -> None:
    def kinds(model: keras.Model) -> list[str]:
        return [
            type(layer).__name__.removeprefix("Fused")
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer)
        ]

    config = GanConfig(size, 4, 8, ("glioma",))
    assert kinds(networks.build_generator(config)) == [
        *("Dense", "Reshape", "BatchNormalization", "LeakyReLU"),
        *("Conv2DTranspose", "BatchNormalization", "LeakyReLU") * (doublings - 1),
        *("Conv2DTranspose", "Activation"),
    ]
    discriminator = networks.build_discriminator(config, patches=False, dropout=True)
    assert kinds(discriminator) == [*("Conv2D", "LeakyReLU", "Dropout") * doublings, "Conv2D", "Reshape"]
    assert {layer.rate for layer in discriminator.layers if isinstance(layer, Dropout)} == {0.3}
    assert not any("Dropout" in kind for kind in kinds(networks.build_discriminator(config, patches=True)))


@pytest.mark.parametrize("config", [TINY, CONDITIONAL], ids=["one-class", "conditional"])
def test_a_discriminator_drops_by_its_seed_and_nothing_in_inference(config: GanConfig, images: np.ndarray) -> None:
    discriminator = networks.build_discriminator(config, patches=False, dropout=True)

    def logits(seed: int, training: bool) -> np.ndarray:
        inputs = [images, np.zeros(len(images), np.int32), np.array([1, seed], np.int32)]
        return np.asarray(discriminator(inputs, training=training))

    np.testing.assert_array_equal(logits(5, True), logits(5, True))
    assert (logits(5, True) != logits(6, True)).all()
    np.testing.assert_array_equal(logits(5, False), logits(6, False))
    undropped = networks.build_discriminator(config, patches=False)
    undropped.set_weights(discriminator.get_weights())
    np.testing.assert_array_equal(logits(5, False), judge(undropped, images))


def test_dropped_features_are_zero_and_the_others_keep_the_mean() -> None:
    features, seed = tf.ones((4, 50, 50, 1)), tf.constant([1, 2])
    masks = [Dropout(0.3, name=name)(features, seed, training=True).numpy() for name in ("a", "b")]
    for mask in masks:
        np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.7], rtol=1e-6)
        assert mask.mean() == pytest.approx(1, abs=0.03)
        assert (mask[0] != mask[1]).any()
    assert (masks[0] != masks[1]).any()


def test_without_any_norm_images_still_reach_the_logit(images: np.ndarray) -> None:
    for patches in (False, True):
        discriminator = networks.build_discriminator(TINY, patches=patches)
        assert 0.05 < judge(discriminator, images).std() < 20


def test_a_patch_s_logit_is_of_the_part_of_the_image_around_it(images: np.ndarray) -> None:
    discriminator = networks.build_discriminator(GanConfig(64, 4, 8, ("glioma",)), patches=True)
    large = np.tile(images, (1, 2, 2, 1))
    changed = large.copy()
    changed[:, :8, :8] *= -1
    moved = (judge(discriminator, changed) != judge(discriminator, large)).all(axis=0)
    assert moved[0, 0]
    assert not moved[4:].any()
    assert not moved[:, 4:].any()


def test_anchors_are_mixed_by_random_scores() -> None:
    layer = anchors.Anchors(14, seed=3)
    z = latents(20)
    labels = np.arange(20, dtype=np.int32) % 2
    layer([z, labels])
    layer.classes.assign(np.repeat([0, 1], [11, 3]))
    layouts, styles = np.asarray(layer([z, labels])).swapaxes(0, 1)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True) * np.sqrt(x.shape[-1])

    scores = unit(z) @ layer.projection.numpy() / np.sqrt(z.shape[1])
    scores[labels[:, None] != np.tile(np.repeat([0, 1], [11, 3]), 2)] = -np.inf
    for_layout, for_style = scores[:, :14], scores[:, 14:]
    for_layout[for_layout < np.sort(for_layout, axis=1)[:, [-anchors.BLENDED]]] = -np.inf
    known = unit(layer.anchors.numpy())
    blends = softmax(anchors.SHARPNESS * for_layout, axis=1) @ known[:, 0]
    np.testing.assert_allclose(layouts, unit(blends + anchors.SPREAD * unit(z)), atol=1e-5)
    chosen = known[for_style.argmax(axis=1), 1]
    np.testing.assert_allclose(styles, unit(chosen + anchors.SPREAD * unit(z)), atol=1e-5)
    assert not layer.trainable_variables


def test_a_generator_draws_from_mixtures_what_it_draws_from_latents() -> None:
    config = replace(CONDITIONAL, anchors=6)
    generator = networks.build_generator(config)
    generator.get_layer("anchors").classes.assign([0, 0, 0, 1, 1, 1])
    z, labels = latents(5, config), np.array([0, 1, 0, 1, 0], np.int32)
    mixtures = generator.get_layer("anchors")([z, labels])
    drawn = anchors.decoder(generator)([mixtures, tf.constant(labels)])
    np.testing.assert_allclose(np.asarray(drawn), networks.sample(generator, z, labels), atol=1e-6)
    loaded, known = networks.load_generator(networks.save_generator(generator, config))
    assert known == config
    np.testing.assert_array_equal(networks.sample(loaded, z, labels), networks.sample(generator, z, labels))


def test_bfloat16_is_of_the_arithmetic_only(generator: keras.Model) -> None:
    rounded = networks.build_generator(TINY, precision="bfloat16")
    rounded.set_weights(generator.get_weights())
    assert {variable.dtype for variable in rounded.variables} == {"float32"}
    images, exact = networks.sample(rounded, latents(4)), networks.sample(generator, latents(4))
    assert images.dtype == np.float32
    assert 0 < np.abs(images - exact).max() < 0.02


def test_pixels_keep_black_and_white() -> None:
    values = np.array([-1, -0.5, 0, 1, 1.5])
    np.testing.assert_array_equal(networks.to_uint8(values), [0, 64, 128, 255, 255])
