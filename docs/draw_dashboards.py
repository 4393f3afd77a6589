"""Draw the Grafana dashboards from the data of a Prometheus, where no Grafana is at hand, for the documentation.

    .venv/bin/python docs/draw_dashboards.py --prometheus http://localhost:9090 --namespace mrigan \
        --workflow mrigan-x7k2p --from 2026-01-31T09:00Z --to 2026-01-31T15:00Z
"""

import argparse
import datetime
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ is no installed package
from tests.cluster import panels
from tests.cluster.panels import Json, Prometheus, Scope, Series

CAPTION = "drawn from the data of a Prometheus by docs/draw_dashboards.py, not a screenshot of Grafana"
WIDTH, MARGIN, HEAD, ROW, GAP = 1600, 16, 62, 38, 8  # pixels; as in Grafana, a row is 30 high with a gap of 8
DPI = 100
DAY = 86400  # seconds; matplotlib counts days
INK, MUTED, RULE, CARD, PAGE = "#1f2328", "#656d76", "#e1e4e8", "#ffffff", "#f4f5f5"
# Grafana's names for colours, as its light theme has them or nearly so.
COLOURS = {"text": INK, "green": "#2f8f46", "blue": "#2f6fd0", "orange": "#d9730d", "red": "#d92d3f"}
COLOURS["dark-red"] = "#8f1d2c"
PALETTE = ("#2f6fd0", "#d9730d", "#2f8f46", "#9b4dca", "#d92d3f", "#12939a", "#b8860b", "#7d8590", "#c2559d", "#5b8c1a")


class Canvas:
    """A page in pixels, with the origin at the top left."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()
        self.page = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        self.page.axis("off")

    def place(self, axes: Axes, x: float, y: float, w: float, h: float) -> None:
        """Put axes into a box."""
        axes.set_position((x / WIDTH, 1 - (y + h) / self.height, w / WIDTH, h / self.height))

    def text(self, x: float, y: float, text: str, size: float = 9, width: float = math.inf, **more: Any) -> None:
        """Write at the left end of a line's middle (`ha`: elsewhere), cut to `width`."""
        weight = more.get("weight", "normal")
        while len(text) > 2 and self.measure(text, size, weight) > width:
            text = text[:-2].rstrip() + "…"
        self.page.text(x, y, text, **{"size": size, "va": "center_baseline", "color": INK, "parse_math": False} | more)

    def measure(self, text: str, size: float, weight: str = "normal") -> float:
        """Return the width of a text in pixels."""
        font = FontProperties(size=size, weight=weight)
        return self.renderer.get_text_width_height_descent(text, font, False)[0]

    def box(self, x: float, y: float, w: float, h: float, colour: str, edge: str = "none", radius: float = 0) -> None:
        """Fill a box."""
        style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
        self.page.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=colour, edgecolor=edge, linewidth=1))


class Drawing:
    """One panel in its box: the answers to its queries, and how its fields are to be shown."""

    def __init__(self, canvas: Canvas, panel: Json, answers: list[tuple[str, Series]], scope: Scope) -> None:
        self.canvas, self.panel, self.answers, self.scope = canvas, panel, answers, scope
        grid, unit = panel["gridPos"], (WIDTH - 2 * MARGIN + GAP) / 24
        self.x, self.y = MARGIN + grid["x"] * unit, HEAD + grid["y"] * ROW
        self.w, self.h = grid["w"] * unit - GAP, grid["h"] * ROW - GAP

    def draw(self) -> None:
        """Draw the panel."""
        if self.panel["type"] == "row":
            self.canvas.text(self.x, self.y + self.h / 2, self.panel["title"], 11.5, weight="bold")
            return
        self.canvas.box(self.x, self.y, self.w, self.h, CARD, RULE, 4)
        self.canvas.text(self.x + 10, self.y + 17, self.panel["title"], 9.2, self.w - 20, weight="bold")
        if not self.answers:
            empty = self.field()["noValue"]
            self.canvas.text(self.x + self.w / 2, self.y + self.h / 2 + 8, empty, 10, ha="center", color=MUTED)
            return
        draw = {"stat": self.stat, "timeseries": self.series, "bargauge": self.bars, "table": self.table}
        draw[self.panel["type"]]()

    def field(self, name: str = "") -> Json:
        """Return how a series or column called `name` is to be shown."""
        return panels.field(self.panel, name)

    def shown(self, value: float, name: str = "") -> str:
        """Return a value as text."""
        field = self.field(name)
        return panels.shown(value, field["unit"], field.get("decimals"))

    def colour(self, value: float, name: str = "") -> str:
        """Return the colour that the thresholds give a value."""
        steps = self.field(name)["thresholds"]["steps"]
        return COLOURS[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]

    def stat(self) -> None:
        """Draw big numbers, side by side."""
        named_too = len(self.answers) > 1 or self.panel["options"]["textMode"] == "value_and_name"
        for i, (name, series) in enumerate(self.answers):
            middle, value = self.x + self.w * (i + 0.5) / len(self.answers), series.values[-1]
            y = self.y + self.h / 2 + (2 if named_too else 10)
            text, size, room = self.shown(value), 22.0, self.w / len(self.answers) - 16
            size *= min(1, room / self.canvas.measure(text, size, "bold"))
            self.canvas.text(middle, y, text, size, color=self.colour(value), ha="center", weight="bold")
            if named_too:
                self.canvas.text(middle, y + 34, name, 8.5, room, ha="center", color=MUTED)

    def bars(self) -> None:
        """Draw horizontal bars: name, bar, value."""
        largest = self.field().get("max", max(series.values[-1] for _, series in self.answers)) or 1
        texts = [(name, self.shown(series.values[-1]), series.values[-1]) for name, series in self.answers]
        left = min(0.5 * self.w, 14 + max(self.canvas.measure(name, 8.5) for name, *_ in texts))
        right = 18 + max(self.canvas.measure(text, 8.5, "bold") for _, text, _ in texts)
        pitch = min(34, (self.h - 42) / len(texts))
        for i, (name, text, value) in enumerate(texts):
            y, length = self.y + 34 + i * pitch, self.w - left - right - 8
            self.canvas.text(self.x + 10, y + pitch / 2, name, 8.5, left - 8)
            self.canvas.box(self.x + left + 4, y + 0.16 * pitch, length, 0.68 * pitch, "#eef0f2")
            share = min(max(value / largest, 0), 1) if math.isfinite(value) else 0
            self.canvas.box(self.x + left + 4, y + 0.16 * pitch, length * share, 0.68 * pitch, self.colour(value))
            colour = self.colour(value)
            edge = self.x + self.w - 10
            self.canvas.text(edge, y + pitch / 2, text, 8.5, color=colour, weight="bold", ha="right")

    def table(self) -> None:
        """Draw a table: a row for each set of labels, a column for each query."""
        labels, columns, rows = panels.table(self.panel, self.answers)
        widths = [1.0] * len(labels) + [0.62] * len(columns)
        edges = self.x + 10 + np.cumsum([0, *widths]) / sum(widths) * (self.w - 20)
        for i, (key, values) in enumerate([((), {}), *rows][: int((self.h - 34) / 25)]):
            y = self.y + 46 + 25 * i
            for j, header in enumerate(labels + columns):
                left, right, room = edges[j], edges[j + 1], edges[j + 1] - edges[j] - 6
                place = {"x": left} if header in labels else {"x": right, "ha": "right"}
                if i == 0:
                    self.canvas.text(y=y, text=header, size=8.5, width=room, color=MUTED, **place)
                elif header in labels:
                    self.canvas.text(y=y, text=key[j], size=8.5, width=room, **place)
                elif header in values:
                    text, colour = self.shown(values[header], header), self.colour(values[header], header)
                    self.canvas.text(y=y, text=text, size=8.5, width=room, color=colour, **place)
            self.canvas.page.plot([self.x + 10, self.x + self.w - 10], [y + 13, y + 13], color=RULE, linewidth=0.8)

    def series(self) -> None:
        """Draw lines, bars or points over time, with a legend."""
        fixed = [self.field(name)["color"].get("fixedColor") for name, _ in self.answers]
        colours = [COLOURS.get(known, known) or PALETTE[i % len(PALETTE)] for i, known in enumerate(fixed)]
        top, height, width = self.y + 34, self.h - 60, self.w - 14
        if self.panel["options"]["legend"]["placement"] == "right":
            width -= self.legend_right(colours, top, height)
        else:
            height -= self.legend_below(colours)
        axes = self.canvas.figure.add_axes((0, 0, 1, 1), facecolor=CARD)
        step = self.scope.step(self.panel)
        grid = np.arange(self.scope.start // step, self.scope.end // step + 1) * step
        below = np.zeros(len(grid))
        for (name, series), colour in zip(self.answers, colours, strict=True):
            values = np.full(len(grid), np.nan)
            values[np.searchsorted(grid, series.times)] = series.values
            custom = self.field(name)["custom"]
            stacked = custom.get("stacking", {}).get("mode") == "normal"
            _plot(axes, grid / DAY, values, below if stacked else np.zeros(len(grid)), custom, colour)
            below = below + np.nan_to_num(values) if stacked else below
        left = self.scale(axes, width)
        self.canvas.place(axes, self.x + left, top, width - left, height)

    def scale(self, axes: Axes, width: float) -> float:
        """Set limits, ticks and threshold, and what axes look like; return how much of `width` stands left of them."""
        field = self.field()
        low, high = axes.get_ylim()
        least = field.get("min", low)
        most = field.get("max", max(high, field["custom"].get("axisSoftMax", high)))
        most = most if most > least else least + 1
        axes.set_ylim(least, most + 0.02 * (most - least))
        axes.set_xlim(self.scope.start / DAY, self.scope.end / DAY)
        whole = field["unit"] == "none" and field.get("decimals") == 0
        per, end = panels.scale(most, field["unit"])
        ticks = MaxNLocator(4, integer=whole).tick_values(least / per, most / per)
        ticks = ticks[(ticks >= least / per) & (ticks <= 1.001 * most / per)]
        texts = [f"{tick:.4g}{end}" for tick in ticks]
        axes.set_yticks(ticks * per, texts)
        # As many times as fit, written in full.
        most_ticks = min(7, max(3, int(width / (self.canvas.measure("00:00:00", 8) + 20))))
        locator = AutoDateLocator(minticks=2, maxticks=most_ticks)
        formats = ["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S"]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, "UTC", formats, zero_formats=formats))
        axes.xaxis.get_offset_text().set_visible(False)
        axes.tick_params(length=0, pad=5, labelsize=8, labelcolor=MUTED)
        axes.grid(color=RULE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        if "thresholdsStyle" in field["custom"]:
            axes.axhline(field["thresholds"]["steps"][-1]["value"], color=COLOURS["red"], linewidth=1.1, dashes=(6, 4))
        label = field["custom"].get("axisLabel", "")
        self.canvas.page.text(self.x + 8, self.y + self.h / 2, label, rotation=90, size=8, color=MUTED, va="center")
        return 20 + (14 if label else 0) + max(self.canvas.measure(text, 8) for text in texts)

    def legend_right(self, colours: list[str], top: float, height: float) -> float:
        """Write names and last values beside the plot; return the width that they take."""
        values = [self.shown(_last(series), name) for name, series in self.answers]
        room = max(self.canvas.measure(value, 8) for value in values) + 8
        wide = max(self.canvas.measure(name, 8) for name, _ in self.answers) + 18 + room
        wide = min(wide, 0.45 * self.w)
        x, lines = self.x + self.w - wide - 10, int((height + 20) / 17)
        for i, ((name, _), value, colour) in enumerate(zip(self.answers, values, colours, strict=True)):
            y = top + 8 + 17 * i
            if i == lines - 1 and len(values) > lines:
                self.canvas.text(x, y, f"and {len(values) - i} more", 8, color=MUTED)
                break
            self.canvas.box(x, y - 1.5, 11, 3, colour)
            self.canvas.text(x + 16, y, name, 8, wide - 18 - room)
            self.canvas.text(self.x + self.w - 10, y, value, 8, ha="right", color=MUTED)
        return wide + 10

    def legend_below(self, colours: list[str]) -> float:
        """Write names below the plot, in as many lines as they take, up to three; return the height."""
        places, x, line = [], 14.0, 0
        for name, _ in self.answers:
            wide = self.canvas.measure(name, 8) + 30
            if x + wide > self.w and x > 14:
                x, line = 14.0, line + 1
            places.append((x, line))
            x += wide
        lines = min(line + 1, 3)
        for (name, _), (x, line), colour in zip(self.answers, places, colours, strict=True):
            if line < lines:
                y = self.y + self.h - 14 - 17 * (lines - 1 - line)
                self.canvas.box(self.x + x, y - 1.5, 11, 3, colour)
                self.canvas.text(self.x + x + 16, y, name, 8, self.w - x - 20)
        hidden = sum(line >= lines for _, line in places)
        if hidden:
            self.canvas.text(self.x + self.w - 10, self.y + 17, f"{hidden} more", 8, ha="right", color=MUTED)
        return 17 * lines + 2


def _plot(axes: Axes, x: np.ndarray, y: np.ndarray, base: np.ndarray, custom: Json, colour: str) -> None:
    """Draw one series as its panel has it, on top of `base`."""
    style, width = custom["drawStyle"], custom["lineWidth"]
    step = {"step": "post"} if custom["lineInterpolation"] == "stepAfter" else {}
    if style == "bars":
        axes.bar(x, y, 0.8 * (x[1] - x[0]), base, color=colour, edgecolor=colour, linewidth=1)
        return
    alone = np.isfinite(y) & ~np.isfinite(np.r_[np.nan, y[:-1]]) & ~np.isfinite(np.r_[y[1:], np.nan])
    points = np.isfinite(y) if style == "points" else alone
    axes.plot(x[points], (base + y)[points], "o", color=colour, markersize=5 if style == "points" else 2.5)
    if style == "points":
        return
    dashes = (4, 2.5) if custom.get("lineStyle", {}).get("fill") == "dash" else (None, None)
    drawn = "steps-post" if step else "default"
    axes.plot(x, base + y, color=colour, linewidth=width, dashes=dashes, drawstyle=drawn)
    if custom["fillOpacity"]:
        axes.fill_between(x, base, base + y, color=colour, alpha=custom["fillOpacity"] / 100, linewidth=0, **step)


def _last(series: Series) -> float:
    return next((value for value in reversed(series.values) if math.isfinite(value)), math.nan)


def draw(dashboard: Json, prometheus: Prometheus, scope: Scope, path: Path) -> None:
    """Write a picture of a dashboard to `path`."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    canvas = Canvas(HEAD + ROW * rows + 34)
    start, end = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (scope.start, scope.end))
    chosen = [f"namespace {scope.namespace}"]
    for variable in dashboard["templating"]["list"]:
        if variable["name"] == "workflow":
            chosen.append("all workflows" if scope.workflow == ".+" else f"workflow {scope.workflow}")
        elif variable["name"] == "price":
            chosen.append(f"{variable['label']} {scope.price}")
    chosen.append(f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    canvas.text(MARGIN, 32, dashboard["title"], 15, weight="bold")
    canvas.text(WIDTH - MARGIN, 32, "   ·   ".join(chosen), 9.5, ha="right", color=MUTED)
    for panel in dashboard["panels"]:
        answers = []
        for query in [] if panel["type"] == "row" else panels.panel_queries(dashboard, panel, scope):
            answers += [
                (query.ref if panel["type"] == "table" else panels.named(query.legend, series.labels), series)
                for series in prometheus.ask(query)
            ]
        Drawing(canvas, panel, answers, scope).draw()
    canvas.text(MARGIN, canvas.height - 20, CAPTION, 8.5, color=MUTED)
    canvas.figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Read the command line, draw both dashboards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    now = datetime.datetime.now(datetime.UTC)
    time = datetime.datetime.fromisoformat
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--workflow", default=".+", help="a regular expression; default: all")
    parser.add_argument("--price", default="0", help="of an hour of a GPU")
    parser.add_argument("--scrape", type=int, default=15, help="seconds between two scrapes; default: 15")
    parser.add_argument(
        "--from", dest="start", type=time, default=now - datetime.timedelta(hours=6), metavar="ISO 8601"
    )
    parser.add_argument("--to", dest="end", type=time, default=now, metavar="ISO 8601")
    parser.add_argument("--dashboard", choices=list(panels.dashboards()), action="append", help="default: all of them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", metavar="FOLDER")
    given = parser.parse_args()
    times = given.start.timestamp(), given.end.timestamp()
    scope = Scope(given.namespace, *times, given.workflow, given.price, scrape=given.scrape)
    for name, dashboard in panels.dashboards().items():
        if name in (given.dashboard or panels.dashboards()):
            path = given.out / f"dashboard-{name}.png"
            draw(dashboard, Prometheus(given.prometheus), scope, path)
            print(path)


if __name__ == "__main__":
    main()
