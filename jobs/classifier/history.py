"""What Prometheus shows of each epoch of a classifier's training."""

from jobs.common.metrics import Figure

FIGURES = (
    Figure("loss", "split", ("training", "held-out"), "Mean cross-entropy per epoch, in nats."),
    Figure("accuracy_ratio", "split", ("training", "held-out"), "Accuracy per epoch."),
)
