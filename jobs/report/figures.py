"""Charts for the report: SVG whose colours are CSS variables of the page, and PNG images as data URIs.

Each chart is one panel, so that the page decides how many are shown side by side. The output is deterministic.
"""

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Matplotlib draws in these placeholder colours. They are replaced by CSS variables, so that a chart follows the theme.
_VARIABLES = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--rule",
    "#040404": "--synthetic",
    "#050505": "--real",
    "#060606": "--both",
    "#070707": "--control",
}
_COLOUR = {variable: colour for colour, variable in _VARIABLES.items()}
_REGIMES = {"synthetic": "--synthetic", "real": "--real", "real+synthetic": "--both"}
_MARKERS = {"synthetic": "o", "real": "s", "real+synthetic": "D"}
_POINTS = 120  # points per curve; more are not visible at this size
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _COLOUR["--ink"],
    "axes.edgecolor": _COLOUR["--rule"],
    "axes.labelcolor": _COLOUR["--muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _COLOUR["--muted"],
    "ytick.color": _COLOUR["--muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": _COLOUR["--rule"],
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}

Curve = tuple[np.ndarray, np.ndarray]


def whiskers(rows: list[tuple[str, str, float, float, float]], chance: float, name: str) -> str:
    """Values with intervals: rows of (text, regime or '', value, low, high), the chance level as a line."""

    def draw(axes: Axes) -> None:
        axes.axvline(chance, color=_COLOUR["--muted"], linewidth=0.9, linestyle=(0, (2, 2)))
        for y, (_, regime, value, low, high) in enumerate(rows):
            colour = _COLOUR[_REGIMES.get(regime, "--control")]
            if np.isfinite([low, high]).all():
                axes.plot([low, high], [y, y], color=colour, linewidth=2.4, alpha=0.55, solid_capstyle="round")
            axes.plot([value], [y], _MARKERS.get(regime, "|"), color=colour, markersize=6, markeredgewidth=1.6)
        axes.set_yticks(range(len(rows)), [text for text, *_ in rows], color=_COLOUR["--ink"])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        lowest = min([chance, *(low for *_, low, _ in rows if np.isfinite(low)), *(v for _, _, v, *_ in rows)])
        axes.set_xlim(max(0.0, np.floor(lowest * 10 - 0.3) / 10), 1.01)
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)

    return _svg(draw, name, 3.5, 0.45 + 0.26 * len(rows))


def roc(curves: dict[str, list[Curve]], name: str) -> str:
    """Receiver operating characteristic: for each regime the folds' curves, thin, and their mean, thick."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_COLOUR["--rule"], linewidth=0.9)
        grid = np.linspace(0, 1, _POINTS)
        for regime, folds in curves.items():
            colour = _COLOUR[_REGIMES.get(regime, "--control")]
            for x, y in folds:
                axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45)
            mean = np.mean([np.interp(grid, x, y) for x, y in folds], axis=0)
            axes.plot(np.r_[0, grid], np.r_[0, mean], color=colour, linewidth=2)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate")
        axes.set_aspect("equal")

    return _svg(draw, name, 3.5, 3.1)


def reliability(points: dict[str, list[tuple[float, float, int]]], name: str) -> str:
    """Accuracy by confidence: for each regime the bins; the area of a dot is proportional to its number of images."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_COLOUR["--rule"], linewidth=0.9)
        for regime, bins in points.items():
            confidence, right, n = (np.array(x, float) for x in zip(*bins, strict=True))
            colour = _COLOUR[_REGIMES.get(regime, "--control")]
            axes.plot(confidence, right, color=colour, linewidth=1, alpha=0.6)
            size = 3 + 140 * n / n.sum()
            axes.scatter(confidence, right, s=size, color=colour, marker=_MARKERS.get(regime, "o"), alpha=0.85)
        lowest = min(confidence for bins in points.values() for confidence, _, _ in bins)
        axes.set(xlim=(max(0, lowest - 0.05), 1.02), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy")

    return _svg(draw, name, 3.5, 3.1)


def gan_losses(folds: list[tuple[np.ndarray, np.ndarray, np.ndarray]], name: str) -> str:
    """Generator and discriminator loss by step, averaged over intervals of steps, a line for each fold."""

    def draw(axes: Axes) -> None:
        for step, generator, discriminator in folds:
            axes.plot(*_thin(step, generator), color=_COLOUR["--synthetic"], linewidth=1, alpha=0.8)
            axes.plot(*_thin(step, discriminator), color=_COLOUR["--control"], linewidth=1, alpha=0.8)
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.locator_params(nbins=4)

    return _svg(draw, name, 3.2, 1.9)


def histories(folds: list[tuple[np.ndarray, np.ndarray, np.ndarray]], regime: str, name: str) -> str:
    """Training (thin) and held-out loss by epoch for each fold.

    folds: epoch, training loss, held-out loss, float [epochs] each.
    """

    def draw(axes: Axes) -> None:
        colour = _COLOUR[_REGIMES.get(regime, "--control")]
        for epoch, training, held_out in folds:
            axes.plot(*_thin(epoch, training), color=_COLOUR["--muted"], linewidth=0.8, alpha=0.7)
            axes.plot(*_thin(epoch, held_out), color=colour, linewidth=1.2, alpha=0.85)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.locator_params(nbins=4)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))

    return _svg(draw, name, 3.2, 1.9)


def by_similarity(curves: dict[str, list[tuple[float, float, float, float]]], name: str) -> str:
    """Accuracy against similarity to the nearest training image: (similarity, accuracy, low, high) for each bin."""

    def draw(axes: Axes) -> None:
        for i, (regime, bins) in enumerate(curves.items()):
            x, y, low, high = np.array(bins).T
            colour = _COLOUR[_REGIMES.get(regime, "--control")]
            shift = (i - (len(curves) - 1) / 2) * 0.012 * max(np.ptp(x), 0.02)
            axes.vlines(x + shift, low, high, color=colour, linewidth=1.6, alpha=0.5)
            axes.plot(x + shift, y, color=colour, marker=_MARKERS.get(regime, "o"), markersize=5, linewidth=1)
        axes.set_xlabel("similarity to the nearest training image")
        axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f} %")
        axes.set_ylim(top=1.02)
        axes.grid(axis="y")
        axes.locator_params(axis="x", nbins=5)

    return _svg(draw, name, 3.5, 2.4)


def data_uri(image: np.ndarray, side: int) -> str:
    """A grayscale image, uint8 [h, w], at most `side` pixels wide, as a data URI of a PNG."""
    data = io.BytesIO()
    small = Image.fromarray(image)
    if max(small.size) > side:
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _thin(x: np.ndarray, y: np.ndarray) -> Curve:
    """Means over intervals, so that at most _POINTS points remain."""
    parts = min(len(x), _POINTS)
    if parts == 0:
        return x, y
    return tuple(np.array([part.mean() for part in np.array_split(v, parts)]) for v in (x, y))  # type: ignore[return-value]


def _svg(draw: Callable[[Axes], None], name: str, width: float, height: float) -> str:
    """The SVG element of one panel, `width` by `height` inches; `name` is its text for screen readers."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    used = set(re.findall(r"#(\w+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"font-family: [^;\"]+; ", "", text)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    head = f'<svg viewBox="0 0 {72 * width:g} {72 * height:g}" role="img" aria-label="{_escape(name)}">'
    return " ".join(re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).split())


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
