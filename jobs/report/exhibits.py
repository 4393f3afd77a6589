"""Charts and images of the report page."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jobs.common.errors import MachineError
from jobs.report import figures
from jobs.report.words import BASELINES, NETWORK_NAMES, REGIMES

Json = dict[str, Any]
Recipe = tuple[str, str]  # network, regime
THUMBNAIL = 96
PROGRESS = 4  # images per side that are shown of a sample grid


class Panel(NamedTuple):
    """A chart (SVG) with its title."""

    title: str
    svg: str


class Samples(NamedTuple):
    """Pictures of one class as data URIs; `nearest` shows synthetic images above their nearest training images."""

    label: str
    real: list[str]
    synthetic: list[str]
    nearest: str | None


class GanTraining(NamedTuple):
    """One generator's losses, and its samples at some epochs."""

    label: str
    svg: str
    progress: list[tuple[int, str]]


@dataclass(frozen=True)
class Exhibits:
    """All charts and images of the page."""

    values: list[Panel]
    roc: list[Panel]
    reliability: list[Panel]
    similarity: list[Panel]
    samples: list[Samples]
    losses: list[GanTraining]
    histories: list[Panel]


def values_panels(report: Json) -> list[Panel]:
    """Balanced accuracy of each regime and control, a panel for each network."""
    controls = [
        (BASELINES[row["control"]].short, "", *_interval(row))
        for row in report["controls"]["results"]
        if row["metric"] == "balanced_accuracy" and row["control"] != "majority"
    ]
    panels = []
    for network in report["settings"]["networks"]:
        rows = [
            (REGIMES[row["regime"]], row["regime"], *_interval(row))
            for row in report["results"]
            if row["network"] == network and row["metric"] == "balanced_accuracy"
        ]
        name = f"Balanced accuracy of {NETWORK_NAMES[network]} by training images, and of the controls; see the tables"
        chance = 1 / len(report["dataset"]["labels"])
        panels.append(Panel(NETWORK_NAMES[network], figures.whiskers([*rows, *controls], chance, name)))
    return panels


def roc_panels(curves: dict[Recipe, list[figures.Curve]]) -> list[Panel]:
    """A panel for each network."""
    defined = {recipe: found for recipe, found in curves.items() if found}
    return [
        Panel(name, figures.roc(regimes, f"ROC curves of {name}: {_listed(regimes)}"))
        for name, regimes in _by_network(defined).items()
    ]


def reliability_panels(points: dict[Recipe, list[tuple[float, float, int]]]) -> list[Panel]:
    """A panel for each network."""
    return [
        Panel(name, figures.reliability(regimes, f"Accuracy by confidence of {name}: {_listed(regimes)}"))
        for name, regimes in _by_network(points).items()
    ]


def similarity_panels(report: Json) -> list[Panel]:
    """A panel for each network."""
    curves: dict[Recipe, list[tuple[float, float, float, float]]] = {
        (row["network"], row["regime"]): [(x["similarity"], *_interval(x)) for x in row["bins"]]
        for row in report["controls"]["similarity"]
    }
    return [
        Panel(name, figures.by_similarity(regimes, f"Accuracy of {name} by similarity to the nearest training image"))
        for name, regimes in _by_network(curves).items()
    ]


def tiles(label: str, real: Iterable[np.ndarray], synthetic: list[bytes], nearest: bytes | None) -> Samples:
    """real: uint8 [size, size] each; synthetic and nearest: PNG."""
    return Samples(
        label,
        [figures.data_uri(image, THUMBNAIL) for image in real],
        [figures.data_uri(_pixels(data), THUMBNAIL) for data in synthetic],
        figures.data_uri(_pixels(nearest), 8 * THUMBNAIL) if nearest else None,
    )


def gan_training(label: str, losses: list[dict[str, list[float]]], progress: list[tuple[int, bytes]]) -> GanTraining:
    """losses: the columns of each fold's losses.csv; progress: (epoch, sample grid of 8 by 8 images)."""
    folds = [
        (np.array(x["step"]), np.array(x["generator_loss"]), np.array(x["discriminator_loss"])) for x in losses if x
    ]
    shown = []
    for epoch, data in progress:
        grid = np.pad(_pixels(data), (0, 1))
        cell = grid.shape[0] // 8
        # A row of cells from every part of the grid: the classes of a class-conditional generator lie below each other.
        rows = grid.reshape(8, cell, -1)[:: 8 // PROGRESS, :, : PROGRESS * cell]
        shown.append((epoch, figures.data_uri(rows.reshape(-1, PROGRESS * cell)[:-1, :-1], 2 * THUMBNAIL)))
    return GanTraining(label, figures.gan_losses(folds, f"Losses of the generator of {label} by step"), shown)


def history(recipe: Recipe, tables: list[dict[str, list[float]]]) -> Panel:
    """tables: the columns of each fold's history.csv."""
    columns = ("epoch", "train_loss", "held_out_loss")
    folds = [tuple(np.array(x[column]) for column in columns) for x in tables if x]
    title = f"{NETWORK_NAMES[recipe[0]]}, {REGIMES[recipe[1]]}"
    return Panel(title, figures.histories(folds, recipe[1], f"Losses by epoch: {title}"))  # type: ignore[arg-type]


def _by_network(values: dict[Recipe, Any]) -> dict[str, dict[str, Any]]:
    """The values by the displayed name of the network, then by regime."""
    found: dict[str, dict[str, Any]] = {}
    for (network, regime), value in values.items():
        found.setdefault(NETWORK_NAMES[network], {})[regime] = value
    return found


def _interval(row: Json) -> tuple[float, float, float]:
    value, low, high = (float("nan") if row[name] is None else row[name] for name in ("value", "low", "high"))
    return value, low, high


def _listed(regimes: dict[str, Any]) -> str:
    return ", ".join(REGIMES[regime] for regime in regimes)


def _pixels(data: bytes) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)).convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise MachineError("a synthetic image is damaged: delete its folder and run generate again") from error
