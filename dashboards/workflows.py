"""What the dashboard of the fleet shows of Argo's workflows and their pods."""

from grafana_foundation_sdk.models.common import GraphDrawStyle, LineInterpolation

from dashboards import panels
from dashboards.queries import grown, step

# As Argo calls them; without {here} where Argo does not tell namespaces apart.
PHASES = {"Succeeded": "green", "Running": "blue", "Pending": "orange", "Failed": "red", "Error": "dark-red"}


def _mean_duration() -> str:
    total, count = (
        step(f"argo_workflows_workflowtemplate_runtime_{end}{{here}}", " by (name)") for end in ("sum", "count")
    )
    return f"({total}) / ({count} > 0)"


SECTION = panels.section(
    "Workflows, by Argo's controller",
    (6, 8),
    panels.series(
        "Workflows by phase",
        "Workflows that the controller holds, of all namespaces: it does not tell these apart here. Finished ones are "
        "there until they are cleaned up.",
        panels.field("none", 0, "Argo's controller is not read"),
        {"{{phase}}": "sum by (phase) (argo_workflows_gauge)"},
        panels.steps(),
        overrides=panels.painted(PHASES),
    ),
    panels.series(
        "Pods by phase",
        "Pods of workflows, of all namespaces. Pending for long: no node has room, or a queue or an image is awaited.",
        panels.field("none", 0, "Argo's controller is not read"),
        {"{{phase}}": "sum by (phase) (argo_workflows_pods_gauge)"},
        panels.steps(),
        overrides=panels.painted(PHASES),
    ),
    panels.series(
        "Duration of runs",
        "Points: mean of the workflows of a template that ended in a stretch of time, failed ones among them. Line: "
        "the latest run of a dataset that came to its end.",
        panels.field("s", None, "no run ended"),
        {
            "{{name}}": _mean_duration(),
            "{{name}}: latest": "max by (name) (mrigan_last_success_timestamp_seconds{here}) "
            "- max by (name) (mrigan_last_run_timestamp_seconds{here}) >= 0",
        },
        panels.lines(draw_style=GraphDrawStyle.POINTS, show_points=panels.Points.ALWAYS),
        interval="5m",
        overrides={
            "/: latest$/": {
                "custom.drawStyle": GraphDrawStyle.LINE,
                "custom.lineInterpolation": LineInterpolation.STEP_AFTER,
                "custom.showPoints": panels.Points.NEVER,
            }
        },
    ),
    panels.number(
        "Time spent pending",
        "Pods: until they start, for want of room on a node, a queue or an image. Workflows: until it is their turn on "
        "the same data. In this time, added up over all namespaces, which Argo does not tell apart here, by looks a "
        "minute apart.",
        panels.field("s", 1, "Argo's controller is not read"),
        {
            "pods": '60 * sum_over_time(sum(argo_workflows_pods_gauge{phase="Pending"})[$__range:1m])',
            "workflows": '60 * sum_over_time(sum(argo_workflows_gauge{phase="Pending"})[$__range:1m])',
        },
        named=True,
        size=(6, 4),
    ),
    panels.ranking(
        "Pods that had to wait",
        "Pods of workflows that pended in this time, by the reason that Kubernetes gave.",
        panels.field("none", 0, "Argo's controller is not read"),
        {
            "{{reason}}": f"sort_desc(sum by (reason) ({grown('argo_workflows_pod_pending_count{here}')}) > 0)"
            ' or on() label_replace(0 * sum(argo_workflows_pods_gauge), "reason", "none", "", "")'
        },
        {None: "green", 1: "orange"},
        size=(6, 4),
    ),
)
