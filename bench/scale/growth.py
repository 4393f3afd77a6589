"""Laws of growth, fitted to measured points: value = start + units x factor x product of powers of the dimensions.

`start` is what a job needs before its first image or step: the smallest value, mostly that of the first point. The
exponents are slopes of straight lines (numpy.polyfit) through the logarithms of what is left, one dimension at a time,
the others held.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SMALLEST = 0.01  # share of a value that growth has at least, where it is lost in noise


@dataclass(frozen=True)
class Series:
    """Points of a job that differ in one dimension.

    Attributes:
        job: what is measured; the same for all dimensions of a law.
        dimension: what the points differ in, such as `images`.
        base: the other dimensions.
        points: `x`, `seconds` (elapsed), `cpu` (processor seconds), `mib` (peak memory of the largest process); for a
            step also `start`: the seconds of the process beside its steps.
        unit: of the seconds: `task` (a whole process) or `step`.
        first: whether the smallest point tells the start.
    """

    job: str
    dimension: str
    base: Mapping[str, float]
    points: list[dict[str, float]]
    unit: str = "task"
    first: bool = False

    @property
    def x(self) -> list[float]:
        """The points' places."""
        return [point["x"] for point in self.points]


@dataclass(frozen=True)
class Law:
    """A fitted law. `factor` is for the bases; `measured` has the range of each dimension that was measured."""

    start: float
    factor: float
    exponents: dict[str, float]
    bases: dict[str, float]
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)

    def at(self, units: float = 1, **where: float) -> float:
        """Return the value at these places; dimensions that are not given, or not measured, are at their bases."""
        ratios = [(where.get(name, base) / base) ** self.exponents[name] for name, base in self.bases.items()]
        return self.start + units * self.factor * math.prod(ratios)

    def reaches(self, **where: float) -> bool:
        """Return whether all these places are within what was measured."""
        return all(low <= where.get(name, low) <= high for name, (low, high) in self.measured.items())


def law(found: Sequence[Series], what: str) -> Law:
    """Fit the law of a job's series for `what`: seconds, cpu or mib. The first series tells the start and the factor.

    Raises ValueError if a series has too few points.
    """
    main = found[0]
    values = [point[what] for point in main.points]
    if main.unit == "step":
        start = statistics.median(point["start"] for point in main.points) if what == "seconds" else 0.0
        left = 0.0
    else:
        start = left = min(values) if main.first else 0.0
    skipped = 1 if main.first else 0
    slope, height = _line(main.x[skipped:], [value - left for value in values[skipped:]], values[skipped:])
    middle = main.x[skipped:][len(main.x[skipped:]) // 2]
    exponents, bases = {main.dimension: slope}, {main.dimension: middle}
    measured = {main.dimension: (main.x[skipped], main.x[-1])}
    for one in found[1:]:
        values = [point[what] for point in one.points]
        exponents[one.dimension], _ = _line(one.x, [value - left for value in values], values)
        bases[one.dimension] = main.base[one.dimension]
        measured[one.dimension] = (one.x[0], one.x[-1])
    return Law(start, math.exp(height + slope * math.log(middle)), exponents, bases, measured)


def _line(x: Sequence[float], growth: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return slope and height of the line through the logarithms."""
    if len(x) < 2:
        raise ValueError("a law of growth needs two points and more")
    y = [max(one, SMALLEST * value) for one, value in zip(growth, values, strict=True)]
    slope, height = np.polyfit(np.log(x), np.log(y), 1)
    return float(slope), float(height)


def laws(stored: Mapping[str, Any], what: str) -> dict[str, Law]:
    """Return the laws of all jobs of stored results."""
    found: dict[str, list[Series]] = {}
    for one in stored["series"].values():
        series = Series(**one)
        found.setdefault(series.job, []).append(series)
    return {job: law(series, what) for job, series in found.items()}
