"""Panels about pods that both dashboards have: of one run (scope `{run}`) or of the namespace (scope `{here}`)."""

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import panels
from dashboards.queries import burst

NO_PODS = "no pods in this time"


def gpus(scope: str, description: str) -> Panel:
    """Return the panel of GPUs that pods hold, and GPUs that are in use."""
    return panels.series(
        "GPUs held and used",
        description,
        panels.field("none", 1, NO_PODS),
        {name: f"sum(rate(mrigan_gpu_{name}_seconds_total{scope}[$__rate_interval]))" for name in ("held", "used")},
        panels.lines(fill_opacity=15, axis_soft_max=1),
        overrides=panels.painted({"held": "orange", "used": "blue"}),
    )


def s3_failures(scope: str, title: str, description: str) -> Panel:
    """Return the panel of failed and repeated requests to S3 by interval."""
    return panels.series(
        title,
        description,
        panels.field("none", 0, NO_PODS),
        {name: burst(f"mrigan_s3_{name}_total{scope}") for name in ("errors", "retries")},
        panels.bars(),
        overrides=panels.painted({"errors": "red", "retries": "orange"}),
    )
