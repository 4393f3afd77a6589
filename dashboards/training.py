"""Panels of the run dashboard about training: progress, GANs, classifiers."""

from dashboards import panels, pods
from dashboards.queries import last


def _epochs_done(job: str, by: str) -> str:
    trained, planned = (
        last(f'{name}{{run, job="{job}"}}') for name in ("mrigan_training_epoch", "mrigan_training_epochs_planned")
    )
    return f"sort(bottomk(6, min by (workflow, fold, {by}) ({trained} / {planned})))"


def _images_per_second(job: str, without: str) -> str:
    return f'sum without ({without}) (rate(mrigan_training_images_total{{run, job="{job}"}}[$__rate_interval]))'


def _mean_of_epochs(figure: str) -> str:
    """Return the mean over the epochs that ended since the last scrape; without one, the value of the last epoch."""
    total, count = (f"rate(mrigan_gan_epoch_{figure}_{end}{{run}}[$__rate_interval])" for end in ("sum", "count"))
    return f"max without (instance, pod) ({total} / ({count} > 0) or mrigan_gan_{figure}{{run}})"


PROGRESS = panels.section(
    "Progress",
    (8, 9),
    panels.ranking(
        "Epochs done, of those planned",
        "The trainings with the smallest share of epochs done: up to six GANs and six kinds of classifier (for several "
        "seeds, the least advanced one).",
        panels.field("percentunit", 0, "no training yet", high=1, colours={None: "blue", 1: "green"}),
        {
            "{{label}} fold {{fold}}": _epochs_done("train-gan", "label"),
            "{{network}} {{regime}} fold {{fold}}": _epochs_done("train-classifier", "network, regime"),
        },
    ),
    panels.series(
        "Pods by job",
        "Pods that Prometheus scrapes, by job. Pods that wait for a node or pull their image are not included.",
        panels.field("none", 0, pods.NO_PODS),
        {"{{job}}": "count by (job) (up{run} == 1)"},
        panels.steps(line_width=1, fill_opacity=40, stacking=panels.STACKED),
    ),
    panels.series(
        "Images per second",
        "Training throughput: real and synthetic images used for weight updates. If a line falls while its pod still "
        "runs, training is slowed down or stalled.",
        panels.field("short", None, "no training in this time"),
        {
            "{{label}} fold {{fold}}": _images_per_second("train-gan", "instance, pod"),
            "{{network}} {{regime}} fold {{fold}}": _images_per_second(
                "train-classifier", "instance, pod, seed, control"
            ),
        },
    ),
)

GANS = panels.section(
    "GANs: train-gan",
    (12, 9),
    panels.series(
        "Loss of generator and discriminator",
        "Mean over epochs, in nats. Both should converge. A discriminator loss of 0.69 means guessing (1.39 without "
        "the relativistic loss), near 0 means that it dominates. A loss that becomes infinite or NaN ends the "
        "training.",
        panels.field("none", 2, "no GAN in training"),
        {"{{label}} fold {{fold}} {{model}}": _mean_of_epochs("loss")},
        panels.lines(axis_label="nats"),
        overrides={"/discriminator$/": panels.DASHED},
    ),
    panels.series(
        "Discriminator accuracy",
        "Share of real and of generated images whose logits are on the correct side of the midpoint between the two. "
        "Good values are slightly above 50 % for both. If both stay above the red line (98 %), the discriminator "
        "dominates and the generator learns little.",
        panels.field("percentunit", 0, "no GAN in training", high=1),
        {"{{label}} fold {{fold}} {{images}}": _mean_of_epochs("discriminator_accuracy_ratio")},
        limit=0.98,
        overrides={"/fake$/": panels.DASHED},
    ),
)

CLASSIFIER = "{{network}} {{regime}} fold {{fold}} {{split}}"
CLASSIFIERS = panels.section(
    "Classifiers: train-classifier",
    (12, 9),
    panels.series(
        "Loss on training and held-out images",
        "Mean cross-entropy of the last epoch, in nats, averaged over seeds, without the controls. If the held-out "
        "loss (of the averaged weights) rises while the training loss falls, the classifier overfits. There is no "
        "early stop.",
        panels.field("none", 2, "no classifier in training"),
        {CLASSIFIER: 'avg without (instance, pod, seed) (mrigan_classifier_loss{run, control="none"})'},
        panels.lines(axis_label="nats"),
        overrides={"/training$/": panels.DASHED},
    ),
    panels.series(
        "Accuracy by epoch",
        "Accuracy in the last epoch, averaged over seeds, without the controls. The held-out accuracy is not used for "
        "model selection. The final results, with intervals, are in the report.",
        panels.field("percentunit", 0, "no classifier in training", high=1),
        {CLASSIFIER: 'avg without (instance, pod, seed) (mrigan_classifier_accuracy_ratio{run, control="none"})'},
        overrides={"/training$/": panels.DASHED},
    ),
)
