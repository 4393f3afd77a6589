"""How long a plan takes on N devices: tasks start in its order, as soon as their inputs and a device are there.

So do `mrigan pipeline` and, with the waits of the workflow, Argo. It is list scheduling: Graham, "Bounds on
multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.declaration import Task

MOST = 64  # devices
GAINED = 0.02  # share of the time; less is no gain


class Timed(NamedTuple):
    """A task with its seconds and the kind of its device."""

    place: str
    needs: tuple[str, ...]
    seconds: float
    takes: str


def timed(tasks: Sequence[Task], seconds: Mapping[str, float], gpus: bool) -> list[Timed]:
    """Return a plan's tasks with their seconds by place. Without `gpus`, all take a core."""
    return [Timed(one.place, one.needs, seconds[one.place], one.takes if gpus else "cpu") for one in tasks]


def as_workflow(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks with the waits of the workflow, in which a stage waits for the whole stage before it.

    workflows/workflowtemplate.yaml: the folds wait for pretraining, which waits for all phantoms; in a fold, images
    wait for all generators, and classifiers that need images for all images.
    """

    def places(*jobs: str, fold: object = None) -> tuple[str, ...]:
        found = (one for one in tasks if one.job in jobs and fold in (None, one.settings.get("fold")))
        return tuple(one.place for one in found)

    first = places("draw-phantoms", "pretrain")
    waiting = []
    for one in tasks:
        fold = one.settings.get("fold")
        more: tuple[str, ...] = ()
        if one.job == "pretrain":
            more = places("draw-phantoms")
        elif fold is not None and fold != "all":
            more = first
        if one.job == "generate":
            more += places("train-gan", fold=fold)
        if one.job == "train-classifier" and one.settings["regime"] != "real":
            more += places("generate", fold=fold)
        waiting.append(one._replace(needs=tuple(dict.fromkeys((*one.needs, *more)))))
    return waiting


def makespan(tasks: Sequence[Timed], devices: Mapping[str, int]) -> float:
    """Return the seconds until the last task has ended, with so many devices of each kind.

    Inputs that no task makes are there from the start. Tasks must come after what they need.
    """
    made = {one.place for one in tasks}
    missing = {one.place: len(set(one.needs) & made) for one in tasks}
    followers: dict[str, list[int]] = {}
    for number, one in enumerate(tasks):
        for need in set(one.needs) & made:
            followers.setdefault(need, []).append(number)
    free = dict(devices)
    # Numbers of tasks, the first of the plan on top.
    ready: dict[str, list[int]] = {kind: [] for kind in devices}
    for number, one in enumerate(tasks):
        if not missing[one.place]:
            heapq.heappush(ready[one.takes], number)
    running: list[tuple[float, int]] = []
    now = 0.0
    while running or any(ready.values()):
        for kind, waiting in ready.items():
            while waiting and free[kind]:
                number = heapq.heappop(waiting)
                free[kind] -= 1
                heapq.heappush(running, (now + tasks[number].seconds, number))
        now = running[0][0]
        while running and running[0][0] == now:
            ended = tasks[heapq.heappop(running)[1]]
            free[ended.takes] += 1
            for number in followers.get(ended.place, ()):
                missing[tasks[number].place] -= 1
                if not missing[tasks[number].place]:
                    heapq.heappush(ready[tasks[number].takes], number)
    return now


def critical_path(tasks: Sequence[Timed]) -> list[Timed]:
    """Return the longest chain of tasks that need each other: no number of devices is faster."""
    by_place = {one.place: one for one in tasks}
    ends: dict[str, float] = {}
    before: dict[str, str] = {}
    for one in tasks:
        needed = max((need for need in one.needs if need in ends), key=ends.__getitem__, default="")
        ends[one.place] = one.seconds + ends.get(needed, 0.0)
        before[one.place] = needed
    place = max(ends, key=ends.__getitem__, default="")
    chain = []
    while place:
        chain.append(by_place[place])
        place = before[place]
    return chain[::-1]


def enough(tasks: Sequence[Timed], kinds: Sequence[str]) -> int:
    """Return the fewest devices with which the plan is as fast as with any number, up to GAINED."""
    fastest = makespan(tasks, dict.fromkeys(kinds, max(1, len(tasks))))
    low, high = 1, max(1, len(tasks))
    # More devices may take longer in rare cases (Graham's anomalies), by less than what counts here.
    while low < high:
        middle = (low + high) // 2
        if makespan(tasks, dict.fromkeys(kinds, middle)) <= (1 + GAINED) * fastest:
            high = middle
        else:
            low = middle + 1
    return low


def counts() -> list[int]:
    """Return 1, 2, 4, ... MOST."""
    return [2**power for power in range(math.ceil(math.log2(MOST)) + 1)]
