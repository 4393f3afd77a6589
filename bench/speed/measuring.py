"""Sides of a comparison, measured alternately, and the figures that follow."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jobs.common.errors import MachineError

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
# A peer in the same environment would otherwise take all memory of a GPU.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


class Side(NamedTuple):
    """What is measured: a function of a module, its options, and the Python that runs it (see bench.speed.serving)."""

    work: str
    options: dict[str, Any]
    python: Path = Path(sys.executable)


class Measured(NamedTuple):
    """The seconds of a step in each round, and the facts about the side."""

    seconds: list[float]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A line of the table: one value for each round.

    Attributes:
        work, against: what is compared with what.
        unit: `x` for a ratio of speeds, ours over theirs; `x the time` for a ratio of times; or a unit of ours alone.
        goal: the median must be at least, or for all units but `x` at most, this; None: there is no goal.
        flops, precision: of our side, the floating-point operations per second that its method needs, and their format.
        facts: more about the sides, such as what a tuned one chose.
    """

    work: str
    against: str
    values: list[float]
    unit: str
    goal: float | None = None
    flops: float | None = None
    precision: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.unit == "x" else self.median <= self.goal


def speeds(ours: Measured, theirs: Measured) -> list[float]:
    """Return for each round the speed of ours over theirs."""
    return [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]


def alternate(
    sides: Sequence[Side], rounds: int, seconds: float, *, multiple: int = 1, steps: int | None = None
) -> list[Measured]:
    """Measure the sides in turn, in every second round in reverse order.

    A side does `steps` steps in a round; or as many, a multiple of `multiple`, as take about `seconds`. Steps before
    the first round, in which functions are traced and compiled, are not counted. Raises MachineError if a side fails.
    """
    with ExitStack() as stack:
        serving = [stack.enter_context(_served(side)) for side in sides]
        counts = [_count(ask, seconds, multiple, steps) for ask, _ in serving]
        found = [Measured([], facts | {"steps_of_a_round": n}) for (_, facts), n in zip(serving, counts, strict=True)]
        for number in range(rounds):
            order = range(len(sides))
            for i in order if number % 2 else reversed(order):
                found[i].seconds.append(serving[i][0](counts[i]) / counts[i])
    return found


def _count(ask: Any, seconds: float, multiple: int, steps: int | None) -> int:
    """Return `steps`, or how many steps take about `seconds`, after some that are not counted."""
    ask(multiple)
    return steps or multiple * max(1, round(seconds / ask(multiple)))


@contextmanager
def _served(side: Side) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield a function that lets the process of a side do n steps and returns the seconds, and the side's facts."""
    command: list[str | Path] = [side.python, "-m", "bench.speed.serving", side.work, json.dumps(side.options)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        )

        def answer() -> Any:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                process.wait()
                log.seek(0)
                raise MachineError(f"{side.work} ended with code {process.returncode}:\n{log.read()[-3000:]}")
            return json.loads(line)

        def ask(steps: int) -> float:
            assert process.stdin
            process.stdin.write(f"{steps}\n")
            return answer()

        with process:
            try:
                yield ask, answer()
                assert process.stdin
                # The end of its input lets the process clean up and end.
                process.stdin.close()
                process.wait()
            finally:
                process.kill()
