"""Training of a classifier: batches by (seed, step), several steps per call into TensorFlow, averaged weights kept."""

import functools
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from jobs.classifier import networks
from jobs.classifier.augmentation import augment, mix
from jobs.classifier.batches import Images, Phantoms, assemble
from jobs.classifier.history import FIGURES
from jobs.classifier.networks import Architecture
from jobs.common import logs, metrics, progress, tables, tensors
from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import UserError
from jobs.common.seeds import derive

log = logging.getLogger("mrigan.classifier")

WARMUP = 0.05  # of all steps
PRETRAINING = 1 / 3  # part of all steps for training on synthetic images, before real images
GROWTH, GROWTH_START = 0.5, 0.1  # part of all steps in which augmentation grows to full strength, and initial strength
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.05  # of kernels, times the learning rate
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
AVERAGE_DECAY = 0.99
# A call into TensorFlow cannot be interrupted: it must be short compared with the time between SIGTERM and SIGKILL.
CALL_SECONDS, CALL_STEPS = 2.0, 20


@dataclass(frozen=True)
class Hyperparameters:
    """Duration and settings of a training.

    `batch` is in images; `learning_rate` is the peak of the schedule; `augmentation`, 0 to 1, is the final strength of
    augmentation (0: none); `remedy` is the advice in the error message for a loss that is not finite.
    """

    epochs: int
    steps_per_epoch: int
    batch: int
    learning_rate: float
    augmentation: float
    seed: int
    remedy: str = "lower --classifier-learning-rate"

    @property
    def steps(self) -> int:
        """All steps."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class Epoch:
    """A row of history.csv; losses are cross-entropies in nats, `step` counts the steps taken so far.

    The training values are for the changing weights, the held-out values for their moving average, with one view of
    each image. The held-out values are None without held-out images.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    held_out_loss: float | None
    held_out_accuracy: float | None


def train(
    architecture: Architecture,
    initial: Mapping[str, np.ndarray],
    pools: Sequence[Images],
    frequencies: np.ndarray,
    held_out: Images | None,
    settings: Hyperparameters,
    checkpoints: Checkpoints,
    phantoms: Phantoms | None = None,
    precision: str = "float32",
    xla: bool = False,
) -> tuple[keras.Model, list[Epoch]]:
    """Train a classifier by AdamW and return the moving average of its weights.

    There is no early stopping, so that no images are needed for the selection of an epoch; the average is as good as
    the best of the last epochs (Izmailov et al., "Averaging weights leads to wider optima and better
    generalization", UAI 2018, https://arxiv.org/abs/1803.05407; here with exponential weights).

    Args:
        initial: weights to start from, of `networks.initial_weights`.
        pools: training images by origin, one or two; with two, the first is used for PRETRAINING of all steps, then the
            second.
        frequencies: float [classes], sums to 1: the classes' shares of each batch's images.
        held_out: images for a loss curve; the training does not depend on them.
        checkpoints: entered by the caller; training resumes from them, with bit-identical results.
        phantoms: half of each batch, if given.

    Returns:
        The model with the averaged weights, and all epochs. The next call reuses and overwrites the model.

    Raises:
        UserError: a class without an image in a pool, or a loss that is not finite.
        Interrupted: after a signal and a checkpoint.
    """
    model, average, moments, take_steps = _prepare(architecture, precision, settings.batch, settings.augmentation, xla)
    for network in (model, average):
        tensors.load_model_arrays(network, initial)
    for variable in moments.values():
        variable.assign(tf.zeros_like(variable))
    # All views, one image at a time, would take longer than the training itself.
    look = networks.one_view_predictor(average, settings.batch)
    seed = derive(settings.seed, "augmentation")
    history: list[Epoch] = []
    running = np.zeros((0, 2), np.float32)  # loss and accuracy of this epoch's steps so far
    position = 0

    restored = checkpoints.restore()
    if restored is not None:
        arrays, meta = restored
        tensors.load_model_arrays(model, arrays, "model/")
        tensors.load_model_arrays(average, arrays, "average/")
        for name, variable in moments.items():
            variable.assign(arrays[f"moment/{name}"])
        running, position = arrays["running"], int(meta["step"])
        history = [Epoch(**row) for row in json.loads(meta["history"])]
        log.info("resuming after step %d", position)

    told = metrics.Training("classifier", FIGURES, settings.epochs, len(history), position)
    steps_per_call = 1
    while position < settings.steps:
        # -- a few steps -----------------------------------------------------------------------------------------
        count = min(steps_per_call, settings.steps_per_epoch - len(running))
        chosen = [batch(settings, pools, phantoms, frequencies, position + i) for i in range(count)]
        rates = [learning_rate(settings, position + i) for i in range(count)]
        strengths = [strength(settings, position + i) for i in range(count)]
        started = time.monotonic()
        with metrics.gpu_use():
            values = take_steps(
                np.stack([pixels for pixels, _ in chosen]),
                np.stack([targets for _, targets in chosen]),
                np.array(rates, np.float32),
                np.array(strengths, np.float32),
                np.int32(seed),
                np.arange(position, position + count, dtype=np.int32),
            ).numpy()
        seconds = (time.monotonic() - started) / count
        steps_per_call = max(1, min(CALL_STEPS, int(CALL_SECONDS / seconds)))
        if not np.isfinite(values).all():
            told.epoch([math.nan, None, None, None])
            raise UserError(
                f"the training loss is not finite in steps {position + 1} to {position + count}: "
                f"{settings.remedy} (the learning rate is {settings.learning_rate:g})"
            )
        running, position = np.concatenate([running, values]), position + count

        # -- the end of an epoch ---------------------------------------------------------------------------------
        if len(running) == settings.steps_per_epoch:
            seen = loss_and_accuracy(look(held_out.pixels), held_out.labels) if held_out else (None, None)
            mean = running.mean(axis=0, dtype=np.float64)
            history.append(Epoch(len(history) + 1, position, float(mean[0]), float(mean[1]), *seen))
            _tell_epoch(told, history[-1], settings.epochs)
            running = running[:0]
        told.steps(position, len(history), count * settings.batch)
        progress.tell(len(history) * settings.steps_per_epoch + len(running), settings.steps)

        if checkpoints.due(position):
            state = tensors.model_arrays(model, "model/")
            state |= tensors.model_arrays(average, "average/")
            state |= {f"moment/{name}": variable.numpy() for name, variable in moments.items()}
            meta = {"step": str(position), "history": json.dumps([asdict(row) for row in history])}
            checkpoints.save(position, state | {"running": running}, meta)

    return average, history


def _tell_epoch(told: metrics.Training, row: Epoch, epochs: int) -> None:
    """Report an epoch to Prometheus and the log."""
    text = f"epoch {row.epoch} of {epochs}: training loss {row.train_loss:.4f}, accuracy {row.train_accuracy:.3f}"
    if row.held_out_loss is not None and row.held_out_accuracy is not None:
        text += f"; held-out loss {row.held_out_loss:.4f}, accuracy {row.held_out_accuracy:.3f}"
    told.epoch([row.train_loss, row.held_out_loss, row.train_accuracy, row.held_out_accuracy])
    logs.event(log, text, **{name: round(value, 6) for name, value in asdict(row).items() if value is not None})


def batch(
    settings: Hyperparameters, pools: Sequence[Images], phantoms: Phantoms | None, frequencies: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The batch of step number `step`, from 0 (see `batches.assemble`). The same arguments give the same batch."""
    pool = pools[0] if step < PRETRAINING * settings.steps else pools[-1]
    return assemble(pool, phantoms, frequencies, settings.batch, derive(settings.seed, "batch", step))


def learning_rate(settings: Hyperparameters, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter, 2017); `step` counts from 0."""
    warmup = max(1, round(WARMUP * settings.steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))


def strength(settings: Hyperparameters, step: int) -> float:
    """The strength of augmentation, 0 to 1, in a step (from 0). With full strength from the first step, networks with
    random weights stay at chance for hundreds of steps."""
    grown = min(1.0, GROWTH_START + (1.0 - GROWTH_START) * step / max(1.0, GROWTH * settings.steps))
    return settings.augmentation * grown


# A pipeline trains many classifiers of one shape: tracing takes longer than a short training.
@functools.lru_cache(maxsize=1)
def _prepare(
    architecture: Architecture, precision: str, batch: int, augmentation: float, xla: bool
) -> tuple[keras.Model, keras.Model, dict[str, tf.Variable], Callable[..., tf.Tensor]]:
    """A model, its moving average, its optimizer's moments by name, and a function that takes several steps."""
    model, average = (networks.build(architecture, precision=precision) for _ in range(2))
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

    def follow(step: tf.Tensor) -> None:
        """Move the average toward the model, its moving statistics too; the first steps count less, being noise."""
        count = tf.cast(step, tf.float32)
        decay = tf.minimum(AVERAGE_DECAY, (1.0 + count) / (10.0 + count))
        for slow, fast in zip(average.variables, model.variables, strict=True):
            slow.value.assign_sub((1.0 - decay) * (slow.value - fast.value))

    @tf.function(jit_compile=xla, autograph=False)
    def take_step(gray: tf.Tensor, targets: tf.Tensor, truth: tf.Tensor, rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(networks.network_input(gray), training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        adamw(tape.gradient(loss, weights), rate, step)
        follow(step)
        hits = tf.gather(truth, tf.argmax(logits, axis=1), batch_dims=1) > 0.0
        return tf.stack([loss, tf.reduce_mean(tf.cast(hits, tf.float32))])

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
                # Not in `take_step`: XLA has no affine transform.
                seeds = tf.unstack(tf.random.split(tf.stack([seed, steps[i]]), 2))
                gray, targets = mix(augment(gray, seeds[0], strengths[i]), targets, seeds[1], augmentation)
            return i + 1, values.write(i, take_step(gray, targets, truths[i], rates[i], steps[i]))

        values = tf.TensorArray(tf.float32, size=count, element_shape=[2])
        _, values = tf.while_loop(lambda i, _: i < count, body, (0, values), parallel_iterations=1)
        return values.stack()

    return model, average, moments, take_steps


def loss_and_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy, of probabilities [n, classes] for true labels int [n]."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    loss = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean()
    return float(loss), float((probabilities.argmax(axis=1) == labels).mean())


def history_csv(history: Sequence[Epoch]) -> bytes:
    """history.csv: a row for each epoch; held-out values are empty without held-out images."""

    def cells(row: Epoch) -> list[int | str]:
        figures = (row.train_loss, row.train_accuracy, row.held_out_loss, row.held_out_accuracy)
        return [row.epoch, row.step, *("" if value is None else f"{value:.6f}" for value in figures)]

    return tables.to_csv(list(Epoch.__dataclass_fields__), map(cells, history))
