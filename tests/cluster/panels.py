"""What the Grafana dashboards ask of a Prometheus, and its answers: for tests, and for docs/draw_dashboards.py.

prometheus = Prometheus("http://localhost:9090")
for query in queries(Scope("mrigan", start, end, workflow="mrigan-x7k2p")):
    print(query.panel, prometheus.ask(query))
"""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "helm" / "mrigan" / "dashboards"
# Seconds between two points, as Grafana rounds them.
_STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_PREFIXES = {
    "bytes": (1024, ("B", "KiB", "MiB", "GiB", "TiB")),
    "Bps": (1000, ("B/s", "kB/s", "MB/s", "GB/s")),
    "short": (1000, ("", "K", "Mil", "Bil")),
}
_TIMES = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "hours"), (math.inf, 86400, "days"))
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Json = dict[str, Any]
Row = tuple[tuple[str, ...], dict[str, float]]  # of a table: values of labels, values by header


@dataclass(frozen=True)
class Scope:
    """What a person chose at the top of a dashboard; start and end are Unix times."""

    namespace: str
    start: float
    end: float
    workflow: str = ".+"
    price: str = "0"
    datasource: str = "prometheus"
    points: int = 400  # of a series, at most: in Grafana the panel's width in pixels
    scrape: int = 15  # seconds; Grafana's own default, whatever Prometheus does

    def step(self, panel: Json) -> int:
        """Return the seconds between two points of a panel's series."""
        least = re.fullmatch(r"(\d+)([smhd])", panel.get("interval", f"{self.scrape}s"))
        assert least, panel["interval"]
        wanted = (self.end - self.start) / self.points
        rounded = next((step for step in _STEPS if step >= wanted), math.ceil(wanted))
        return max(int(least[1]) * _SECONDS[least[2]], rounded)

    def variables(self, panel: Json) -> dict[str, str]:
        """Return the values of all variables that a panel's queries may name, Grafana's own among them."""
        step = self.step(panel)
        return {
            "namespace": self.namespace,
            "workflow": self.workflow,
            "price": self.price,
            "datasource": self.datasource,
            "__interval": f"{step}s",
            # https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
            "__rate_interval": f"{max(step + self.scrape, 4 * self.scrape)}s",
            "__range": f"{round(self.end - self.start)}s",
        }


class Query(NamedTuple):
    """One query of one panel; `legend` names its series, `{{label}}` stands for a label's value."""

    dashboard: str
    panel: str
    ref: str
    legend: str
    expr: str
    instant: bool
    start: float
    end: float
    step: int


class Series(NamedTuple):
    """A time series, or a single point of one."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]


def dashboards() -> dict[str, Json]:
    """Return the dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Json) -> list[Json]:
    """Return the panels that show something: all but the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with a value in place of each `$name` and `${name}`. Raises KeyError for a name without one."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: variables[found[1] or found[2]], text)


def panel_queries(dashboard: Json, panel: Json, scope: Scope) -> list[Query]:
    """Return the queries of one panel, ready to be asked."""
    variables = scope.variables(panel)
    return [
        Query(
            dashboard["uid"],
            panel["title"],
            target["refId"],
            target.get("legendFormat", ""),
            substitute(target["expr"], variables),
            target.get("instant", False),
            scope.start,
            scope.end,
            scope.step(panel),
        )
        for target in panel["targets"]
    ]


def queries(scope: Scope) -> Iterator[Query]:
    """Yield every query of every panel of every dashboard."""
    for dashboard in dashboards().values():
        for panel in panels(dashboard):
            yield from panel_queries(dashboard, panel, scope)


def without_fallback(expr: str) -> str:
    """Return a query without what it shows in place of nothing, so that it can be seen to find nothing."""
    return re.sub(r" or (vector\(0\)|0 \* sum\(\w+\)|on\(\) label_replace\(.*)$", "", expr)


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return a series' name in the legend."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


def field(panel: Json, name: str = "") -> Json:
    """Return how a panel shows the series or column called `name`: the defaults, and the overrides that match."""
    config = panel["fieldConfig"]
    found = config["defaults"] | {"custom": dict(config["defaults"].get("custom", {}))}
    for override in config["overrides"]:
        kind, what = override["matcher"]["id"], override["matcher"]["options"]
        if what == name if kind == "byName" else re.search(what.strip("/"), name):
            for item in override["properties"]:
                part, _, key = item["id"].rpartition(".")
                (found[part] if part else found)[key] = item["value"]
    return found


def table(panel: Json, answers: list[tuple[str, Series]]) -> tuple[list[str], list[str], list[Row]]:
    """Return the headers of labels and of values, and the rows, that a table makes of (refId, series)."""
    organize = panel["transformations"][1]["options"]
    headers = {key: organize["renameByName"][key] for key in organize["indexByName"]}
    labels = [key for key in headers if not key.startswith("Value #")]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for ref, series in answers:
        row = rows.setdefault(tuple(series.labels.get(label, "") for label in labels), {})
        row[headers[f"Value #{ref}"]] = series.values[-1]
    order = panel["options"]["sortBy"][0]
    ordered = sorted(rows.items())
    if order["desc"]:
        ordered.sort(key=lambda row: -row[1].get(order["displayName"], -math.inf))
    return [headers[key] for key in labels], [headers[key] for key in headers if key not in labels], ordered


def scale(value: float, unit: str) -> tuple[float, str]:
    """Return by what a value of this size is divided before it is written, and what is written behind it."""
    if unit == "percentunit":
        return 0.01, "%"
    if unit == "s":
        return next((per, f" {name}") for limit, per, name in _TIMES if abs(value) < limit)
    if unit in _PREFIXES:
        base, names = _PREFIXES[unit]
        power = min(len(names) - 1, int(math.log(abs(value), base))) if abs(value) >= 1 else 0
        return base**power, f" {names[power]}".rstrip()
    return 1, {"none": "", "reqps": " req/s"}.get(unit, " " + unit.removeprefix("suffix:"))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value with its unit, nearly as Grafana writes it."""
    if not math.isfinite(value):
        return str(value)
    per, end = scale(value, unit)
    if decimals is None:
        return (f"{value / per:.3g}" if abs(value / per) < 1000 else f"{value / per:.0f}") + end
    return f"{value / per:.{decimals}f}{end}"


class Prometheus:
    """The HTTP API of a Prometheus at `url`."""

    def __init__(self, url: str, timeout: float = 30) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout

    def ask(self, query: Query) -> list[Series]:
        """Return what a panel's query finds."""
        if query.instant:
            return self.instant(query.expr, query.end)
        return self.range(query.expr, query.start, query.end, query.step)

    def instant(self, expr: str, time: float) -> list[Series]:
        """Return the value of each series at a Unix time. Raises ValueError if Prometheus refuses the query."""
        found = self._get("query", query=expr, time=str(time))
        if found["resultType"] == "scalar":
            return [_series({}, [found["result"]])]
        return [_series(item["metric"], [item["value"]]) for item in found["result"]]

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Return each series between two Unix times. Raises ValueError if Prometheus refuses the query."""
        # On multiples of the step, as Grafana asks: else a picture would change with every second.
        first, last = step * math.floor(start / step), step * math.floor(end / step)
        found = self._get("query_range", query=expr, start=str(first), end=str(last), step=str(step))
        return [_series(item["metric"], item["values"]) for item in found["result"]]

    def _get(self, path: str, **parameters: str) -> Json:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=self.timeout) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters['query']}\n{error.read().decode(errors='replace')}") from error


def _series(labels: dict[str, str], points: list[list[Any]]) -> Series:
    return Series(labels, [float(time) for time, _ in points], [float(value) for _, value in points])
