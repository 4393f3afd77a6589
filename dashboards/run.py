"""The dashboard of a run: state of training, and performance of the models."""

from grafana_foundation_sdk.models.common import TableColorTextCellOptions

from dashboards import panels, pods, training
from dashboards.board import board, choice
from dashboards.queries import grown, last

GLANCE = panels.section(
    "At a glance",
    (4, 4),
    panels.number(
        "Pods at work",
        "Pods of the run that Prometheus scrapes now. 0: no pod runs, or the run has ended.",
        panels.field(low=None, colours={None: "text", 1: "blue"}),
        {"pods": "count(up{run} == 1) or vector(0)"},
    ),
    panels.number(
        "Epochs done",
        "Of all started trainings; killed and restarted pods count once. Trainings that have not started, or whose "
        "results already existed, are not included.",
        panels.field("percentunit", 0, "no training", high=1, colours={None: "blue", 1: "green"}),
        {"done": f"sum({last('mrigan_training_epoch{run}')}) / sum({last('mrigan_training_epochs_planned{run}')})"},
    ),
    panels.number(
        "Time left to train",
        "Of the slowest pod in training, at its speed of the last 30 minutes, without trainings that have not started. "
        "Not known: no pod trains, or none has finished an epoch in that time.",
        panels.field("s", 1, "not known"),
        {
            "time left": "max((mrigan_training_epochs_planned{run} - mrigan_training_epoch{run}) "
            "/ (deriv(mrigan_training_epoch{run}[30m]) > 0))"
        },
    ),
    panels.number(
        "Losses not finite",
        "Pods whose loss became NaN or infinite. Such a training ends with an error and is not retried. 0 is good.",
        panels.field(low=None, colours={None: "green", 1: "red"}),
        {
            "pods": "count(count by (workflow, pod) (last_over_time(mrigan_gan_loss{run}[$__range]) "
            "- last_over_time(mrigan_gan_loss{run}[$__range]) != 0 "
            "or last_over_time(mrigan_classifier_loss{run}[$__range]) "
            "- last_over_time(mrigan_classifier_loss{run}[$__range]) != 0)) or vector(0)"
        },
    ),
    panels.number(
        "Discriminators that have won",
        "GANs with a discriminator accuracy of more than 98 % on both real and generated images over the last 30 "
        "minutes: their generators learn little. 0 is good.",
        panels.field(low=None, colours={None: "green", 1: "orange"}),
        {
            "GANs": "count(min without (images) (rate(mrigan_gan_epoch_discriminator_accuracy_ratio_sum{run}[30m]) "
            "/ rate(mrigan_gan_epoch_discriminator_accuracy_ratio_count{run}[30m])) > 0.98) or vector(0)"
        },
    ),
    panels.number(
        "Best accuracy, latest report",
        "The best classifier of the latest report in the namespace, on held-out real images. From the exporter: a "
        "run in progress has no report yet.",
        panels.field("percentunit", 1, "no report yet", high=1, colours={None: "blue"}),
        {"{{network}} {{regime}}": "topk(1, max by (name, network, regime) (mrigan_report_accuracy_ratio{here}))"},
    ),
)


PODS = panels.section(
    "Time, checkpoints, processors",
    (8, 8),
    panels.columns(
        "Time by phase",
        "Time of the pods of each job by phase, summed over pods. If reading or writing dominates, storage is the "
        "bottleneck.",
        panels.field("s", 1, pods.NO_PODS),
        {"job": "job"},
        {
            phase: "sum by (job) (" + grown(f'mrigan_phase_seconds_total{{run, phase="{phase}"}}') + ")"
            for phase in ("read", "compute", "write")
        },
    ),
    panels.series(
        "Age of the last checkpoint",
        "Of the training pod with the oldest checkpoint: this much training is lost if the pod is killed now. Values "
        "above the red line (1 h) indicate a problem.",
        panels.field("s", None, "no training in this time"),
        {
            "{{job}}": "max by (job) (time() - mrigan_checkpoint_timestamp_seconds{run} "
            "and mrigan_training_epoch{run} < mrigan_training_epochs_planned{run})"
        },
        limit=3600,
    ),
    pods.gpus(
        "{run}",
        "GPUs that pods of the run hold, and GPUs that train or generate images. GPUs that are held but not used are "
        "wasted. 0: the run has no GPUs.",
    ),
    panels.series(
        "Memory",
        "Resident memory of each job's largest pod. A pod that reaches its limit (8 GiB for training, otherwise 4 GiB, "
        "unless the chart sets other limits) is killed and retried.",
        panels.field("bytes", None, pods.NO_PODS),
        {"{{job}}": "max by (job) (process_resident_memory_bytes{run})"},
        size=(12, 7),
    ),
    panels.series(
        "Processor cores",
        "Processor cores used by the pods of each job, summed over pods.",
        panels.field("none", 1, pods.NO_PODS),
        {"{{job}}": "sum by (job) (rate(process_cpu_seconds_total{run}[$__rate_interval]))"},
        panels.lines(axis_label="cores"),
        size=(12, 7),
    ),
)

STORAGE = panels.section(
    "Storage (S3)",
    (8, 7),
    panels.series(
        "Requests",
        "Requests per second by operation; retries are not counted.",
        panels.field("reqps", None, pods.NO_PODS),
        {"{{operation}}": "sum by (operation) (rate(mrigan_s3_requests_total{run}[$__rate_interval]))"},
    ),
    panels.series(
        "Traffic",
        "Bytes of objects read and written per second.",
        panels.field("Bps", None, pods.NO_PODS),
        {"{{direction}}": "sum by (direction) (rate(mrigan_s3_bytes_total{run}[$__rate_interval]))"},
    ),
    pods.s3_failures(
        "{run}",
        "Errors and retries",
        "Per interval. A retry repeats a failed request; an error is a request that failed after all retries. 0 is "
        "good. Retries without errors were temporary failures.",
    ),
)

RESULTS = panels.section(
    "Results",
    (10, 7),
    panels.columns(
        "Accuracy of the latest report, with 95 % interval",
        "By network and training images, on held-out real images. From the exporter: the latest report with a "
        "promotion decision of each dataset in the namespace, not that of a run in progress.",
        panels.field("percentunit", 1, "no report yet", high=1),
        {"name": "dataset", "network": "network", "regime": "learned from"},
        {
            header: f"max by (name, network, regime) (mrigan_report_accuracy{end}_ratio{{here}})"
            for header, end in {"accuracy": "", "from": "_low", "to": "_high"}.items()
        },
        best="accuracy",
    ),
    panels.columns(
        "Synthetic images of the latest report",
        "KID: distance between synthetic and real images, good if it is near the KID of real images. Copying: folds in "
        "which the GAN is suspected of copying training images, good if 0. From the exporter.",
        panels.field("none", 3, "no report yet", low=None),
        {"name": "dataset", "label": "class"},
        {
            "KID": "max by (name, label) (mrigan_report_kid{here})",
            "KID of real": "max by (name, label) (mrigan_report_real_kid{here})",
            "copying": "max by (name, label) (mrigan_report_memorization_suspicious{here})",
        },
        overrides={
            "copying": {
                "decimals": 0,
                "thresholds": panels.thresholds({None: "text", 1: "red"}),
                "custom.cellOptions": TableColorTextCellOptions(),
            }
        },
        size=(8, 7),
    ),
    panels.ranking(
        "Images set aside, by reason",
        "Images that preprocess quarantined in this run. None: all images were used. Not seen: preprocess ended "
        "between two scrapes, or the dataset already existed; see the report and quarantine.csv for the numbers.",
        panels.field("none", 0, "preprocess was not seen", colours={None: "green", 1: "orange"}),
        {
            "{{reason}}": "sort_desc(sum by (reason) ("
            + last('mrigan_images_quarantined_total{run, job="preprocess"}')
            + ") > 0) or on() label_replace(0 * "
            '(sum(last_over_time(mrigan_images_read_total{run, job="preprocess"}[$__range])) > 0), '
            '"reason", "none", "", "")'
        },
        size=(6, 7),
    ),
)

BOARD = board(
    uid="mrigan-run",
    title="mrigan: a run",
    description="State of training of a run, and performance of the models.",
    since="now-6h",
    refresh="30s",
    variable=choice(
        "workflow", 'label_values(mrigan_phase_seconds_total{namespace="$namespace"}, workflow)', several=True
    ),
    panels=[*GLANCE, *training.PROGRESS, *training.GANS, *training.CLASSIFIERS, *PODS, *STORAGE, *RESULTS],
)
