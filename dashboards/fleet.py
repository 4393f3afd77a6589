"""The dashboard of the fleet: state of retraining, performance of the models, and cost."""

from grafana_foundation_sdk.models.common import GraphDrawStyle, StackingConfig, StackingMode
from grafana_foundation_sdk.models.dashboard import VariableModel, VariableType

from dashboards import panels, pods, workflows
from dashboards.board import board
from dashboards.queries import grown, step

# The chart replaces these 26 hours, and the seconds of one and two times 26 hours, with the value of the site.
SCHEDULE = 26 * 3600
ENDED = ("Succeeded", "Failed", "Error")
FAILED = 'argo_workflows_total_count{here, phase=~"Failed|Error"}'


def _gpu_hours(total: str = "sum") -> str:
    return f"{total}({grown('mrigan_gpu_held_seconds_total{here}')}) / 3600"


GLANCE = panels.section(
    "At a glance",
    (3, 4),
    panels.number(
        "Since the last success",
        "Time since the last successful run, including runs with nothing to do. Of several datasets, the longest time. "
        "Orange from 26 h: the scheduled run was missed.",
        panels.field("s", 1, "never", colours={None: "green", SCHEDULE: "orange", 2 * SCHEDULE: "red"}),
        {"{{name}}": "topk(1, time() - max by (name) (mrigan_last_success_timestamp_seconds{here}))"},
    ),
    panels.number(
        "Since the last start",
        "Time since the last start of a run, whatever its outcome. Much less than the last success: it still runs, or "
        "failed.",
        panels.field("s", 1, "never"),
        {"{{name}}": "bottomk(1, time() - max by (name) (mrigan_last_run_timestamp_seconds{here}))"},
    ),
    panels.number(
        "Champion's accuracy",
        "Accuracy of the champion on held-out real images, from the report of its run. Of several datasets, the "
        "lowest.",
        panels.field("percentunit", 1, "no champion", high=1, colours={None: "blue"}),
        {"{{name}}": "bottomk(1, max by (name) (mrigan_champion_accuracy_ratio{here}))"},
    ),
    panels.number(
        "Challengers",
        "All decisions in the champions' records: challengers that were promoted, and challengers that were refused "
        "because they were worse than the champion.",
        panels.field("none", 0, "no decision yet"),
        {"{{outcome}}": "sum by (outcome) (max by (name, outcome) (mrigan_promotions_total{here}))"},
    ),
    panels.number(
        "Workflows that failed",
        "In the time range, from Argo's controller: workflows whose pods used up their retries, or failed with an "
        "error that a retry cannot resolve. 0 is good.",
        panels.field("none", 0, "Argo is not read", colours={None: "green", 0.5: "red"}),
        {"workflows": f"sum({grown(FAILED)}) or 0 * sum(argo_workflows_gauge)"},
    ),
    panels.number(
        "Storage last read",
        "Age of the exporter's values (champions, reports and last runs). Red from 15 min.",
        panels.field("s", 0, "no exporter", colours={None: "green", 900: "red"}),
        {"age": "time() - max(mrigan_exporter_refresh_timestamp_seconds{here})"},
    ),
    panels.number(
        "GPU hours",
        "Hours in the time range for which pods held GPUs, used or not. No pods: Prometheus scraped none.",
        panels.field("suffix:h", 1, "no pods"),
        {"held": _gpu_hours()},
    ),
    panels.number(
        "GPU cost",
        "GPU hours in the time range, multiplied by the price at the top of the page, in its currency.",
        panels.field("none", 2, "no pods"),
        {"cost": f"{_gpu_hours()} * $price"},
    ),
)

RETRAINING = panels.section(
    "Retraining",
    (8, 9),
    panels.series(
        "Since the last start and the last success",
        "Each line falls to 0 when a run starts or succeeds. Above the red line (26 h), a scheduled run was missed.",
        panels.field("s", None, "no run yet"),
        {
            "{{name}}: start": "time() - max by (name) (mrigan_last_run_timestamp_seconds{here})",
            "{{name}}: success": "time() - max by (name) (mrigan_last_success_timestamp_seconds{here})",
        },
        panels.lines(show_points=panels.Points.NEVER),
        limit=SCHEDULE,
        overrides={"/start$/": panels.DASHED},
    ),
    panels.series(
        "Promotions and refusals",
        "Cumulative number of decisions in the champions' records. Each step is one decision.",
        panels.field("none", 0, "no decision yet"),
        {"{{name}}: {{outcome}}": "max by (name, outcome) (mrigan_promotions_total{here})"},
        panels.steps(),
    ),
    panels.series(
        "Workflows that ended",
        "Argo workflows of the namespace per interval, by final phase, and the number started by the schedule.",
        panels.field("none", 0, "Argo's controller is not read"),
        {
            "{{phase}}": "clamp_min("
            + step('argo_workflows_total_count{here, phase=~"Succeeded|Failed|Error"}', " by (phase)")
            + ', 0) or on() label_replace(0 * sum(argo_workflows_gauge), "phase", "Failed", "", "")',
            "begun by the schedule": f"clamp_min({step('argo_workflows_cronworkflows_triggered_total{here}')}, 0) > 0",
        },
        panels.bars(),
        interval="5m",
        overrides={
            **panels.painted({phase: workflows.PHASES[phase] for phase in ENDED}),
            "begun by the schedule": {
                **panels.paint("blue"),
                "custom.drawStyle": GraphDrawStyle.POINTS,
                "custom.showPoints": panels.Points.ALWAYS,
                "custom.pointSize": 7,
                "custom.stacking": StackingConfig(mode=StackingMode.NONE, group="A"),
            },
        },
    ),
)


def _of_champions(figure: str) -> str:
    champions = "max by (name, network, regime) (mrigan_champion_info{here})"
    return f"{figure} * on (name) group_right () {champions}"


MODELS = panels.section(
    "What the models reach",
    (12, 9),
    panels.series(
        "Champion's accuracy, with 95 % interval",
        "Accuracy of the champion on held-out real images, from the report of its run. A step is a promotion. The "
        "dashed lines are the 95 % confidence interval.",
        panels.field("percentunit", 0, "no champion", low=None, high=1),
        {
            "{{name}}": "max by (name) (mrigan_champion_accuracy_ratio{here})",
            "{{name}}: low": "max by (name) (mrigan_champion_accuracy_low_ratio{here})",
            "{{name}}: high": "max by (name) (mrigan_champion_accuracy_high_ratio{here})",
        },
        panels.steps(line_width=2),
        overrides={"/: (low|high)$/": panels.paint("#8e8e8e") | panels.DASHED},
    ),
    panels.series(
        "Accuracy by report, network and regime",
        "On held-out real images, from the latest report with a promotion decision. Compare the regimes (training on "
        "synthetic images, real images, or both) to see the benefit of synthetic images.",
        panels.field("percentunit", 0, "no report yet", low=None, high=1),
        {"{{name}}: {{network}} {{regime}}": "max by (name, network, regime) (mrigan_report_accuracy_ratio{here})"},
        panels.steps(),
    ),
    panels.columns(
        "Champions",
        "One champion per dataset: network, training images, accuracy from the report of its run, and time since its "
        "promotion. No accuracy: the report was deleted.",
        panels.field("none", None, "no champion", low=None),
        {"name": "dataset", "network": "network", "regime": "learned from"},
        {
            "accuracy": _of_champions("max by (name) (mrigan_champion_accuracy_ratio{here})"),
            "age": _of_champions("(time() - max by (name) (mrigan_champion_timestamp_seconds{here}))"),
        },
        overrides={"accuracy": {"unit": "percentunit", "decimals": 1}, "age": {"unit": "s", "decimals": 1}},
        size=(16, 7),
    ),
    panels.columns(
        "Latest report's dataset",
        "Images used, groups of images that are kept in one fold, and pairs of near-duplicate images.",
        panels.field("none", 0, "no report yet", low=None),
        {"name": "dataset"},
        {
            "images": "max by (name) (mrigan_dataset_images{here})",
            "groups": "max by (name) (mrigan_dataset_groups{here})",
            "pairs": "max by (name) (mrigan_dataset_near_duplicate_pairs{here})",
        },
        size=(8, 7),
    ),
    panels.series(
        "KID of synthetic and real images",
        "Distance between synthetic and held-out real images, mean over folds. Dashed: distance between training and "
        "held-out real images, the best expected value.",
        panels.field("none", 3, "no report yet", low=None),
        {
            "{{name}}: {{label}}": "max by (name, label) (mrigan_report_kid{here})",
            "{{name}}: {{label}}, real": "max by (name, label) (mrigan_report_real_kid{here})",
        },
        panels.steps(),
        overrides={"/, real$/": panels.DASHED},
        size=(12, 7),
    ),
    panels.ranking(
        "GANs that copy training images",
        "Folds of the latest report in which the GAN is suspected of copying training images, by class. 0 is good.",
        panels.field("none", 0, "no report yet", high=1, colours={None: "green", 1: "red"}),
        {"{{name}}: {{label}}": "max by (name, label) (mrigan_report_memorization_suspicious{here})"},
        size=(12, 7),
    ),
)

GPUS = panels.section(
    "GPUs",
    (12, 8),
    panels.ranking(
        "GPU hours by run",
        "The ten workflows with the most GPU hours in the time range, used or not.",
        panels.field("suffix:h", 1, pods.NO_PODS, colours={None: "blue"}),
        {"{{workflow}}": f"sort_desc(topk(10, {_gpu_hours('sum by (workflow) ')}))"},
    ),
    pods.gpus(
        "{here}",
        "GPUs that pods hold, and GPUs that train or generate images. GPUs that are held but not used are wasted.",
    ),
)

STORAGE = panels.section(
    "Storage and data",
    (12, 7),
    pods.s3_failures(
        "{here}",
        "S3 errors and retries",
        "Of all pods, per interval. A retry repeats a failed request; an error is a request that failed after all "
        "retries. 0 is good.",
    ),
    panels.ranking(
        "Images set aside, by reason",
        "Quarantined images of the latest report's dataset. quarantine.csv in storage lists each image.",
        panels.field("none", 0, "no report yet", colours={None: "green", 1: "orange"}),
        {
            "{{name}}: {{reason}}": "sort_desc(max by (name, reason) (mrigan_dataset_quarantined_images{here}) > 0)"
            " or on() label_replace(label_replace(0 * sum(mrigan_dataset_images{here}), "
            '"name", "all datasets", "", ""), "reason", "none", "", "")'
        },
    ),
)

BOARD = board(
    uid="mrigan-fleet",
    title="mrigan: the fleet",
    description="State of retraining, performance of the models, and cost.",
    since="now-7d",
    refresh="5m",
    variable=VariableModel(name="price", label="price of a GPU hour", type_val=VariableType.TEXTBOX, query="0"),
    panels=[*GLANCE, *RETRAINING, *MODELS, *GPUS, *workflows.SECTION, *STORAGE],
)
