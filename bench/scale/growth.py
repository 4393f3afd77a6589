"""Laws of growth, fitted to measured points: value = start + units x factor x product of powers of the dimensions.

`start` is what a job needs before its first image or step. Start, factor and powers, 0 or more, fit all points of a job
best (scipy.optimize.least_squares on the logarithms).
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import optimize

MOST = 4.0  # of a power
PRECISE = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-12)
PULL = 0.02  # toward 1, in each power: what the points do not tell is proportional
GUESSES = (0.1, 0.5, 0.9), (0.5, 1.0, 2.0)  # the start's share of the smallest value, and the powers


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
    """

    job: str
    dimension: str
    base: Mapping[str, float]
    points: list[dict[str, float]]
    unit: str = "task"

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
    """Fit the law of a job's series for `what`: seconds, cpu or mib.

    Raises ValueError if there are fewer points than series and one more.
    """
    names = [one.dimension for one in found]
    bases = {one.dimension: one.base.get(one.dimension, statistics.median(one.x)) for one in found}
    points = [
        (bases | dict(one.base) | {one.dimension: point["x"]}, point[what]) for one in found for point in one.points
    ]
    if len(points) <= len(found):
        raise ValueError("a law of growth needs two points and more")
    ratios = np.log([[where[name] / bases[name] for name in names] for where, _ in points])
    values = np.log([value for _, value in points])
    steps = found[0].unit == "step"
    # The start of steps is measured, so that their points tell the power.
    smallest, pull = (0.0, 0.0) if steps else (float(np.exp(values.min())), PULL)

    def residuals(unknown: np.ndarray) -> np.ndarray:
        start, height, *powers = unknown
        misses = np.log(start + np.exp(height + ratios @ powers)) - values
        return np.concatenate([misses, pull * (np.array(powers) - 1)])

    low = [0.0, values.min() - 14.0] + [0.0] * len(names)
    high = [smallest + 1e-9, values.max() + 1.0] + [MOST] * len(names)
    tried = [
        optimize.least_squares(
            residuals,
            np.clip([share * smallest, 0.0] + [power] * len(names), low, high),
            bounds=(low, high),
            **PRECISE,
        )
        for share, power in itertools.product(*GUESSES)
    ]
    start, height, *powers = min(tried, key=lambda one: one.cost).x
    if steps:
        start = statistics.median(point["start"] for point in found[0].points) if what == "seconds" else 0.0
    measured = {one.dimension: (min(one.x), max(one.x)) for one in found}
    exponents = dict(zip(names, map(float, powers), strict=True))
    return Law(float(start), math.exp(height), exponents, bases, measured)


def laws(stored: Mapping[str, Any], what: str) -> dict[str, Law]:
    """Return the laws of all jobs of stored results."""
    found: dict[str, list[Series]] = {}
    for one in stored["series"].values():
        series = Series(**one)
        found.setdefault(series.job, []).append(series)
    return {job: law(series, what) for job, series in found.items()}
