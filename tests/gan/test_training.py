"""Training: the batches, the steps and what they leave; a GAN learns a simple picture in seconds."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from jobs.common import tensors
from jobs.common.errors import UserError
from jobs.gan import history, networks, training
from jobs.gan.anchors import decoder, sphere
from jobs.gan.networks import GanConfig
from jobs.gan.training import Options, State

CONFIG = GanConfig(32, 8, 16, ("disc",), anchors=24)
OPTIONS = Options(seed=1, steps=240, batch=8, learning_rate=2e-3)
PLAIN = replace(
    OPTIONS, augmentation=False, gradient_penalty=False, moving_average=False, patches=False, relativistic=False
)

PLAIN_CONFIG = replace(CONFIG, anchors=0)


def discs(count: int) -> np.ndarray:
    """Return uint8 [count, 32, 32, 1]: a gray disc on black, each of its own size and brightness."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32] - 15.5
    radius, value = rng.uniform(7, 11, (count, 1, 1)), rng.uniform(120, 220, (count, 1, 1))
    return ((rows**2 + columns**2 < radius**2) * value).astype(np.uint8)[..., None]


IMAGES = discs(24)


class Gan:
    """A state, the function that trains it, and the images."""

    def __init__(self, config: GanConfig = CONFIG, options: Options = OPTIONS) -> None:
        self.config, self.options = config, options
        self.classes = np.arange(len(IMAGES), dtype=np.int32) % len(config.labels)
        self.state: State = training.new_state(config, options, self.classes)
        self.steps = training.train_function(self.state, config, options)

    def train(self, first: int, stop: int) -> np.ndarray:
        chosen = training.batches(self.options.seed, len(IMAGES), self.options.batch, first, stop)
        shown = (tf.constant(values) for values in (IMAGES[chosen], self.classes[chosen], chosen.astype(np.int32)))
        return self.steps(*shown, tf.constant(first, tf.int64)).numpy()


@pytest.fixture(scope="module")
def trained() -> tuple[Gan, np.ndarray]:
    gan = Gan()
    metrics = np.concatenate([gan.train(first, first + 8) for first in range(0, 240, 8)])
    training.settle(gan.state.average, CONFIG, OPTIONS.seed)
    return gan, metrics


@pytest.mark.parametrize(("count", "batch"), [(24, 8), (21, 8), (3, 8), (1, 4)])
def test_an_epoch_shows_every_image(count: int, batch: int) -> None:
    per_epoch = training.steps_per_epoch(count, batch)
    epochs = [training.batches(5, count, batch, e * per_epoch, (e + 1) * per_epoch) for e in range(2)]
    for epoch in epochs:
        assert epoch.shape == (per_epoch, batch)
        assert set(epoch.ravel()[:count]) == set(range(count))
    assert count < 3 or (epochs[0] != epochs[1]).any()
    both = training.batches(5, count, batch, 0, 2 * per_epoch)
    np.testing.assert_array_equal(both, np.concatenate(epochs))


@pytest.mark.parametrize(
    ("config", "options"),
    [(CONFIG, OPTIONS), (PLAIN_CONFIG, replace(PLAIN, augmentation=True, xla=True))],
    ids=["recipe", "plain-augmentation-xla"],
)
def test_calls_may_be_cut_anywhere_and_states_restored(config: GanConfig, options: Options) -> None:
    gan = Gan(config, options)
    begun = gan.state.arrays()
    expected, ended = gan.train(0, 6), gan.state.arrays()
    gan.state.load(begun)
    first = gan.train(0, 1)
    other = Gan(config, replace(options, seed=2))
    saved = tensors.to_bytes(gan.state.arrays(), {})
    other.state.load(tensors.from_bytes(saved)[0])
    resumed = Gan(config, options)
    resumed.state.load(other.state.arrays())
    np.testing.assert_array_equal(np.concatenate([first, resumed.train(1, 3), resumed.train(3, 6)]), expected)
    for (name, a), b in zip(ended.items(), resumed.state.arrays().values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_state_of_other_networks_is_refused() -> None:
    wider = training.new_state(replace(CONFIG, width=4), OPTIONS, np.zeros(24))
    with pytest.raises(UserError, match="another network"):
        training.new_state(CONFIG, OPTIONS, np.zeros(24)).load(wider.arrays())


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        replace(PLAIN, moving_average=True, precision="bfloat16"),
        replace(PLAIN, augmentation=True),
        replace(PLAIN, gradient_penalty=True, relativistic=True),
        replace(PLAIN, patches=True, gradient_penalty=True),
    ],
    ids=["plain", "average-bfloat16", "augmentation", "penalty-relativistic", "patches-penalty"],
)
def test_each_switch_trains(options: Options) -> None:
    gan = Gan(PLAIN_CONFIG, options)
    score = gan.state.discriminator.get_layer("score").kernel
    score.assign(np.zeros(score.shape))
    before = gan.state.arrays()
    metrics = gan.train(0, 2)
    assert metrics.shape == (2, 4)
    assert np.isfinite(metrics).all()
    # With logits of zero, the two cross-entropies are those of a coin.
    if not options.gradient_penalty:
        np.testing.assert_allclose(metrics[0, 1], 2 * np.log(2), rtol=1e-5)
    after = gan.state.arrays()
    weights = [name for name in after if name.endswith(("kernel", "gamma", "beta")) and "optimizer" not in name]
    assert all((before[name] != after[name]).any() for name in weights if not name.startswith("average"))
    assert (gan.state.average is gan.state.generator) == (not options.moving_average)


class Witness:
    """A discriminator that keeps the seeds of its masks."""

    def __init__(self, discriminator: keras.Model) -> None:
        self.discriminator, self.trainable_variables = discriminator, discriminator.trainable_variables
        self.seeds: list[tuple[int, ...]] = []

    def __call__(self, inputs: list[tf.Tensor], training: bool) -> tf.Tensor:
        assert training
        self.seeds.append(tuple(inputs[2].numpy()))
        return self.discriminator(inputs, training=training)


def test_masks_follow_from_seed_step_and_pass() -> None:
    def seeds(seed: int, first: int, stop: int) -> list[tuple[int, ...]]:
        gan = Gan(PLAIN_CONFIG, replace(PLAIN, seed=seed))
        witness = Witness(gan.state.discriminator)
        gan.steps = training.train_function(replace(gan.state, discriminator=witness), gan.config, gan.options)
        gan.train(first, stop)
        return witness.seeds

    tf.config.run_functions_eagerly(True)
    try:
        both, other = seeds(1, 0, 2), seeds(2, 0, 1)
        assert len(both) == 6 and len({*both, *other}) == 9
        assert seeds(1, 1, 2) == both[3:]
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("options", [OPTIONS, PLAIN], ids=["recipe", "plain"])
def test_a_conditional_gan_draws_different_classes(options: Options) -> None:
    gan = Gan(GanConfig(32, 8, 16, ("disc", "ring")), options)
    assert np.isfinite(gan.train(0, 2)).all()
    embedding = next(name for name in gan.state.arrays() if name.startswith("generator:") and "embedding" in name)
    untrained = training.new_state(gan.config, gan.options).arrays()[embedding]
    assert (gan.state.arrays()[embedding] != untrained).any(axis=1).all()


def test_it_learns_what_the_images_share(trained: tuple[Gan, np.ndarray]) -> None:
    gan, metrics = trained
    assert np.isfinite(metrics).all()
    latents, labels = training.fixed_latents(CONFIG, 0, 32)
    drawn = networks.to_uint8(networks.sample(gan.state.average, latents, labels))
    likeness = np.corrcoef(drawn.mean(axis=0).ravel(), IMAGES.mean(axis=0).ravel())[0, 1]
    assert likeness > 0.9


def test_each_anchor_draws_its_own_image(trained: tuple[Gan, np.ndarray]) -> None:
    gan, _ = trained
    own = sphere(gan.state.average.get_layer("anchors").anchors)
    drawn = decoder(gan.state.average)([own, tf.zeros(24, tf.int32)]).numpy()
    distance = np.abs(drawn[:, None] - (IMAGES / 127.5 - 1)[None]).mean(axis=(2, 3, 4))
    assert (np.diag(distance) < 0.5 * distance.mean()).all()
    assert (distance.argmin(axis=1) == np.arange(24)).mean() > 0.5


def test_what_lies_between_anchors_is_as_various_as_the_images(trained: tuple[Gan, np.ndarray]) -> None:
    drawn = networks.sample(trained[0].state.average, *training.fixed_latents(CONFIG, 0, 200))
    brightness, original = drawn.mean(axis=(1, 2, 3)), (IMAGES / 127.5 - 1).mean(axis=(1, 2, 3))
    assert abs(brightness.mean() - original.mean()) < original.std()
    assert brightness.std() > 0.5 * original.std()


def test_the_settled_generator_draws_alike_in_training_and_in_inference(trained: tuple[Gan, np.ndarray]) -> None:
    gan, _ = trained
    latents, labels = training.fixed_latents(CONFIG, 3, 256)
    inference = networks.sample(gan.state.average, latents, labels)
    copy = keras.models.clone_model(gan.state.average)
    copy.set_weights(gan.state.average.get_weights())
    as_trained = np.asarray(copy([latents, labels], training=True))
    assert np.sqrt(np.mean((inference - as_trained) ** 2)) < 0.1 * as_trained.std()


def test_the_average_follows_slowly() -> None:
    gan = Gan()
    gan.train(0, 3)
    name = next(x.partition(":")[2] for x in gan.state.arrays() if x.startswith("generator:") and "project/" in x)
    start = training.new_state(CONFIG, OPTIONS, np.zeros(24)).arrays()[f"generator:{name}"]
    way = np.abs(gan.state.arrays()[f"generator:{name}"] - start).mean()
    assert 0 < np.abs(gan.state.arrays()[f"average:{name}"] - start).mean() < way


def test_rows_are_means_of_whole_epochs() -> None:
    metrics = np.arange(28, dtype=np.float32).reshape(7, 4)
    assert history.epoch_rows(metrics, 3) == [(1, 3, [4, 5, 6, 7]), (2, 6, [16, 17, 18, 19])]


def test_the_first_step_that_is_not_finite_is_found() -> None:
    metrics = np.zeros((5, 4), np.float32)
    assert history.first_not_finite(metrics) is None
    metrics[3, 1], metrics[4, 0] = np.nan, np.inf
    assert history.first_not_finite(metrics) == 3


def test_the_discriminators_accuracy_is_read_at_the_middle_of_each_class() -> None:
    # Two classes whose logits lie far apart: within each, real ones are above fake ones but for the last.
    real, fake = tf.constant([11.0, 12.0, -9.0, -12.0]), tf.constant([9.0, 8.0, -11.0, -10.0])
    border = training._midpoints(real, fake, tf.constant([0, 0, 1, 1]), 3)
    np.testing.assert_allclose(border, [10, 10, -10.5, -10.5])
