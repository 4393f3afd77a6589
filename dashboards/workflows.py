"""Panels of the fleet dashboard about Argo's workflows and their pods."""

from grafana_foundation_sdk.models.common import GraphDrawStyle, LineInterpolation

from dashboards import panels
from dashboards.queries import grown, step

# Argo's names of the phases. Queries without {here} use metrics of Argo that have no namespace label.
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
        "Workflows known to the controller, of all namespaces (this metric has no namespace label). Finished workflows "
        "are counted until they are deleted.",
        panels.field("none", 0, "Argo's controller is not read"),
        {"{{phase}}": "sum by (phase) (argo_workflows_gauge)"},
        panels.steps(),
        overrides=panels.painted(PHASES),
    ),
    panels.series(
        "Pods by phase",
        "Pods of workflows, of all namespaces. Long pending: no node has enough resources, or the pod waits for a "
        "queue or an image.",
        panels.field("none", 0, "Argo's controller is not read"),
        {"{{phase}}": "sum by (phase) (argo_workflows_pods_gauge)"},
        panels.steps(),
        overrides=panels.painted(PHASES),
    ),
    panels.series(
        "Duration of runs",
        "Points: mean of the workflows of a template that ended in an interval, including failed ones. Line: the "
        "latest successful run of a dataset.",
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
        "Pods: waiting for resources on a node, a queue or an image. Workflows: waiting for another workflow on the "
        "same data. Sum over the time range and all namespaces (this metric has no namespace label), sampled once a "
        "minute.",
        panels.field("s", 1, "Argo's controller is not read"),
        {
            "pods": '60 * sum_over_time(sum(argo_workflows_pods_gauge{phase="Pending"})[$__range:1m])',
            "workflows": '60 * sum_over_time(sum(argo_workflows_gauge{phase="Pending"})[$__range:1m])',
        },
        size=(6, 4),
    ),
    panels.ranking(
        "Pods that had to wait",
        "Pods of workflows that were pending in the time range, by the reason from Kubernetes.",
        panels.field("none", 0, "Argo's controller is not read", colours={None: "green", 1: "orange"}),
        {
            "{{reason}}": f"sort_desc(sum by (reason) ({grown('argo_workflows_pod_pending_count{here}')}) > 0)"
            ' or on() label_replace(0 * sum(argo_workflows_pods_gauge), "reason", "none", "", "")'
        },
        size=(6, 4),
    ),
)
