"""A job up to its first training step: python -m bench.speed.first_step JOB FLAGS.

It is the command `mrigan JOB FLAGS`, which ends after one step, with a line: the seconds of building the networks,
tracing them, and the step.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from jobs import cli
from jobs.common.loading import load_job


def main(job: str, *flags: str) -> int:
    """Run the job; return its exit code if it ends without a step."""
    load_job(job)
    if job == "train-gan":
        from jobs.gan import training

        build, trace = training.new_state, training.train_function
        began: list[float] = []

        def new_state(*arguments: Any) -> Any:
            began.append(time.perf_counter())
            return build(*arguments)

        training.new_state = new_state  # type: ignore[assignment]
        training.train_function = lambda *arguments: _ending(trace(*arguments), began[0])
    else:
        from jobs.classifier import stepping

        prepare = stepping.prepare

        def prepared(*arguments: Any) -> tuple[Any, Callable[..., Any]]:
            began = time.perf_counter()
            state, take_steps = prepare(*arguments)
            return state, _ending(take_steps, began)

        stepping.prepare = prepared  # type: ignore[assignment]
    return cli.main([job, *flags])


def _ending(steps: Callable[..., Any], began: float) -> Callable[..., None]:
    """Return a function like `steps` that takes the first step alone and ends the process."""

    def first(*arguments: Any) -> None:
        # Arrays have an entry for each step; a number is the seed, or that of the first step.
        steps(*(one[:1] if len(one.shape) else one for one in arguments)).numpy()
        print(time.perf_counter() - began, flush=True)
        os._exit(0)

    return first


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
