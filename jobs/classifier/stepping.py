"""Several training steps of a classifier in one call into TensorFlow, and the state they change.

All weights are slices of one vector, like their moments and averages: hundreds of small operations for each of these
would take longer to trace, and in a small network longer to run, than the network itself.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import keras
import numpy as np
import tensorflow as tf

from jobs.classifier import networks
from jobs.classifier.augmentation import augment, mix
from jobs.classifier.networks import Architecture
from jobs.common import tensors
from jobs.common.adam import apply_adam
from jobs.common.errors import UserError

LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.05  # of kernels, times the learning rate
BETAS, EPSILON = (0.9, 0.999), 1e-7
AVERAGE_DECAY = 0.99


@dataclass(frozen=True)
class Vectors:
    """The values of a training, float32 [weights] or [statistics].

    `weights` are the trainable variables, those with several axes (kernels) first; `statistics` are the others. `first`
    and `second` are Adam's moments; the averages are those of the weights and statistics of all steps so far.
    """

    weights: tf.Variable
    statistics: tf.Variable
    first: tf.Variable
    second: tf.Variable
    average_weights: tf.Variable
    average_statistics: tf.Variable


class State:
    """The state of a training, and `model`, a network of its shape."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
        others = [variable for variable in model.trainable_variables if len(variable.shape) <= 1]
        self._weights = self._kernels + others
        weights, statistics = (np.zeros(_size(x), np.float32) for x in (self._weights, model.non_trainable_variables))
        parts = (weights, statistics, weights, weights, weights, statistics)
        self.vectors = Vectors(*(tf.Variable(part, trainable=False) for part in parts))

    @property
    def kernels(self) -> int:
        """The number of weights that are in kernels: the first ones."""
        return _size(self._kernels)

    def start(self, initial: Mapping[str, np.ndarray]) -> None:
        """Begin with the weights `initial` of `networks.initial_weights`. Raises UserError if they do not fit."""
        tensors.load_model_arrays(self.model, initial)
        weights, statistics = (_flat(x) for x in (self._weights, self.model.non_trainable_variables))
        zeros = np.zeros_like(weights)
        self._assign(Vectors(weights, statistics, zeros, zeros, weights, statistics))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all vectors by name, for a checkpoint."""
        return {field.name: getattr(self.vectors, field.name).numpy() for field in fields(Vectors)}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue with what `arrays` returned. Raises UserError if it belongs to another network."""
        try:
            self._assign(Vectors(*(arrays[field.name] for field in fields(Vectors))))
        except (KeyError, ValueError) as error:
            raise UserError("the checkpoint belongs to another network: use the settings of its training") from error

    def show_average(self) -> None:
        """Give `model` the averages of weights and statistics."""
        vectors = self.vectors
        _spread(vectors.average_weights.numpy(), self._weights)
        _spread(vectors.average_statistics.numpy(), self.model.non_trainable_variables)

    def logits(self, weights: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return logits [n, classes] in training mode, and the new statistics, with the vector `weights`."""
        model = self.model
        slices = {id(own): value for own, value in zip(self._weights, _cut(weights, self._weights), strict=True)}
        trainable = [slices[id(variable)] for variable in model.trainable_variables]
        statistics = _cut(self.vectors.statistics.read_value(), model.non_trainable_variables)
        logits, changed = model.stateless_call(trainable, statistics, images, training=True)
        return logits, tf.concat([tf.reshape(value, [-1]) for value in changed], 0)

    def _assign(self, values: Vectors) -> None:
        for field in fields(Vectors):
            getattr(self.vectors, field.name).assign(getattr(values, field.name))


def _size(variables: list[keras.Variable]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def _flat(variables: list[keras.Variable]) -> np.ndarray:
    return np.concatenate([variable.numpy().ravel() for variable in variables])


def _cut(vector: tf.Tensor, variables: list[keras.Variable]) -> list[tf.Tensor]:
    parts = tf.split(vector, [int(np.prod(variable.shape)) for variable in variables])
    return [tf.reshape(part, variable.shape) for part, variable in zip(parts, variables, strict=True)]


def _spread(vector: np.ndarray, variables: list[keras.Variable]) -> None:
    ends = np.cumsum([int(np.prod(variable.shape)) for variable in variables])
    for variable, part in zip(variables, np.split(vector, ends[:-1]), strict=True):
        variable.assign(part.reshape(variable.shape))


# A pipeline trains many classifiers of one shape: tracing takes longer than a short training.
@functools.lru_cache(maxsize=1)
def prepare(
    architecture: Architecture, precision: str, batch: int, augmentation: float, xla: bool
) -> tuple[State, Callable[..., tf.Tensor]]:
    """Return a state, and a function that trains it for k steps in one call into TensorFlow.

    Arguments of the function: images uint8 [k, batch, size, size], targets float32 [k, batch, classes], learning rates
    and strengths of the augmentation float32 [k], a seed int32, and the steps' numbers int32 [k]. The result is float32
    [k, 2]: loss in nats, and accuracy.
    """
    state = State(networks.build(architecture, precision=precision))
    vectors, size, classes = state.vectors, architecture.image_size, len(architecture.labels)

    def adamw(gradient: tf.Tensor, rate: tf.Tensor, step: tf.Tensor) -> None:
        """Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019."""
        decayed = vectors.weights[: state.kernels] * (1.0 - rate * WEIGHT_DECAY)
        vectors.weights.assign(tf.concat([decayed, vectors.weights[state.kernels :]], 0))
        count = tf.cast(step + 1, tf.float32)
        moments = vectors.first, vectors.second
        apply_adam(vectors.weights, *moments, gradient, rate=rate, count=count, betas=BETAS, epsilon=EPSILON)

    def follow(step: tf.Tensor) -> None:
        """Move the averages toward weights and statistics; the first steps count less, being noise."""
        count = tf.cast(step, tf.float32)
        decay = tf.minimum(AVERAGE_DECAY, (1.0 + count) / (10.0 + count))
        vectors.average_weights.assign_sub((1.0 - decay) * (vectors.average_weights - vectors.weights))
        vectors.average_statistics.assign_sub((1.0 - decay) * (vectors.average_statistics - vectors.statistics))

    def take_step(gray: tf.Tensor, targets: tf.Tensor, truth: tf.Tensor, rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            weights = vectors.weights.read_value()
            tape.watch(weights)
            logits, statistics = state.logits(weights, networks.network_input(gray))
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        adamw(tape.gradient(loss, weights), rate, step)
        vectors.statistics.assign(statistics)
        follow(step)
        hits = tf.gather(truth, tf.argmax(logits, axis=1), batch_dims=1) > 0.0
        return tf.stack([loss, tf.reduce_mean(tf.cast(hits, tf.float32))])

    if xla:
        # Only this part: XLA has no affine transform.
        take_step = tf.function(take_step, jit_compile=True, autograph=False)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, batch, size, size], tf.uint8),
            tf.TensorSpec([None, batch, classes], tf.float32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def take_steps(
        pixels: tf.Tensor,
        truths: tf.Tensor,
        rates: tf.Tensor,
        strengths: tf.Tensor,
        seed: tf.Tensor,
        steps: tf.Tensor,
    ) -> tf.Tensor:
        count = tf.shape(steps)[0]

        def body(i: tf.Tensor, values: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            gray = tf.cast(pixels[i], tf.float32) / 255.0
            targets = truths[i] * (1.0 - LABEL_SMOOTHING) + LABEL_SMOOTHING / classes
            if augmentation:
                seeds = tf.unstack(tf.random.split(tf.stack([seed, steps[i]]), 2))
                gray, targets = mix(augment(gray, seeds[0], strengths[i]), targets, seeds[1], augmentation)
            return i + 1, values.write(i, take_step(gray, targets, truths[i], rates[i], steps[i]))

        values = tf.TensorArray(tf.float32, size=count, element_shape=[2])
        _, values = tf.while_loop(lambda i, _: i < count, body, (0, values), parallel_iterations=1)
        return values.stack()

    return state, take_steps
