"""Training of a classifier: batches by (seed, step), several steps per call into TensorFlow, the best epoch kept."""

import csv
import functools
import io
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from jobs.classifier import networks
from jobs.classifier.augmentation import augment
from jobs.classifier.networks import Architecture
from jobs.common import tensors
from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import UserError
from jobs.common.seeds import derive

log = logging.getLogger("mrigan.train_classifier")

WARMUP = 0.05  # of all steps
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.05  # of kernels, times the learning rate
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
# A call into TensorFlow cannot be interrupted: it must be short beside the time a pod has between SIGTERM and SIGKILL.
CALL_SECONDS, CALL_STEPS = 2.0, 20


class Images(NamedTuple):
    """Images of one origin: pixels uint8 [n, s, s], labels int [n] (an index of the class)."""

    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Recipe:
    """How long and how to train. `batch` is in images; `learning_rate` is the peak of the schedule."""

    epochs: int
    steps_per_epoch: int
    batch: int
    learning_rate: float
    augmentation: bool
    seed: int


@dataclass(frozen=True)
class Epoch:
    """A row of history.csv; losses are cross-entropies in nats, `step` counts the steps taken so far."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


def train(
    architecture: Architecture,
    initial: Mapping[str, np.ndarray],
    pools: Sequence[Images],
    frequencies: np.ndarray,
    validation: Images,
    recipe: Recipe,
    checkpoints: Checkpoints,
    precision: str = "float32",
    xla: bool = False,
) -> tuple[keras.Model, list[Epoch]]:
    """Train a classifier by AdamW and keep the weights of the epoch of the lowest validation loss.

    Args:
        initial: weights to start from, of `networks.initial_weights`.
        pools: training images by origin; each gives the same part of every batch.
        frequencies: float [classes], sums to 1: the classes' shares of each part.
        validation: images that choose the epoch and never change a weight.
        checkpoints: entered by the caller; a run goes on from what they hold, to the same bits.

    Returns:
        The model with the weights that were chosen, and all epochs. The model is lent until the next call.

    Raises:
        UserError: a class without an image in a pool, or a loss that is not finite.
        Interrupted: after a signal and a checkpoint.
    """
    model, moments, take_steps = _prepare(architecture, precision, recipe.batch, recipe.augmentation, xla)
    tensors.load_model_arrays(model, initial)
    for variable in moments.values():
        variable.assign(tf.zeros_like(variable))
    infer = networks.predictor(model)
    seed = derive(recipe.seed, "augmentation")
    history: list[Epoch] = []
    best = dict(initial)
    running = np.zeros((0, 2), np.float32)  # loss and accuracy of this epoch's steps so far
    position = 0

    restored = checkpoints.restore()
    if restored is not None:
        arrays, meta = restored
        tensors.load_model_arrays(model, arrays, "model/")
        for name, variable in moments.items():
            variable.assign(arrays[f"moment/{name}"])
        best = {name.removeprefix("best/"): value for name, value in arrays.items() if name.startswith("best/")}
        running, position = arrays["running"], int(meta["step"])
        history = [Epoch(**row) for row in json.loads(meta["history"])]
        log.info("going on after step %d", position)

    steps_per_call = 1
    while position < recipe.epochs * recipe.steps_per_epoch:
        # -- a few steps -----------------------------------------------------------------------------------------
        count = min(steps_per_call, recipe.steps_per_epoch - len(running))
        batches = [assemble(pools, frequencies, recipe, position + i) for i in range(count)]
        rates = [learning_rate(recipe, position + i) for i in range(count)]
        started = time.monotonic()
        values = take_steps(
            np.stack([pixels for pixels, _ in batches]),
            np.stack([labels for _, labels in batches]),
            np.array(rates, np.float32),
            np.int32(seed),
            np.arange(position, position + count, dtype=np.int32),
        ).numpy()
        seconds = (time.monotonic() - started) / count
        steps_per_call = max(1, min(CALL_STEPS, int(CALL_SECONDS / seconds)))
        if not np.isfinite(values).all():
            raise UserError(
                f"the training loss is not finite in steps {position + 1} to {position + count}: "
                f"lower --classifier-learning-rate (now {recipe.learning_rate})"
            )
        running, position = np.concatenate([running, values]), position + count

        # -- the end of an epoch ---------------------------------------------------------------------------------
        if len(running) == recipe.steps_per_epoch:
            loss, accuracy = score(infer(validation.pixels), validation.labels)
            mean = running.mean(axis=0, dtype=np.float64)
            if not history or loss < min(row.validation_loss for row in history):
                best = tensors.model_arrays(model)
            history.append(Epoch(len(history) + 1, position, float(mean[0]), float(mean[1]), loss, accuracy))
            log.info(
                "epoch %d of %d: training loss %.4f, accuracy %.3f; validation loss %.4f, accuracy %.3f",
                *(len(history), recipe.epochs, mean[0], mean[1], loss, accuracy),
            )
            running = running[:0]

        if checkpoints.due(position):
            state = tensors.model_arrays(model, "model/")
            state |= {f"best/{name}": value for name, value in best.items()}
            state |= {f"moment/{name}": variable.numpy() for name, variable in moments.items()}
            meta = {"step": str(position), "history": json.dumps([asdict(row) for row in history])}
            checkpoints.save(position, state | {"running": running}, meta)

    tensors.load_model_arrays(model, best)
    return model, history


def assemble(
    pools: Sequence[Images], frequencies: np.ndarray, recipe: Recipe, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step, a function of the recipe's seed and the step alone.

    Each pool gives an equal part. Within a part the classes are drawn by systematic sampling, so that their counts
    differ from `frequencies` by less than one image; the images of a class are drawn evenly, with replacement.

    Returns:
        uint8 [batch, s, s] and int32 [batch].

    Raises:
        UserError: a pool has no image of a class that is to be drawn.
    """
    generator = np.random.default_rng(derive(recipe.seed, "batch", step))
    pixels, labels = [], []
    for number, pool in enumerate(pools):
        size = recipe.batch * (number + 1) // len(pools) - recipe.batch * number // len(pools)
        marks = (np.arange(size) + generator.random()) / max(size, 1)
        drawn = np.searchsorted(np.cumsum(frequencies)[:-1], marks, side="right")
        indices = np.zeros(size, np.int64)
        for label in np.unique(drawn):
            members = np.flatnonzero(pool.labels == label)
            if not len(members):
                raise UserError(f"no training image of class number {label}: use fewer folds or more images")
            indices[drawn == label] = generator.choice(members, int((drawn == label).sum()))
        pixels.append(pool.pixels[indices])
        labels.append(drawn)
    return np.concatenate(pixels), np.concatenate(labels).astype(np.int32)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter, 2017); `step` counts from 0."""
    total = recipe.epochs * recipe.steps_per_epoch
    warmup = max(1, round(WARMUP * total))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


# A pipeline trains many classifiers of one shape: tracing takes longer than a short training.
@functools.lru_cache(maxsize=1)
def _prepare(
    architecture: Architecture, precision: str, batch: int, augmentation: bool, xla: bool
) -> tuple[keras.Model, dict[str, tf.Variable], Callable[..., tf.Tensor]]:
    """A model, its optimizer's moments by name, and a function that takes several training steps in one call."""
    model = networks.build(architecture, precision=precision)
    weights = [variable.value for variable in model.trainable_variables]
    moments = {
        f"{index:04d}/{kind}": tf.Variable(tf.zeros_like(weight), trainable=False)
        for index, weight in enumerate(weights)
        for kind in ("first", "second")
    }
    size, classes = model.input_shape[1], model.output_shape[-1]

    def adamw(gradients: Sequence[tf.Tensor], rate: tf.Tensor, step: tf.Tensor) -> None:
        """Loshchilov & Hutter (2019). The fused kernel halves the time to trace and to run against keras.optimizers."""
        count = tf.cast(step + 1, tf.float32)
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if len(weight.shape) > 1:
                weight.assign_sub(weight * (rate * WEIGHT_DECAY))
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=moments[f"{index:04d}/first"].handle,
                v=moments[f"{index:04d}/second"].handle,
                beta1_power=tf.pow(BETA1, count),
                beta2_power=tf.pow(BETA2, count),
                lr=rate,
                beta1=BETA1,
                beta2=BETA2,
                epsilon=EPSILON,
                grad=gradient,
            )

    @tf.function(jit_compile=xla, autograph=False)
    def take_step(gray: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        targets = tf.one_hot(labels, classes) * (1.0 - LABEL_SMOOTHING) + LABEL_SMOOTHING / classes
        with tf.GradientTape() as tape:
            logits = model(networks.network_input(gray), training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        adamw(tape.gradient(loss, weights), rate, step)
        hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return tf.stack([loss, tf.reduce_mean(tf.cast(hits, tf.float32))])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, batch, size, size], tf.uint8),
            tf.TensorSpec([None, batch], tf.int32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def take_steps(
        pixels: tf.Tensor, labels: tf.Tensor, rates: tf.Tensor, seed: tf.Tensor, steps: tf.Tensor
    ) -> tf.Tensor:
        count = tf.shape(steps)[0]

        def body(i: tf.Tensor, values: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            gray = tf.cast(pixels[i], tf.float32) / 255.0
            if augmentation:
                gray = augment(gray, tf.stack([seed, steps[i]]))
            return i + 1, values.write(i, take_step(gray, labels[i], rates[i], steps[i]))

        values = tf.TensorArray(tf.float32, size=count, element_shape=[2])
        _, values = tf.while_loop(lambda i, _: i < count, body, (0, values), parallel_iterations=1)
        return values.stack()

    return model, moments, take_steps


def score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy, of probabilities [n, classes] for true labels int [n]."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    loss = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean()
    return float(loss), float((probabilities.argmax(axis=1) == labels).mean())


def chosen_epoch(history: Sequence[Epoch]) -> int:
    """The number of the first epoch with the lowest validation loss."""
    return min(history, key=lambda row: row.validation_loss).epoch


def history_csv(history: Sequence[Epoch]) -> bytes:
    """history.csv: a row for each epoch; `chosen` is 1 for the one whose weights are kept."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*Epoch.__dataclass_fields__, "chosen"])
    best = chosen_epoch(history)
    for row in history:
        figures = (row.train_loss, row.train_accuracy, row.validation_loss, row.validation_accuracy)
        writer.writerow([row.epoch, row.step, *(f"{value:.6f}" for value in figures), int(row.epoch == best)])
    return text.getvalue().encode()
