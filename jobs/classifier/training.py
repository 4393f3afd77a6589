"""Training of a classifier: the schedule, batches by (seed, step), epochs and checkpoints."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np

from jobs.classifier import networks, stepping
from jobs.classifier.batches import Images, Phantoms, assemble
from jobs.classifier.history import FIGURES
from jobs.classifier.networks import Architecture
from jobs.common import logs, metrics, progress, tables
from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import UserError
from jobs.common.seeds import derive

log = logging.getLogger("mrigan.classifier")

WARMUP = 0.05  # of all steps
PRETRAINING = 1 / 3  # part of all steps for training on synthetic images, before real images
GROWTH, GROWTH_START = 0.5, 0.1  # part of all steps in which augmentation grows to full strength, and initial strength
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
    state, take_steps = stepping.prepare(architecture, precision, settings.batch, settings.augmentation, xla)
    state.start(initial)
    # All views, one image at a time, would take longer than the training itself.
    look = networks.one_view_predictor(state.model, settings.batch)
    seed = derive(settings.seed, "augmentation")
    history: list[Epoch] = []
    running = np.zeros((0, 2), np.float32)  # loss and accuracy of this epoch's steps so far
    position = 0

    restored = checkpoints.restore()
    if restored is not None:
        arrays, meta = restored
        state.load(arrays)
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
            seen: tuple[float | None, float | None] = (None, None)
            if held_out:
                state.show_average()
                seen = loss_and_accuracy(look(held_out.pixels), held_out.labels)
            mean = running.mean(axis=0, dtype=np.float64)
            history.append(Epoch(len(history) + 1, position, float(mean[0]), float(mean[1]), *seen))
            _tell_epoch(told, history[-1], settings.epochs)
            running = running[:0]
        told.steps(position, len(history), count * settings.batch)
        progress.tell(len(history) * settings.steps_per_epoch + len(running), settings.steps)

        if checkpoints.due(position):
            meta = {"step": str(position), "history": json.dumps([asdict(row) for row in history])}
            checkpoints.save(position, state.arrays() | {"running": running}, meta)

    state.show_average()
    return state.model, history


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
