"""What the dashboard of a run shows of its trainings: progress, GANs, classifiers."""

from dashboards import panels
from dashboards.queries import last


def _epochs_done(job: str, by: str) -> str:
    trained, planned = (
        last(f'{name}{{run, job="{job}"}}') for name in ("mrigan_training_epoch", "mrigan_training_epochs_planned")
    )
    return f"sort(bottomk(6, min by (workflow, fold, {by}) ({trained} / {planned})))"


PROGRESS = panels.section(
    "Progress",
    (8, 9),
    panels.ranking(
        "Epochs done, of those planned",
        "The trainings that are furthest from their end: up to six GANs and six kinds of classifier, of whose seeds "
        "the last one counts.",
        panels.field("percentunit", 0, "no training yet", high=1),
        {
            "{{label}} fold {{fold}}": _epochs_done("train-gan", "label"),
            "{{network}} {{regime}} fold {{fold}}": _epochs_done("train-classifier", "network, regime"),
        },
        {None: "blue", 1: "green"},
    ),
    panels.series(
        "Pods by job",
        "Pods that answer Prometheus, by what they do. A pod that waits for a node or pulls its image is not in it.",
        panels.field("none", 0, "no pods in this time"),
        {"{{job}}": "count by (job) (up{run} == 1)"},
        panels.steps(line_width=1, fill_opacity=40, stacking=panels.STACKED),
    ),
    panels.series(
        "Images per second",
        "Real and synthetic images that change weights. A line that falls while its pod still runs: it is slowed down, "
        "or stalls.",
        panels.field("short", None, "no training in this time"),
        {
            "{{label}} fold {{fold}}": "sum without (instance, pod) "
            '(rate(mrigan_training_images_total{run, job="train-gan"}[$__rate_interval]))',
            "{{network}} {{regime}} fold {{fold}}": "sum without (instance, pod, seed, control) "
            '(rate(mrigan_training_images_total{run, job="train-classifier"}[$__rate_interval]))',
        },
    ),
)

GANS = panels.section(
    "GANs: train-gan",
    (12, 9),
    panels.series(
        "Loss of generator and discriminator",
        "Mean over epochs, in nats. Both should settle; the discriminator's at 0.69 if it only guesses (at 1.39 where "
        "gan-stabilizers lacks relativistic), near 0 if it has won. A line that breaks off upwards ends the training.",
        panels.field("none", 2, "no GAN in training"),
        {
            "{{label}} fold {{fold}} {{model}}": "max without (instance, pod) "
            "(rate(mrigan_gan_epoch_loss_sum{run}[$__rate_interval]) "
            "/ (rate(mrigan_gan_epoch_loss_count{run}[$__rate_interval]) > 0) or mrigan_gan_loss{run})"
        },
        panels.lines(axis_label="nats"),
        panels.BESIDE,
        overrides={"/discriminator$/": panels.DASHED},
    ),
    panels.series(
        "Discriminator: images read right",
        "Share of real and of fake images whose logits lie on their side of the middle between both kinds. Well is a "
        "bit above one half for both; if both stay above the red line (98 %), the discriminator has won and the "
        "generator learns little.",
        panels.field("percentunit", 0, "no GAN in training", high=1),
        {
            "{{label}} fold {{fold}} {{images}}": "max without (instance, pod) "
            "(rate(mrigan_gan_epoch_discriminator_accuracy_ratio_sum{run}[$__rate_interval]) "
            "/ (rate(mrigan_gan_epoch_discriminator_accuracy_ratio_count{run}[$__rate_interval]) > 0) "
            "or mrigan_gan_discriminator_accuracy_ratio{run})"
        },
        legend=panels.BESIDE,
        limit=0.98,
        overrides={"/fake$/": panels.DASHED},
    ),
)

CLASSIFIERS = panels.section(
    "Classifiers: train-classifier",
    (12, 9),
    panels.series(
        "Loss on training and held-out images",
        "Mean cross-entropy of the last epoch, in nats, averaged over seeds, without the controls. Held-out loss (of "
        "the averaged weights) that rises while training falls: it learns by heart. All epochs are taken all the same.",
        panels.field("none", 2, "no classifier in training"),
        {
            "{{network}} {{regime}} fold {{fold}} {{split}}": "avg without (instance, pod, seed) "
            '(mrigan_classifier_loss{run, control="none"})'
        },
        panels.lines(axis_label="nats"),
        panels.BESIDE,
        overrides={"/training$/": panels.DASHED},
    ),
    panels.series(
        "Accuracy by epoch",
        "Share read right in the last epoch, averaged over seeds, without the controls. The held-out curve changes "
        "nothing and chooses nothing: what counts is the report, with its intervals.",
        panels.field("percentunit", 0, "no classifier in training", high=1),
        {
            "{{network}} {{regime}} fold {{fold}} {{split}}": "avg without (instance, pod, seed) "
            '(mrigan_classifier_accuracy_ratio{run, control="none"})'
        },
        legend=panels.BESIDE,
        overrides={"/training$/": panels.DASHED},
    ),
)
