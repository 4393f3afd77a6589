"""Results of several processes are those of one, in order; failures reach the caller."""

import os
import signal
from collections.abc import Iterator

import pytest

from jobs.common import parallel
from jobs.common.errors import MachineError, UserError


@pytest.fixture(autouse=True, params=[1, 2])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Use one core, then two."""
    monkeypatch.setattr(parallel, "usable_cores", lambda: request.param)
    return request.param


def square(number: int) -> tuple[int, int]:
    """Return the square, and the process that computed it."""
    if number < 0:
        raise UserError("no square root")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number, os.getpid()


def test_results_are_in_order(cores: int) -> None:
    found = list(parallel.mapped(square, range(7)))
    assert [result for result, _ in found] == [0, 1, 4, 9, 16, 25, 36]
    processes = {process for _, process in found}
    assert len(processes) <= cores and (os.getpid() in processes) == (cores == 1)


def test_a_failure_comes_after_the_results_before_it() -> None:
    results = parallel.mapped(square, [3, 4, -1, 5])
    assert [next(results)[0], next(results)[0]] == [9, 16]
    with pytest.raises(UserError, match="no square root"):
        next(results)


def test_what_is_closed_computes_nothing_more() -> None:
    asked = []

    class Items(list[int]):
        def __iter__(self) -> Iterator[int]:
            for item in super().__iter__():
                asked.append(item)
                yield item

    results = parallel.mapped(square, Items(range(1000)))
    next(results)
    results.close()
    assert len(asked) < 10


def test_a_killed_process_is_a_failure_of_the_machine(cores: int) -> None:
    if cores > 1:
        with pytest.raises(MachineError, match="a process was killed, possibly out of memory"):
            list(parallel.mapped(square, [1, 99, 2]))
