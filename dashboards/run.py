"""The dashboard of a run: whether its training goes well, and what its models reach."""

from grafana_foundation_sdk.models.common import TableColorTextCellOptions

from dashboards import panels, training
from dashboards.board import board, choice
from dashboards.queries import burst, grown, last

GLANCE = panels.section(
    "At a glance",
    (4, 4),
    panels.number(
        "Pods at work",
        "Pods of the run that answer Prometheus now. 0: nothing runs, or the run is over.",
        panels.field(low=None),
        {"pods": "count(up{run} == 1) or vector(0)"},
        {None: "text", 1: "blue"},
    ),
    panels.number(
        "Epochs done",
        "Of all trainings that have begun, those of killed and restarted pods counted once. Trainings that are still "
        "to begin, or were found finished, are not in it.",
        panels.field("percentunit", 0, "no training", high=1),
        {"done": f"sum({last('mrigan_training_epoch{run}')}) / sum({last('mrigan_training_epochs_planned{run}')})"},
        {None: "blue", 1: "green"},
    ),
    panels.number(
        "Time left to train",
        "Of the slowest pod that trains now, at its pace of the last half hour. Trainings that are still to begin come "
        "on top. Not known: none trains, or none has done an epoch in that time.",
        panels.field("s", 1, "not known"),
        {
            "time left": "max((mrigan_training_epochs_planned{run} - mrigan_training_epoch{run}) "
            "/ (deriv(mrigan_training_epoch{run}[30m]) > 0))"
        },
    ),
    panels.number(
        "Losses not finite",
        "Pods whose loss became NaN or infinite: such a training ends with an error and is not tried again. 0 is well.",
        panels.field(low=None),
        {
            "pods": "count(count by (workflow, pod) (last_over_time(mrigan_gan_loss{run}[$__range]) "
            "- last_over_time(mrigan_gan_loss{run}[$__range]) != 0 "
            "or last_over_time(mrigan_classifier_loss{run}[$__range]) "
            "- last_over_time(mrigan_classifier_loss{run}[$__range]) != 0)) or vector(0)"
        },
        {None: "green", 1: "red"},
    ),
    panels.number(
        "Discriminators that have won",
        "GANs whose discriminator read more than 98 % of real and of fake images right over the last half hour: their "
        "generators learn little. 0 is well.",
        panels.field(low=None),
        {
            "GANs": "count(min without (images) (rate(mrigan_gan_epoch_discriminator_accuracy_ratio_sum{run}[30m]) "
            "/ rate(mrigan_gan_epoch_discriminator_accuracy_ratio_count{run}[30m])) > 0.98) or vector(0)"
        },
        {None: "green", 1: "orange"},
    ),
    panels.number(
        "Best accuracy, latest report",
        "The best classifier of the namespace's latest report, on real images that it never saw. From the exporter: a "
        "run in progress has no report yet.",
        panels.field("percentunit", 1, "no report yet", high=1),
        {"{{network}} {{regime}}": "topk(1, max by (name, network, regime) (mrigan_report_accuracy_ratio{here}))"},
        {None: "blue"},
        named=True,
    ),
)


def _spent(phase: str) -> str:
    spent = grown(f'mrigan_phase_seconds_total{{run, phase="{phase}"}}')
    return f"sum by (job) ({spent})"


PODS = panels.section(
    "Time, checkpoints, processors",
    (8, 8),
    panels.columns(
        "Time by phase",
        "What the pods of each job spent their time on, added up over pods. Much reading or writing beside little "
        "computing: storage is the brake.",
        panels.field("s", 1, "no pods in this time"),
        {"job": "job"},
        {phase: _spent(phase) for phase in ("read", "compute", "write")},
    ),
    panels.series(
        "Age of the last checkpoint",
        "Of the pod that trains and has not written one for longest: so much of its work is lost if it is killed now. "
        "Above the red line (1 h) something is wrong.",
        panels.field("s", None, "no training in this time"),
        {
            "{{job}}": "max by (job) (time() - mrigan_checkpoint_timestamp_seconds{run} "
            "and mrigan_training_epoch{run} < mrigan_training_epochs_planned{run})"
        },
        limit=3600,
    ),
    panels.series(
        "GPUs held and used",
        "GPUs that pods of the run occupy, and those that train or draw. Held, but not used, is money for nothing. 0: "
        "the run has no GPUs.",
        panels.field("none", 1, "no pods in this time"),
        {name: f"sum(rate(mrigan_gpu_{name}_seconds_total{{run}}[$__rate_interval]))" for name in ("held", "used")},
        panels.lines(fill_opacity=15, axis_soft_max=1),
        overrides=panels.painted({"held": "orange", "used": "blue"}),
    ),
    panels.series(
        "Memory",
        "Resident memory of each job's largest pod. A pod that reaches its limit (8 GiB for training, 4 GiB else, "
        "unless the chart says otherwise) is killed and tried again.",
        panels.field("bytes", None, "no pods in this time"),
        {"{{job}}": "max by (job) (process_resident_memory_bytes{run})"},
        legend=panels.BESIDE,
        size=(12, 7),
    ),
    panels.series(
        "Processor cores",
        "Cores that the pods of each job use together.",
        panels.field("none", 1, "no pods in this time"),
        {"{{job}}": "sum by (job) (rate(process_cpu_seconds_total{run}[$__rate_interval]))"},
        panels.lines(axis_label="cores"),
        panels.BESIDE,
        size=(12, 7),
    ),
)

STORAGE = panels.section(
    "Storage (S3)",
    (8, 7),
    panels.series(
        "Requests",
        "Requests a second by kind, each counted once however often it was tried.",
        panels.field("reqps", None, "no pods in this time"),
        {"{{operation}}": "sum by (operation) (rate(mrigan_s3_requests_total{run}[$__rate_interval]))"},
    ),
    panels.series(
        "Traffic",
        "Content of objects that was read and written.",
        panels.field("Bps", None, "no pods in this time"),
        {"{{direction}}": "sum by (direction) (rate(mrigan_s3_bytes_total{run}[$__rate_interval]))"},
    ),
    panels.series(
        "Errors and retries",
        "A bar for each stretch of time. A retry is a further try of a request, an error one that failed for good. 0 "
        "is well; retries without errors were a hiccup.",
        panels.field("none", 0, "no pods in this time"),
        {name: burst(f"mrigan_s3_{name}_total{{run}}") for name in ("errors", "retries")},
        panels.bars(),
        overrides=panels.painted({"errors": "red", "retries": "orange"}),
    ),
)

CAME_OF_IT = panels.section(
    "What came of it",
    (10, 7),
    panels.columns(
        "Accuracy of the latest report, with 95 % interval",
        "By network and what it learned from, on real images that were held out. From the exporter: the latest report "
        "of each dataset in the namespace that was judged, which a run in progress is not.",
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
        "KID: distance between synthetic and real images, well if it is near that of real images among themselves. "
        "Copying: folds whose GAN reproduces training images, well if 0. From the exporter.",
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
        "What the run's preprocess put into quarantine. None: every image was used. Not seen: it ended between two "
        "scrapes, or found its dataset ready; the report and quarantine.csv have the numbers.",
        panels.field("none", 0, "preprocess was not seen"),
        {
            "{{reason}}": "sort_desc(sum by (reason) ("
            + last('mrigan_images_quarantined_total{run, job="preprocess"}')
            + ") > 0) or on() label_replace(0 * "
            '(sum(last_over_time(mrigan_images_read_total{run, job="preprocess"}[$__range])) > 0), '
            '"reason", "none", "", "")'
        },
        {None: "green", 1: "orange"},
        size=(6, 7),
    ),
)

BOARD = board(
    uid="mrigan-run",
    title="mrigan: a run",
    description="Whether the training of a run goes well, and what its models reach.",
    since="now-6h",
    refresh="30s",
    variable=choice(
        "workflow", 'label_values(mrigan_phase_seconds_total{namespace="$namespace"}, workflow)', several=True
    ),
    panels=[*GLANCE, *training.PROGRESS, *training.GANS, *training.CLASSIFIERS, *PODS, *STORAGE, *CAME_OF_IT],
)
