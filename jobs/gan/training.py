"""One training step of a DCGAN, several of them per call into TensorFlow, and the state they change.

The random numbers of a step (latents, augmentation, noise, dropout) depend only on the seed and the step number; its
images come from a permutation that depends only on the seed and the epoch. There is no random state between steps.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from jobs.common import tensors
from jobs.common.seeds import derive
from jobs.gan import networks
from jobs.gan.anchors import decoder, sphere
from jobs.gan.augmentation import augment
from jobs.gan.networks import GanConfig

METRICS = ("generator_loss", "discriminator_loss", "discriminator_accuracy_real", "discriminator_accuracy_fake")
BETA_1 = 0.5
AVERAGE_DECAY = 0.999
STATISTICS_BATCHES, STATISTICS_BATCH = 8, 64
PENALTY, PENALTY_EVERY = 0.1, 8  # weight of the gradient penalties, and the steps between two of them
ANCHOR_RATE = 0.02  # of an anchor's length, at most, in a step
ANCHOR_NOISE = 0.1  # standard deviation, so that an image is drawn from all around its anchor
SCALES = 4  # at which a drawn image is compared with its original, each half as fine as the one before


@dataclass(frozen=True)
class Options:
    """How a GAN is trained: steps in all, batch in images, Adam's learning rate, and which stabilizers are on."""

    seed: int
    steps: int
    batch: int
    learning_rate: float
    augmentation: bool = True
    gradient_penalty: bool = True
    moving_average: bool = True
    patches: bool = True
    relativistic: bool = True
    precision: str = "float32"
    xla: bool = False

    @property
    def dropout(self) -> bool:
        """Whether the discriminator has dropout: where nothing else regularizes its weights, as in plain DCGAN."""
        return not self.gradient_penalty


@dataclass(frozen=True)
class State:
    """The state that a training step changes. `average` is the result: without averaging, the trained generator."""

    generator: keras.Model
    discriminator: keras.Model
    average: keras.Model
    generator_optimizer: keras.optimizers.Optimizer
    discriminator_optimizer: keras.optimizers.Optimizer

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every variable, by part and name."""
        found: dict[str, np.ndarray] = {}
        for prefix, part in self._parts():
            found |= tensors.model_arrays(part, prefix)
        return found

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set every variable from what `arrays` returned. Raises UserError if they belong to other networks."""
        for prefix, part in self._parts():
            tensors.load_model_arrays(part, arrays, prefix)

    def _parts(self) -> list[tuple[str, keras.Model | keras.optimizers.Optimizer]]:
        parts = [
            ("generator:", self.generator),
            ("discriminator:", self.discriminator),
            ("generator-optimizer:", self.generator_optimizer),
            ("discriminator-optimizer:", self.discriminator_optimizer),
        ]
        return parts if self.average is self.generator else [*parts, ("average:", self.average)]


def new_state(config: GanConfig, options: Options, classes: np.ndarray | None = None) -> State:
    """Return untrained networks and their optimizers, initialized from the seed.

    A GAN with anchors needs `classes`, int [anchors]: the class index of each training image.
    """
    generator = networks.build_generator(config, seed=options.seed, precision=options.precision)
    average = generator
    if options.moving_average:
        average = networks.build_generator(config, seed=options.seed, precision=options.precision)
    if config.anchors:
        for model in (generator, average):
            model.get_layer("anchors").classes.assign(classes)
    discriminator = networks.build_discriminator(
        config,
        patches=options.patches,
        dropout=options.dropout,
        seed=options.seed,
        precision=options.precision,
    )
    optimizers = []
    for name, model in (("generator", generator), ("discriminator", discriminator)):
        optimizer = keras.optimizers.Adam(options.learning_rate, beta_1=BETA_1, name=f"{name}-adam")
        optimizer.build(model.trainable_variables)
        optimizers.append(optimizer)
    return State(generator, discriminator, average, *optimizers)


def train_function(state: State, config: GanConfig, options: Options) -> Callable[..., tf.Tensor]:
    """Return a function that trains `state` for k steps in one call into TensorFlow.

    It takes images uint8 [k, batch, size, size, 1], class indices int32 [k, batch], the images' numbers among the
    training images int32 [k, batch] (read with anchors only), and the first step's number, int64; it gives METRICS,
    float32 [k, 4].
    """
    base = (options.seed, derive(options.seed, "training-step"))
    if config.anchors:
        anchors, decode = state.generator.get_layer("anchors"), decoder(state.generator)

    @tf.function(jit_compile=options.xla)
    def one(images: tf.Tensor, labels: tf.Tensor, numbers: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        seeds = tf.unstack(tf.random.split(tf.random.fold_in(tf.constant(base, tf.int32), step), 5))
        real = tf.cast(images, tf.float32) / 127.5 - 1
        latents = tf.random.stateless_normal((options.batch, config.latent), seeds[0])

        def shown(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return augment(images, seed) if options.augmentation else images

        def judge(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            inputs = [shown(images, seed), labels]
            return state.discriminator([*inputs, seed] if options.dropout else inputs, training=True)

        def adversarial(better: tf.Tensor, worse: tf.Tensor) -> tf.Tensor:
            if options.relativistic:
                return tf.reduce_mean(tf.nn.softplus(worse - better))
            return tf.reduce_mean(tf.nn.softplus(-better)) + tf.reduce_mean(tf.nn.softplus(worse))

        def penalize() -> tf.Tensor:
            """Penalize the gradients of the logits at real and generated images.

            Mescheder, Geiger & Nowozin, "Which training methods for GANs do actually converge?", ICML 2018,
            https://arxiv.org/abs/1801.04406 (R1, R2); every few steps: Karras et al., "Analyzing and improving the
            image quality of StyleGAN", CVPR 2020, https://arxiv.org/abs/1912.04958; with the relativistic loss: Huang
            et al., "The GAN is dead; long live the GAN!", NeurIPS 2024, https://arxiv.org/abs/2501.05441.
            """
            with tf.GradientTape() as tape:
                penalty = tf.zeros(())
                for seen in (shown(real, seeds[1]), shown(fake, seeds[2])):
                    with tf.GradientTape() as inner:
                        inner.watch(seen)
                        logits = state.discriminator([seen, labels], training=True)
                    squares = tf.square(inner.gradient(logits, seen))
                    # The gradient is that of the sum of an image's logits.
                    penalty += tf.reduce_mean(tf.reduce_sum(squares, axis=(1, 2, 3))) / tf.size(logits[0], tf.float32)
                penalty *= PENALTY / 2 * PENALTY_EVERY
            _descend(state.discriminator, state.discriminator_optimizer, tape, penalty)
            return penalty

        with tf.GradientTape() as generator_tape:
            reconstruction = tf.zeros(())
            if config.anchors:
                # A one-hot product: its transpose sums the gradients of an anchor in a deterministic order.
                chosen = tf.one_hot(numbers, config.anchors)
                own = sphere(tf.tensordot(chosen, anchors.anchors, 1))
                generator_tape.watch(own)
                noise = ANCHOR_NOISE * tf.random.stateless_normal(tf.shape(own), seeds[4])
                mixtures = tf.stop_gradient(anchors([latents, labels]))
                both = tf.concat([sphere(own + noise), mixtures], 0)
                drawn, fake = tf.split(decode([both, tf.concat([labels, labels], 0)], training=True), 2)
                reconstruction = _difference(drawn, real)
            else:
                fake = state.generator([latents, labels], training=True)

            with generator_tape.stop_recording():
                with tf.GradientTape() as discriminator_tape:
                    real_logits = judge(real, seeds[1])
                    fake_logits = judge(fake, seeds[2])
                    discriminator_loss = adversarial(real_logits, fake_logits)
                _descend(state.discriminator, state.discriminator_optimizer, discriminator_tape, discriminator_loss)
                if options.gradient_penalty:
                    tf.cond(step % PENALTY_EVERY == 0, penalize, lambda: tf.zeros(()))

            logits = judge(fake, seeds[3])
            # Non-saturating: the generator raises the logits of its images instead of lowering their complement.
            generator_loss = (
                adversarial(logits, real_logits) if options.relativistic else tf.reduce_mean(tf.nn.softplus(-logits))
            )
            loss = generator_loss + reconstruction
        if config.anchors:
            weights = [variable.value for variable in state.generator.trainable_variables]
            *gradients, of_anchors = generator_tape.gradient(loss, [*weights, own])
            state.generator_optimizer.apply(gradients, state.generator.trainable_variables)
            rate = ANCHOR_RATE * (1 - tf.cast(step, tf.float32) / options.steps)
            move = rate * sphere(of_anchors)
            anchors.anchors.assign_sub(tf.tensordot(chosen, move, [[0], [0]]))
        else:
            _descend(state.generator, state.generator_optimizer, generator_tape, loss)

        if options.moving_average:
            _follow(state.average, state.generator, step)
            if config.anchors:
                state.average.get_layer("anchors").anchors.assign(anchors.anchors)
        real_logits, fake_logits = (tf.reduce_mean(logits, axis=(1, 2)) for logits in (real_logits, fake_logits))
        # The relativistic loss does not fix the zero of the logits, and the offset differs between classes.
        border = _midpoints(real_logits, fake_logits, labels, len(config.labels)) if options.relativistic else 0.0
        accuracies = [_share(real_logits > border), _share(fake_logits < border)]
        return tf.stack([generator_loss, discriminator_loss, *accuracies])

    size = config.image_size
    signature = (
        tf.TensorSpec((None, options.batch, size, size, 1), tf.uint8),
        tf.TensorSpec((None, options.batch), tf.int32),
        tf.TensorSpec((None, options.batch), tf.int32),
        tf.TensorSpec((), tf.int64),
    )

    @tf.function(input_signature=signature)
    def several(images: tf.Tensor, labels: tf.Tensor, numbers: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images)[0]
        metrics = tf.TensorArray(tf.float32, count, element_shape=(len(METRICS),))
        for i in tf.range(count):
            metrics = metrics.write(i, one(images[i], labels[i], numbers[i], first + tf.cast(i, tf.int64)))
        return metrics.stack()

    return several


def _difference(drawn: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Return the mean absolute difference of images [n, size, size, 1], summed over SCALES."""
    total = tf.zeros(())
    for _ in range(SCALES):
        total += tf.reduce_mean(tf.abs(drawn - real))
        drawn, real = (tf.nn.avg_pool2d(images, 2, 2, "SAME") for images in (drawn, real))
    return total


def _midpoints(real: tf.Tensor, fake: tf.Tensor, labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Return for each place of a batch the mean of the logits `real` and `fake`, float32 [n], of its class."""
    own = tf.one_hot(labels, classes)
    sums = tf.linalg.matvec(own, (real + fake) / 2, transpose_a=True)
    return tf.linalg.matvec(own, tf.math.divide_no_nan(sums, tf.reduce_sum(own, axis=0)))


def _share(hits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def _descend(model: keras.Model, optimizer: keras.optimizers.Optimizer, tape: tf.GradientTape, loss: tf.Tensor) -> None:
    variables = [variable.value for variable in model.trainable_variables]
    # The penalty does not depend on the last bias.
    gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    optimizer.apply(gradients, model.trainable_variables)


def _follow(average: keras.Model, generator: keras.Model, step: tf.Tensor) -> None:
    """Move the average's weights toward the generator's; the first steps count less, since they are noise.

    Its batch norm statistics are not averaged: `settle` measures them.
    """
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(AVERAGE_DECAY, (1 + step) / (10 + step))
    for slow, fast in zip(average.trainable_variables, generator.trainable_variables, strict=True):
        slow.assign(decay * slow.value + (1 - decay) * fast.value)


def settle(generator: keras.Model, config: GanConfig, seed: int) -> None:
    """Set the batch norm statistics of `generator` to their means over fixed random latents.

    Statistics averaged along with the weights do not fit, because an averaged network has different activations.
    ("Standing statistics": Brock, Donahue & Simonyan, "Large scale GAN training for high fidelity natural image
    synthesis", ICLR 2019. https://arxiv.org/abs/1809.11096)
    """
    rng = np.random.default_rng(derive(seed, "statistics"))
    layers = [layer for layer in generator.layers if isinstance(layer, keras.layers.BatchNormalization)]
    labels = np.arange(STATISTICS_BATCH, dtype=np.int32) % len(config.labels)
    for batch in range(STATISTICS_BATCHES):
        for layer in layers:
            layer.momentum = batch / (batch + 1)
        generator([rng.standard_normal((STATISTICS_BATCH, config.latent), np.float32), labels], training=True)
    for layer in layers:
        layer.momentum = networks.BATCH_NORM_MOMENTUM


def steps_per_epoch(count: int, batch: int) -> int:
    """Return the number of batches for `count` images; the last batch is filled up from the epoch's start."""
    return math.ceil(count / batch)


def steps_per_call(image_size: int) -> int:
    """Return the number of steps per call: large for a small overhead, but small for a quick response to signals."""
    return max(1, 8 * 64**2 // max(64, image_size) ** 2)


def batches(seed: int, count: int, batch: int, first: int, stop: int) -> np.ndarray:
    """Return the images of the steps first <= step < stop: int [steps, batch], each below `count`."""
    per_epoch = steps_per_epoch(count, batch)
    rows = []
    for step in range(first, stop):
        epoch, position = divmod(step, per_epoch)
        rows.append(_permutation(seed, count, epoch, per_epoch * batch)[position * batch : (position + 1) * batch])
    return np.stack(rows)


@functools.lru_cache(2)
def _permutation(seed: int, count: int, epoch: int, length: int) -> np.ndarray:
    order = np.random.default_rng(derive(seed, "epoch", epoch)).permutation(count)
    return np.resize(order, length)


def epoch_rows(metrics: np.ndarray, per_epoch: int) -> list[tuple[int, int, list[float]]]:
    """Return (epoch, its last step, means of METRICS) of every whole epoch in float32 [steps, 4]; both count from 1."""
    whole = len(metrics) // per_epoch
    means = metrics[: whole * per_epoch].reshape(whole, per_epoch, len(METRICS)).astype(np.float64).mean(axis=1)
    return [(epoch + 1, (epoch + 1) * per_epoch, list(means[epoch])) for epoch in range(whole)]


def first_not_finite(metrics: np.ndarray) -> int | None:
    """Return the row of float32 [steps, 4] that first holds a value that is not finite, None if all are."""
    bad = ~np.isfinite(metrics).all(axis=1)
    return int(bad.argmax()) if bad.any() else None


def fixed_latents(config: GanConfig, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` latents, float32 [count, latent], and class indices, int32 [count] in order of class."""
    latents = np.random.default_rng(derive(seed, "grid")).standard_normal((count, config.latent), np.float32)
    labels: Sequence[int] = sorted(index % len(config.labels) for index in range(count))
    return latents, np.array(labels, np.int32)
