"""Common parts of the dashboards apart from their panels: variables, links, and the JSON format."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from dashboards.panels import SOURCE, placed

DATASOURCE = dashboard.VariableModel(
    name="datasource",
    label="Prometheus",
    type_val=dashboard.VariableType.DATASOURCE,
    query="prometheus",
    refresh=dashboard.VariableRefresh.ON_DASHBOARD_LOAD,
)
TAG = "mrigan"
LINK = dashboard.DashboardLink(
    title=TAG, type_val=dashboard.DashboardLinkType.DASHBOARDS, tags=[TAG], icon="external link"
)
# The SDK knows one other place only, a menu that hides it.
LINK.placement = None  # type: ignore[assignment]


def choice(name: str, query: str, several: bool = False) -> dashboard.VariableModel:
    """Return a variable with the values of a label."""
    return dashboard.VariableModel(
        name=name,
        label=name,
        datasource=SOURCE,
        definition=query,
        query={"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        refresh=dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=dashboard.VariableSort.ALPHABETICAL_ASC,
        multi=several,
        include_all=several,
        all_value=".+" if several else None,
    )


NAMESPACE = choice(
    "namespace",
    'label_values({__name__=~"mrigan_phase_seconds_total|mrigan_exporter_refresh_timestamp_seconds"}, namespace)',
)


def board(
    uid: str,
    title: str,
    description: str,
    since: str,
    refresh: str,
    variable: dashboard.VariableModel,
    panels: list[dashboard.Panel | dashboard.RowPanel],
) -> dashboard.Dashboard:
    """Return a dashboard."""
    return dashboard.Dashboard(
        uid=uid,
        title=title,
        description=description,
        tags=[TAG],
        schema_version=41,
        version=1,
        graph_tooltip=dashboard.DashboardCursorSync.CROSSHAIR,
        refresh=refresh,
        time=dashboard.DashboardDashboardTime(from_val=since, to="now"),
        links=[LINK],
        annotations=dashboard.AnnotationContainer(list_val=[]),
        templating=dashboard.DashboardDashboardTemplating(list_val=[DATASOURCE, NAMESPACE, variable]),
        panels=list(placed(panels)),
    )


def written(board: dashboard.Dashboard) -> str:
    """Return the JSON of a dashboard with one panel per line, for readable diffs."""
    fields = json.loads(JSONEncoder().encode(board))
    panels = ",\n".join(json.dumps(panel) for panel in fields.pop("panels"))
    head = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in fields.items())
    return f'{{\n{head}"panels": [\n{panels}\n]\n}}\n'
