"""The measuring of growth: known laws, schedules beside brute force, and a page that says what is stored."""

import itertools
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scale import __main__ as scale
from bench.scale import devices, growth, page, points, recipes
from bench.scale.devices import Timed
from bench.scale.growth import Series
from bench.speed.measuring import ROOT
from jobs.argo import size
from tests.test_plan import carried_out, plan, planning

HARDWARE = {"kind": "cpu", "device": "A (R) Processor", "machine": "x86_64", "cores": 2}
RUN = {"commit": "c1", "versions": {"python": "3.11.9"}, "seconds": 9}


# ---- laws ------------------------------------------------------------------------------------------------------------


def series(job: str, dimension: str, xs: list[float], of, base=None, **more) -> Series:  # type: ignore[no-untyped-def]
    """Return points on a known curve; memory is ten times the seconds."""
    found = [{"x": x, "seconds": of(x), "cpu": of(x), "mib": 10 * of(x)} for x in xs]
    if more.get("unit") == "step":
        found = [one | {"start": 7.0} for one in found]
    return Series(job, dimension, base or {}, found, **more)


def test_a_law_finds_the_curve_that_its_points_lie_on() -> None:
    base = {"images": 500, "pixels": 64}
    first = series("j", "images", [0.001, 500, 1000, 4000], lambda x: 3 + 0.01 * x**1.5, base)
    second = series("j", "pixels", [32, 64, 128], lambda x: 3 + 0.01 * 500**1.5 * (x / 64) ** 2, base)
    found = growth.law([first, second], "seconds")
    assert found.start == pytest.approx(3, rel=1e-3)
    assert found.exponents == pytest.approx({"images": 1.5, "pixels": 2}, rel=1e-3)
    assert found.at(images=20_000, pixels=256) == pytest.approx(3 + 0.01 * 20_000**1.5 * 16, rel=1e-2)
    assert growth.law([first, second], "mib").at(images=1000) == pytest.approx(30 + 0.1 * 1000**1.5, rel=1e-2)
    assert found.reaches(images=4000, pixels=32) and not found.reaches(images=4001)


def test_steps_are_multiplied_and_the_start_is_not() -> None:
    found = growth.law([series("s", "pixels", [32, 64], lambda x: x**2 / 4096, unit="step")], "seconds")
    assert found.at(100, pixels=128) == pytest.approx(7 + 100 * 4)


def test_memory_that_does_not_grow_stays() -> None:
    found = growth.law([series("j", "images", [1, 10, 100], lambda x: 5.0)], "mib")
    assert found.at(images=10_000) == pytest.approx(50, rel=0.05)


# ---- devices ---------------------------------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> list[Timed]:
    """Up to nine tasks of whole seconds, each after some before it."""
    found: list[Timed] = []
    for number in range(draw(st.integers(1, 9))):
        needs = draw(st.lists(st.sampled_from([one.place for one in found]), max_size=3)) if found else []
        takes = draw(st.sampled_from(["cpu", "gpu"]))
        found.append(Timed(f"t{number}", ("data", *needs), draw(st.integers(1, 6)), takes))
    return found


def second_by_second(tasks: list[Timed], counts: dict[str, int]) -> int:
    """Carry a plan out in steps of a second: an oracle for `makespan`."""
    made = {one.place for one in tasks}
    left = {one.place: int(one.seconds) for one in tasks}
    running: set[str] = set()
    clock = 0
    while any(left.values()):
        for one in tasks:
            ready = all(not left[need] for need in one.needs if need in made)
            busy = sum(other.takes == one.takes for other in tasks if other.place in running)
            if left[one.place] and one.place not in running and ready and busy < counts[one.takes]:
                running.add(one.place)
        for place in list(running):
            left[place] -= 1
            if not left[place]:
                running.remove(place)
        clock += 1
    return clock


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 4), st.integers(1, 3))
def test_a_schedule_is_that_of_brute_force(tasks: list[Timed], cores: int, gpus: int) -> None:
    counts = {"cpu": cores, "gpu": gpus}
    assert devices.makespan(tasks, counts) == second_by_second(tasks, counts)


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 10))
def test_a_schedule_is_within_the_bounds(tasks: list[Timed], count: int) -> None:
    """Graham's: not under the work of each device and the critical path, and not over their sum."""
    tasks = [one._replace(takes="cpu") for one in tasks]
    work, chain = sum(one.seconds for one in tasks), devices.critical_path(tasks)
    path = sum(one.seconds for one in chain)
    span = devices.makespan(tasks, {"cpu": count})
    assert max(work / count, path) <= span <= work / count + (1 - 1 / count) * path + 1e-9
    assert all(before.place in after.needs for before, after in itertools.pairwise(chain))
    assert devices.makespan(tasks, {"cpu": 1}) == work
    assert devices.makespan(tasks, {"cpu": len(tasks)}) == path


def test_more_devices_than_enough_gain_nothing() -> None:
    tasks = [Timed(f"t{number}", (), 10, "gpu") for number in range(12)]
    assert devices.enough(tasks, ("cpu", "gpu")) == 12
    tasks.append(Timed("last", tuple(one.place for one in tasks), 1, "cpu"))
    assert devices.enough(tasks, ("cpu", "gpu")) == 12
    # Two devices do all others in the time of this one.
    assert devices.enough([Timed("long", (), 60, "gpu"), *tasks], ("cpu", "gpu")) == 3
    assert devices.counts() == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("changes", [{}, {"gan_conditional": False}, {"regimes": ("real",)}])
def test_tasks_wait_as_in_the_workflow(changes: dict[str, object]) -> None:
    made = plan(**changes)
    names = {task.place: task.name for task in made.tasks}
    waits = {
        names[task.place]: {names[need] for need in task.needs if need in names}
        for task in devices.as_workflow(made.tasks)
    }

    def before(name: str) -> set[str]:
        return waits[name].union(*map(before, waits[name]))

    for task, earlier in carried_out("pipeline", {}, planning.stages(made, {})):
        assert before(task) == earlier, task


# ---- recipes ---------------------------------------------------------------------------------------------------------


def stored() -> page.Json:
    """Results as of a machine where everything takes a second for each image or step."""
    base = {"images": 1, "pixels": 64, "classes": 2, "count": 1, "folds": 5, "seeds": 1, "networks": 1}
    found = []
    for job, dimension in (
        ("preprocess", "images"),
        ("draw-phantoms", "count"),
        ("generate", "count"),
        ("predict", "count"),
        ("evaluate", "images"),
        ("promote", "images"),
    ):
        found.append(series(job, dimension, [0.001, 1, 100, 4000], lambda x: x, base))
    for job in ("preprocess", "generate"):
        found.append(series(job, "pixels", [32, 64, 128], lambda x: 1.0, base))
    for step in ("train-gan step", "mobilenetv2 step", "resnet152v2 step"):
        found.append(series(step, "pixels", [32, 64, 128], lambda x: 1.0, base, unit="step"))
    named = {f"{one.job}: {one.dimension}": asdict(one) for one in found}
    return {"schema": 1, "hardware": HARDWARE, "runs": dict.fromkeys(named, RUN), "series": named}


def test_a_run_takes_the_steps_and_images_of_its_settings() -> None:
    laws = growth.laws(stored(), "seconds")
    one = recipes.recipe("", 1000, folds=4, seeds=2, gan_epochs=3, phantom_epochs=95)
    found = recipes.by_job(one, recipes.seconds(one, laws))
    folds, start = 4, 7
    assert found["preprocess"] == pytest.approx(1000, rel=1e-3)
    assert found["draw-phantoms"] == pytest.approx(8000, rel=1e-3)
    assert found["pretrain"] == pytest.approx(start + 95 * 100)
    assert found["train-gan"] == pytest.approx(folds * (start + 3 * np.ceil(750 / 32)))
    assert found["generate"] == pytest.approx(folds * 2 * 2000, rel=1e-3)
    assert found["train-classifier"] == pytest.approx(folds * 3 * 2 * (start + 8 * 100 + 1000 / folds))


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with a page that has a place for tables."""
    (tmp_path / page.PAGE).parent.mkdir()
    (tmp_path / page.PAGE).write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    return tmp_path


def test_the_page_says_what_is_stored(root: Path) -> None:
    found = stored()
    page.store(root, HARDWARE, found["runs"], found["series"])
    text = (root / page.PAGE).read_text()
    assert text.startswith("before\n\n") and text.endswith("\n\nafter\n") and "\nold\n" not in text
    assert "### A Processor, 2 cores" in text and "All series: commit c1" in text
    # A second an image: 10,000 s.
    assert "10,000 images at 64 px on one core: preprocess 2 h 47 min, draw-phantoms 2 h 13 min" in text
    assert "This is a forecast" in text
    assert "| 1,000 | 64 |" in text and "| *100,000* | *64* |" in text
    assert "images^1.00" in text and "(preprocess → draw-phantoms → pretrain → train-gan" in text
    pictures = {path.name for path in (root / page.IMAGES).iterdir()}
    assert {f"scale-a-processor-2-cores-{name}.svg" for name in ("images", "pixels", "devices")} <= pictures
    assert all(f"images/{name}" in text for name in pictures)


def test_series_of_another_run_stay(root: Path) -> None:
    found = stored()
    page.store(root, HARDWARE, found["runs"], found["series"])
    first = (root / page.PAGE).read_text()
    before = {path: path.read_bytes() for path in (root / page.IMAGES).iterdir()}
    name = "preprocess: images"
    path = page.store(root, HARDWARE, {name: RUN | {"commit": "c2"}}, {name: found["series"][name]})
    assert json.loads(path.read_text())["series"] == found["series"]
    assert (root / page.PAGE).read_text() != first and "commit c2" in (root / page.PAGE).read_text()
    assert before == {path: path.read_bytes() for path in (root / page.IMAGES).iterdir()}


def test_the_page_has_the_size_of_a_workflow(root: Path) -> None:
    measured, estimated = size.Size(593, 1_100_000, 90_000, 21_000), size.Size(593, 1_074_925, 96_844)
    figures = {"measured": measured._asdict(), "estimated": estimated._asdict()}
    page.store_workflow(root, {"argo": "v4.0.2", "largest": 1_040_000, "seconds": 900, **figures})
    text = (root / page.PAGE).read_text()
    assert "on Argo v4.0.2: 15 min, no offloading, and at most 1,040,000 bytes" in text
    assert "| the object at its end | 111,000 | 116,844 |" in text


def test_the_document_says_what_is_stored(tmp_path: Path) -> None:
    for folder in (page.STORED, page.IMAGES):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / page.PAGE).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / page.PAGE, tmp_path / page.PAGE)
    page.write(tmp_path)
    assert (tmp_path / page.PAGE).read_text() == (ROOT / page.PAGE).read_text()


# ---- measuring -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_series_is_measured_and_stored(root: Path) -> None:
    found = scale.measure(["draw-phantoms"], points.TINY, root)
    [path] = (root / page.STORED).glob("*.json")
    assert json.loads(path.read_text()) == {"schema": 1} | found
    for dimension, places in (("count", points.TINY.drawn), ("pixels", points.TINY.pixels)):
        measured = found["series"][f"draw-phantoms: {dimension}"]["points"]
        assert [one["x"] for one in measured] == list(places)
        for one in measured:
            assert one["seconds"] > 0.1 and one["cpu"] > 0.1 and 20 < one["mib"] < 2000


@pytest.mark.slow
def test_the_memory_and_the_time_are_those_of_the_command() -> None:
    used = points.measured("-c", "import time; x = b'1' * 200_000_000; time.sleep(0.3)")
    assert 190 < used["mib"] < 260
    assert used["seconds"] > 0.3 and used["cpu"] < used["seconds"]
    with pytest.raises(points.MachineError, match="no-such-job"):
        points.measured("-m", "jobs.cli", "no-such-job")


def test_an_unknown_series_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        scale.main(["gan-63"])
    assert ended.value.code == 2 and "unknown series gan-63" in capsys.readouterr().err
