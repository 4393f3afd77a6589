"""The GAN's training history: losses and accuracies by step and epoch, for losses.csv, log and Prometheus."""

import numpy as np

from jobs.common import logs, tables
from jobs.common.metrics import Figure, Training

LOSS_COLUMNS = ("generator_loss", "discriminator_loss", "discriminator_accuracy_real", "discriminator_accuracy_fake")
# The same four values, in the same order, as Prometheus shows them.
FIGURES = (
    Figure("loss", "model", ("generator", "discriminator"), "Mean loss per epoch, in nats."),
    Figure("discriminator_accuracy_ratio", "images", ("real", "fake"), "Accuracy of the discriminator."),
)


def epoch_rows(losses: np.ndarray, per_epoch: int) -> list[tuple[int, int, list[float]]]:
    """Return (epoch, its last step, means of LOSS_COLUMNS) of every whole epoch in float32 [steps, 4].

    Epochs and steps count from 1.
    """
    whole = len(losses) // per_epoch
    means = losses[: whole * per_epoch].reshape(whole, per_epoch, len(LOSS_COLUMNS)).astype(np.float64).mean(axis=1)
    return [(epoch + 1, (epoch + 1) * per_epoch, list(means[epoch])) for epoch in range(whole)]


def first_not_finite(losses: np.ndarray) -> int | None:
    """Return the first row of float32 [steps, 4] with a value that is not finite, None if all are finite."""
    bad = ~np.isfinite(losses).all(axis=1)
    return int(bad.argmax()) if bad.any() else None


def losses_csv(losses: np.ndarray, per_epoch: int) -> bytes:
    """Return losses.csv: the rows of `epoch_rows`."""
    return tables.to_csv(
        ["epoch", "step", *LOSS_COLUMNS],
        ([epoch, last, *(f"{mean:.6f}" for mean in means)] for epoch, last, means in epoch_rows(losses, per_epoch)),
    )


def tell_epochs(told: Training, losses: np.ndarray, per_epoch: int, before: int, epochs: int) -> None:
    """Report the whole epochs in `losses` after epoch `before` of `epochs` to Prometheus and the log."""
    for number, _, means in epoch_rows(losses[before * per_epoch :], per_epoch):
        told.epoch(means)
        figures = {name: round(mean, 6) for name, mean in zip(LOSS_COLUMNS, means, strict=True)}
        epoch = before + number
        logs.event(logs.EPOCHS, f"epoch {epoch} of {epochs}", epoch=epoch, **figures)
