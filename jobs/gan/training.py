"""One training step of a DCGAN, several of them per call into TensorFlow, and the state they change.

The random numbers of a step (latents, augmentation, noise, dropout) depend only on the seed and the step number; its
images come from a permutation that depends only on the seed and the epoch. There is no random state between steps.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jobs.common import tensors
from jobs.common.adam import apply_adam
from jobs.common.seeds import derive
from jobs.gan import networks
from jobs.gan.anchors import decoder, sphere
from jobs.gan.augmentation import augment
from jobs.gan.history import LOSS_COLUMNS
from jobs.gan.networks import GanConfig

BETA_1 = 0.5
AVERAGE_DECAY = 0.999
STATISTICS_BATCHES, STATISTICS_BATCH = 8, 64
PENALTY, PENALTY_EVERY = 0.1, 8  # weight of the gradient penalties, and the steps between two of them
ANCHOR_RATE = 0.02  # of an anchor's length, at most, in a step
ANCHOR_NOISE = 0.1  # standard deviation, so that an image is drawn from all latents near its anchor
SCALES = 4  # resolutions at which a drawn image is compared with its original: full, half, quarter, eighth


@dataclass(frozen=True)
class Options:
    """Settings of a training: total steps, images of a batch, learning rate of Adam, and stabilizers in use."""

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
        """Whether the discriminator has dropout: only the plain DCGAN, where nothing else regularizes the weights."""
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
        """Return all variables: part and name to value."""
        parts = (tensors.model_arrays(part, prefix) for prefix, part in self._parts().items())
        return {name: value for arrays in parts for name, value in arrays.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set all variables to the values from `arrays`. Raises UserError if they belong to other networks."""
        for prefix, part in self._parts().items():
            tensors.load_model_arrays(part, arrays, prefix)

    def _parts(self) -> dict[str, keras.Model | keras.optimizers.Optimizer]:
        parts = {f"{field.name.replace('_', '-')}:": getattr(self, field.name) for field in fields(self)}
        return {prefix: part for prefix, part in parts.items() if prefix != "average:" or part is not self.generator}


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam with one operation for each variable in place of some fifteen, which take long to trace."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change `variable` and its moments."""
        index, count = self._get_variable_index(variable), tf.cast(self.iterations + 1, tf.float32)
        first, second = self._momentums[index].value, self._velocities[index].value
        betas = self.beta_1, self.beta_2
        rate, epsilon = learning_rate, self.epsilon
        apply_adam(variable, first, second, gradient, rate=rate, count=count, betas=betas, epsilon=epsilon)


def new_state(config: GanConfig, options: Options, classes: np.ndarray | None = None) -> State:
    """Return untrained networks and their optimizers, initialized from the seed.

    A GAN with anchors needs `classes`, int [anchors]: the class index of each training image.
    """
    common: dict[str, Any] = {"seed": options.seed, "precision": options.precision}
    generator = networks.build_generator(config, **common)
    average = networks.build_generator(config, **common) if options.moving_average else generator
    if config.anchors:
        for model in (generator, average):
            model.get_layer("anchors").classes.assign(classes)
    discriminator = networks.build_discriminator(config, patches=options.patches, dropout=options.dropout, **common)
    optimizers = []
    for name, model in (("generator", generator), ("discriminator", discriminator)):
        optimizer = FusedAdam(options.learning_rate, beta_1=BETA_1, name=f"{name}-adam")
        optimizer.build(model.trainable_variables)
        optimizers.append(optimizer)
    return State(generator, discriminator, average, *optimizers)


def train_function(state: State, config: GanConfig, options: Options) -> Callable[..., tf.Tensor]:
    """Return a function that trains `state` for k steps in one call into TensorFlow.

    Arguments: images uint8 [k, batch, size, size, 1], class indices int32 [k, batch], the images' numbers among the
    training images int32 [k, batch] (used with anchors only), and the first step's number, int64. The result is
    float32 [k, 4]: LOSS_COLUMNS.
    """
    base = (options.seed, derive(options.seed, "training-step"))
    if config.anchors:
        anchors, decode = state.generator.get_layer("anchors"), decoder(state.generator)

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
    per_image = tf.TensorSpec((None, options.batch), tf.int32)
    pixels = tf.TensorSpec((None, options.batch, size, size, 1), tf.uint8)
    signature = (pixels, per_image, per_image, tf.TensorSpec((), tf.int64))

    if options.xla:
        one = tf.function(one, jit_compile=True, autograph=False)

    # The conversion by AutoGraph takes longer than the tracing.
    @tf.function(input_signature=signature, autograph=False)
    def several(images: tf.Tensor, labels: tf.Tensor, numbers: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images)[0]

        def body(i: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            return i + 1, losses.write(i, one(images[i], labels[i], numbers[i], first + tf.cast(i, tf.int64)))

        losses = tf.TensorArray(tf.float32, count, element_shape=(len(LOSS_COLUMNS),))
        return tf.while_loop(lambda i, _: i < count, body, (0, losses), parallel_iterations=1)[1].stack()

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
    """Update the moving average of the generator's weights, with a faster decay at the start, when weights are noise.

    The batch norm statistics are not averaged: `settle` measures them.
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
    places = (divmod(step, per_epoch) for step in range(first, stop))
    return np.stack([_permuted(seed, count, epoch, per_epoch, batch)[position] for epoch, position in places])


@functools.lru_cache(2)
def _permuted(seed: int, count: int, epoch: int, per_epoch: int, batch: int) -> np.ndarray:
    """Return the batches of an epoch: int [per_epoch, batch]."""
    order = np.random.default_rng(derive(seed, "epoch", epoch)).permutation(count)
    return np.resize(order, (per_epoch, batch))


def fixed_latents(config: GanConfig, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` latents, float32 [count, latent], and class indices, int32 [count] in order of class."""
    latents = np.random.default_rng(derive(seed, "grid")).standard_normal((count, config.latent), np.float32)
    return latents, np.sort(np.arange(count, dtype=np.int32) % len(config.labels))
