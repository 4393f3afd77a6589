"""The appearance of the dashboards: Grafana's types with the common properties of the panels."""

from collections.abc import Iterator
from functools import partial
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.models import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.dashboard import FieldConfig, Panel, RowPanel

Size = tuple[int, int] | None  # width (the page has 24 columns) and height; None: the size of the section
Queries = dict[str, str]  # PromQL by the name of its series; `{run}` and `{here}` stand for the labels in SCOPES
Colours = dict[float | None, str]  # the colour of values from the key on; None: of all lower values
Overrides = dict[str, dict[str, Any]]  # properties by the name of a series, or by a /pattern/ of names

SCOPES = {"{run": '{namespace="$namespace", workflow=~"$workflow"', "{here": '{namespace="$namespace"'}
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
LAST = common.ReduceDataOptions(calcs=["lastNotNull"], fields="", values=False)
BELOW = common.VizLegendOptions(show_legend=True)
BESIDE = common.VizLegendOptions(
    display_mode=common.LegendDisplayMode.TABLE,
    placement=common.LegendPlacement.RIGHT,
    calcs=["lastNotNull"],
    show_legend=True,
)
WIDE = 12  # columns, from which on the legend is beside the lines

Points, Interpolation = common.VisibilityMode, common.LineInterpolation
STACKED = common.StackingConfig(mode=common.StackingMode.NORMAL, group="A")
DASHED: dict[str, Any] = {"custom.lineStyle": common.LineStyle(fill="dash", dash=[6, 4]), "custom.lineWidth": 1}
lines = partial(
    common.GraphFieldConfig,
    draw_style=common.GraphDrawStyle.LINE,
    line_interpolation=Interpolation.LINEAR,
    line_width=1.5,
    fill_opacity=0,
    show_points=Points.AUTO,
    point_size=4,
)
steps = partial(lines, line_interpolation=Interpolation.STEP_AFTER, show_points=Points.NEVER)
bars = partial(
    lines,
    draw_style=common.GraphDrawStyle.BARS,
    line_width=0,
    fill_opacity=80,
    show_points=Points.NEVER,
    stacking=STACKED,
    axis_soft_max=1,
)


def field(
    unit: str = "none",
    decimals: int | None = None,
    empty: str | None = None,
    low: float | None = 0,
    high: float | None = None,
    colours: Colours | None = None,
) -> FieldConfig:
    """Return the display of values, and `empty`, the text that is shown without values."""
    color = dashboard.FieldColor(mode=dashboard.FieldColorModeId.THRESHOLDS)
    limits = thresholds(colours or {None: "text"})
    return FieldConfig(
        unit=unit, decimals=decimals, no_value=empty, min_val=low, max_val=high, color=color, thresholds=limits
    )


def section(title: str, size: tuple[int, int], *panels: Panel) -> list[Panel | RowPanel]:
    """Return a row title and the panels below it; `size` is the default of the panels."""
    for panel in panels:
        panel.grid_pos = panel.grid_pos or _room(size)
        if isinstance(panel.options, timeseries.Options):
            panel.options.legend = BESIDE if panel.grid_pos.w >= WIDE else BELOW
    return [RowPanel(title=title, grid_pos=_room((24, 1))), *panels]


def number(title: str, description: str, shown: FieldConfig, queries: Queries, size: Size = None) -> Panel:
    """Return a panel of current values as big numbers, with their names if these are several or labels."""
    named = len(queries) > 1 or "{{" in next(iter(queries))
    options = stat.Options(
        reduce_options=LAST,
        graph_mode=common.BigValueGraphMode.NONE,
        justify_mode=common.BigValueJustifyMode.CENTER,
        text_mode=common.BigValueTextMode.VALUE_AND_NAME if named else common.BigValueTextMode.AUTO,
    )
    return _panel("stat", title, description, shown, _targets(queries, now=True), options, size)


def ranking(title: str, description: str, shown: FieldConfig, queries: Queries, size: Size = None) -> Panel:
    """Return a panel of current values as horizontal bars."""
    options = bargauge.Options(
        reduce_options=LAST,
        display_mode=common.BarGaugeDisplayMode.BASIC,
        orientation=common.VizOrientation.HORIZONTAL,
        name_placement=common.BarGaugeNamePlacement.LEFT,
        value_mode=common.BarGaugeValueMode.TEXT,
    )
    return _panel("bargauge", title, description, shown, _targets(queries, now=True), options, size)


def columns(
    title: str,
    description: str,
    shown: FieldConfig,
    labels: dict[str, str],
    queries: Queries,
    best: str = "",
    overrides: Overrides | None = None,
    size: Size = None,
) -> Panel:
    """Return a table of current values: a column for each label, with its title, and one for each query.

    The rows are sorted by the first column, or by the column `best`, in descending order.
    """
    targets = _targets(queries, now=True)
    for target in targets:
        target.legend_format, target.format_val = None, prometheus.PromQueryFormat.TABLE
    headers = labels | {f"Value #{target.ref_id}": name for target, name in zip(targets, queries, strict=True)}
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {key: i for i, key in enumerate(headers)},
        "renameByName": headers,
    }
    first = common.TableSortByFieldState(display_name=best or next(iter(labels.values())), desc=bool(best))
    shown.custom = common.TableFieldOptions(cell_options=common.TableAutoCellOptions())
    panel = _panel("table", title, description, shown, targets, table.Options(sort_by=[first]), size, overrides)
    panel.transformations = [
        dashboard.DataTransformerConfig(id_val="merge", options={}),
        dashboard.DataTransformerConfig(id_val="organize", options=organize),
    ]
    return panel


def series(
    title: str,
    description: str,
    shown: FieldConfig,
    queries: Queries,
    style: common.GraphFieldConfig | None = None,
    limit: float | None = None,
    interval: str | None = None,
    overrides: Overrides | None = None,
    size: Size = None,
) -> Panel:
    """Return a panel of values over time, at least an `interval` apart, with a red line at `limit`, if given."""
    shown.custom = style = style or lines()
    shown.color = dashboard.FieldColor(mode=dashboard.FieldColorModeId.PALETTE_CLASSIC)
    shown.thresholds = None
    if limit is not None:
        shown.thresholds = thresholds({None: "transparent", limit: "red"})
        style.thresholds_style = common.GraphThresholdsStyleConfig(mode=common.GraphThresholdsStyleMode.DASHED)
    tooltip = common.VizTooltipOptions(mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING)
    options = timeseries.Options(tooltip=tooltip)
    panel = _panel("timeseries", title, description, shown, _targets(queries), options, size, overrides)
    panel.interval = interval
    return panel


def thresholds(colours: Colours) -> dashboard.ThresholdsConfig:
    """Return colours that depend on the value."""
    return dashboard.ThresholdsConfig(
        mode=dashboard.ThresholdsMode.ABSOLUTE,
        steps=[dashboard.Threshold(value=value, color=colour) for value, colour in colours.items()],
    )


def paint(colour: str) -> dict[str, Any]:
    """Return the property of a series with a fixed colour."""
    return {"color": dashboard.FieldColor(mode=dashboard.FieldColorModeId.FIXED, fixed_color=colour)}


def painted(colours: dict[str, str]) -> Overrides:
    """Return the properties of series with fixed colours, by their names."""
    return {name: paint(colour) for name, colour in colours.items()}


def placed(panels: list[Panel | RowPanel]) -> Iterator[Panel | RowPanel]:
    """Number the panels, and place each as far up as possible, then as far left as possible."""
    floor = [0] * 24
    for i, panel in enumerate(panels, 1):
        panel.id_val = i
        place = panel.grid_pos
        assert place, panel.title
        place.y, place.x = min((max(floor[x : x + place.w]), x) for x in range(25 - place.w))
        floor[place.x : place.x + place.w] = [place.y + place.h] * place.w
        yield panel


def _panel(
    kind: str,
    title: str,
    description: str,
    shown: FieldConfig,
    targets: list[prometheus.Dataquery],
    options: object,
    size: Size,
    overrides: Overrides | None = None,
) -> Panel:
    special = [
        dashboard.DashboardFieldConfigSourceOverrides(
            matcher=dashboard.MatcherConfig(id_val="byRegexp" if name.startswith("/") else "byName", options=name),
            properties=[dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()],
        )
        for name, properties in (overrides or {}).items()
    ]
    return Panel(
        type_val=kind,
        title=title,
        description=description,
        datasource=SOURCE,
        grid_pos=size and _room(size),
        options=options,
        targets=list(targets),
        field_config=dashboard.FieldConfigSource(defaults=shown, overrides=special),
    )


def _room(size: tuple[int, int]) -> dashboard.GridPos:
    return dashboard.GridPos(w=size[0], h=size[1])


def _targets(queries: Queries, now: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for ref, (name, expr) in zip(ascii_uppercase, queries.items(), strict=False):
        for short, labels in SCOPES.items():
            expr = expr.replace(short, labels)
        targets.append(prometheus.Dataquery(ref_id=ref, datasource=SOURCE, expr=expr, legend_format=name))
        if now:
            targets[-1].instant, targets[-1].range_val = True, False
    return targets
