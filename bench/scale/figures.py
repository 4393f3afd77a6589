"""Pictures for docs/scale.md: SVG that can be read on light and dark pages, the same bytes for the same figures."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

GRAY = "#808080"
COLOURS = ("#3b82c4", "#d9822b", "#3a9d5d", "#a05fc0", "#c44e52", "#8c7a3f", "#2aa198", "#b0568f", "#6c71c4")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": GRAY,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "xtick.color": GRAY,
    "xtick.labelsize": 8,
    "ytick.color": GRAY,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "text.parse_math": False,
}
# A picture for each dimension. The others of evaluate are in one.
PICTURES = {
    "images": ("images",),
    "pixels": ("pixels",),
    "count": ("count",),
    "classes": ("classes",),
    "folds-seeds": ("folds", "seeds", "networks"),
}


def write(found: dict[str, Any], folder: Path, name: str) -> list[tuple[str, str]]:
    """Draw the series of stored results, a picture for each dimension; return the files' names and texts."""
    drawn = []
    for title, dimensions in PICTURES.items():
        several = len(dimensions) > 1
        series = {
            f"{one['job']}, {one['dimension']}" if several else one["job"]: (
                [point["x"] for point in one["points"]],
                [point["seconds"] for point in one["points"]],
            )
            for one in found["series"].values()
            if one["dimension"] in dimensions
        }
        if series:
            file = f"{name}-{title}.svg"
            label = "count of each" if several else {"count": "images"}.get(title, title)
            lines(series, label, "seconds", folder / file)
            drawn.append((file, f"Seconds by {', '.join(dimensions)}"))
    return drawn


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, path: Path, scale: float = 1
) -> None:
    """Draw lines through points, both axes logarithmic; values are multiplied by `scale`."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": path.name}):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for name, (places, values) in series.items():
            axes.plot(places, [scale * value for value in values], "o-", markersize=4, linewidth=1.4, label=name)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        low, high = axes.get_ylim()
        if high < 10 * low:
            # What hardly grows must look so.
            axes.set_ylim(low / (10 * low / high) ** 0.5, high * (10 * low / high) ** 0.5)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        places = sorted({place for places, _ in series.values() for place in places})
        if len(places) <= 8 and all(after >= 1.5 * before for before, after in pairwise(places)):
            axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.grid(axis="y", color=GRAY, linewidth=0.3)
        figure.legend(loc="outside lower center", ncols=2 if len(series) > 2 else 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
