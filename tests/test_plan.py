"""Which tasks a run has, what they need, and that the workflow has the same order."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import declaration, evaluate, phantom
from jobs import plan as planning
from jobs.argo import size
from jobs.common import keys, progress
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.declaration import Plan, Task
from jobs.settings import PRESETS, EvaluateSettings, PhantomSettings, PipelineSettings, PlanSettings
from tests import fake_run

WORKFLOW = yaml.safe_load((Path(__file__).parents[1] / "workflows" / "workflowtemplate.yaml").read_text())
TEMPLATES = {one["name"]: one for one in WORKFLOW["spec"]["templates"]}
LABELS = ["healthy", "lesion"]
MANY: dict[str, Any] = {
    "data": "x",
    "folds": 3,
    "healthy": "healthy",
    "phantoms": 2500,
    "networks": ("mobilenetv2", "resnet152v2"),
    "seeds": 2,
    "controls": True,
}


def plan(labels: list[str] | None = None, **settings: Any) -> Plan:
    """Return a plan for a dataset of two classes, or of others."""
    found = PipelineSettings(**MANY | settings)
    run = declaration.name_of_run(found, "d")
    return Plan("d", run, "n", found.model_dump(mode="json"), declaration.tasks(found, "d", labels or LABELS, run, "n"))


@pytest.mark.parametrize(
    "settings", [{}, {"gan_conditional": False}, {"regimes": ("real",)}, {"healthy": ""}, {"gan_of_all": True}]
)
def test_tasks_can_be_done_in_their_order(settings: dict[str, Any]) -> None:
    done = {keys.dataset("d")}
    tasks = plan(**settings).tasks
    for task in tasks:
        assert set(task.needs) <= done, task.name
        done.add(task.place)
    assert len({task.name for task in tasks}) == len({task.place for task in tasks}) == len(tasks)
    assert [task.job for task in tasks[-2:]] == ["evaluate", "promote"]
    assert set(tasks[-2].needs) >= {task.place for task in tasks if task.job == "train-classifier"}


def test_only_what_is_needed_comes_before() -> None:
    tasks = {task.name: task for task in plan().tasks}
    by_place = {task.place: task for task in tasks.values()}

    def needs(name: str) -> set[str]:
        return {by_place[place].job for place in tasks[name].needs if place in by_place}

    assert needs("train-classifier(0:mobilenetv2-real-seed-0)") == {"draw-phantoms", "pretrain"}
    assert needs("train-classifier(0:resnet152v2-real+synthetic-seed-1)") == {"draw-phantoms", "pretrain", "generate"}
    assert needs("train-gan(2:all-classes)") == set()
    assert needs("generate(2:lesion)") == {"train-gan"}
    assert "train-classifier(1:mobilenetv2-real-leaky-seed-0)" in tasks
    assert "train-classifier(1:resnet152v2-real-leaky-seed-0)" not in tasks
    assert [tasks[f"draw-phantoms({part})"].takes for part in range(3)] == ["cpu"] * 3
    assert tasks["generate(0:lesion)"].takes == "gpu"


def test_what_is_not_wanted_is_not_planned() -> None:
    assert {task.job for task in plan(regimes=("real",), healthy="").tasks} == {
        "train-classifier",
        "evaluate",
        "promote",
    }
    assert "pretrain" not in {task.job for task in plan(phantom_epochs=0).tasks}
    # The weights for the settings of the recipe are in the package.
    recipe = PipelineSettings(data="d", healthy="healthy")
    shared = {name: getattr(recipe, name) for name in ("image_size", "phantoms", "phantom_epochs")}
    pretrained = [task.name for task in plan(**shared).tasks if task.job == "pretrain"]
    assert pretrained == ["pretrain(resnet152v2)"]
    assert sum(task.job == "train-gan" for task in plan(gan_conditional=False).tasks) == 6


@pytest.mark.parametrize("settings", [{}, {"gan_conditional": False}, {"regimes": ("real",)}])
def test_a_gan_of_all_images_is_added_to_a_run_and_changes_nothing_else(settings: dict[str, Any]) -> None:
    before, after = plan(**settings), plan(**settings, gan_of_all=True)
    assert before.run == after.run
    added = [task for task in after.tasks if task not in before.tasks]
    assert [task for task in after.tasks if task not in added] == before.tasks
    gans = LABELS if "gan_conditional" in settings else ["all-classes"]
    names = [*(f"train-gan(all:{label})" for label in gans), *(f"generate(all:{label})" for label in LABELS)]
    assert [task.name for task in added] == names
    for task in added:
        assert declaration.settings_of(after, task).fold == "all"


def test_a_plan_survives_storage(tmp_path: Path) -> None:
    storage, made = open_storage(str(tmp_path)), plan()
    storage.write(keys.plan(made.id), planning.seal(made.fields()))
    found = planning.read(storage, made.id)
    assert found == made and found.id == made.id
    for task in found.tasks[:-1]:
        assert declaration.settings_of(found, task)


# ---- the workflow ----------------------------------------------------------------------------------------------------


def carried_out(template: str, given: dict[str, str], stages: dict[str, list[str]]) -> list[tuple[str, set[str]]]:
    """Return the tasks that a DAG of the workflow starts, each with the tasks that have ended before it for sure."""
    started: dict[str, list[str]] = {}
    before: dict[str, set[str]] = {}
    found = []
    for node in TEMPLATES[template]["dag"]["tasks"]:
        earlier = re.findall(r"[\w-]+", node.get("depends", ""))
        before[node["name"]] = set().union(*(before[name] | set(started[name]) for name in earlier))
        started[node["name"]] = []
        parameter = re.search(r"parameters\.([\w-]+)", node.get("withParam", ""))
        for item in stages[parameter[1]] if parameter else [""]:
            arguments = {
                one["name"]: one["value"].replace("{{item}}", item)
                for one in node.get("arguments", {}).get("parameters", ())
            }
            for name, value in given.items():
                arguments = {
                    key: one.replace(f"{{{{inputs.parameters.{name}}}}}", value) for key, one in arguments.items()
                }
            if "dag" in TEMPLATES[node["template"]]:
                inner = carried_out(node["template"], arguments, stages)
                found += [(task, needed | before[node["name"]]) for task, needed in inner]
                started[node["name"]] += [task for task, _ in inner]
            elif "task" in arguments:
                assert arguments["task"].partition("(")[0] == arguments["job"]
                found.append((arguments["task"], before[node["name"]]))
                started[node["name"]].append(arguments["task"])
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gan_conditional": False},
        {"regimes": ("real",)},
        {"healthy": "", "controls": False},
        {"gan_of_all": True},
        {"gan_of_all": True, "gan_conditional": False, "regimes": ("real",)},
    ],
)
def test_the_workflow_starts_every_task_after_what_it_needs(settings: dict[str, Any]) -> None:
    made = plan(**settings)
    names = {task.place: task.name for task in made.tasks}
    started = carried_out("pipeline", {}, planning.stages(made, {}))
    assert sorted(task for task, _ in started) == sorted(names.values())
    assert size.of(planning.stages(made, {})).pods == 1 + len(started)
    for task, before in started:
        needs = next(one.needs for one in made.tasks if one.name == task)
        assert {names[place] for place in needs if place in names} <= before, task
    waits = dict(started)
    assert not any("train-gan" in one for one in waits["train-classifier(0:mobilenetv2-real-seed-0)"])


def test_tasks_that_train_are_in_the_template_that_may_hold_a_gpu() -> None:
    nodes = [node for one in ("pipeline", "fold") for node in TEMPLATES[one]["dag"]["tasks"]]
    for node in nodes:
        given = {one["name"]: one["value"] for one in node.get("arguments", {}).get("parameters", ())}
        if "job" in given:
            assert (node["template"] == "training-task") == (given["job"] in declaration.ON_GPU), given["job"]


def test_the_first_pod_gives_every_list_that_the_workflow_takes() -> None:
    outputs = {one["name"] for one in TEMPLATES["preprocess"]["outputs"]["parameters"]}
    assert outputs == {"state", "run", "plan", "folds", *planning.STAGES}


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert PipelineSettings(data="x", **PRESETS[preset])


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of phantom heads."""
    folder = tmp_path_factory.mktemp("phantom") / "heads"
    phantom.run(PhantomSettings(out=str(folder), count=8))
    return folder


SMALL = {"folds": 2, "image_size": 32, "phantoms": 2}


def test_the_class_of_that_name_makes_the_same_run_as_the_class_itself(heads: Path, tmp_path: Path) -> None:
    plans = [
        planning.prepare(PipelineSettings(data=str(heads), storage=str(tmp_path), **SMALL, **more))
        for more in ({}, {"healthy": "healthy"})
    ]
    assert plans[0] == plans[1]
    assert (plans[0].settings["healthy"], plans[0].settings["classifier_learning_rate"]) == ("healthy", 0.001)


@pytest.mark.parametrize("healthy", ["auto", "off"])
def test_without_phantoms_the_learning_rate_is_that_for_random_weights(
    healthy: str, heads: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    data = tmp_path / "data"
    for name, label in (("a", "healthy"), ("b", "lesion")):
        shutil.copytree(heads / label, data / name)
    settings = {"data": str(data), "storage": str(tmp_path / "out"), **SMALL, "healthy": healthy}
    found = planning.prepare(PipelineSettings(**settings))
    assert (found.settings["healthy"], found.settings["classifier_learning_rate"]) == ("", 0.003)
    warnings = [
        record.message for record in caplog.records if record.name == "mrigan.healthy" and record.levelname == "WARNING"
    ]
    assert len(warnings) == (healthy == "auto") and all("(of a, b)" in one for one in warnings)
    assert "classifier_learning_rate 0.003" in caplog.text
    own = planning.prepare(PipelineSettings(**settings, classifier_learning_rate=0.01))
    assert own.settings["classifier_learning_rate"] == 0.01


def test_classifiers_are_trained_for_the_report_and_no_others(tmp_path: Path) -> None:
    networks = ("mobilenetv2", "resnet152v2")
    storage = open_storage(str(tmp_path))
    fake_run.make(storage, images=4, networks=networks, seeds=2, controls=True)
    asked = PipelineSettings(data="heads", healthy="", networks=networks, seeds=2, controls=True)
    planned = declaration.tasks(asked, fake_run.DATASET, LABELS, fake_run.RUN, "n")
    reported = EvaluateSettings.of(asked, storage=storage.url, dataset=fake_run.DATASET, run=fake_run.RUN)
    _, _, parts = evaluate.find(reported)
    here = f"runs/{fake_run.RUN}/fold-0/"
    places = {task.place for task in planned if task.job == "train-classifier" and task.place.startswith(here)}
    assert places == {part.prefix for part in parts if part.job == "train-classifier" and part.where["fold"] == 0}


def test_a_person_reads_what_is_done_and_what_is_left() -> None:
    made = plan(networks=("mobilenetv2",), seeds=1, controls=False)
    known = {task.place: {} for task in made.tasks if task.job == "draw-phantoms"}
    took = {task.place: 100.0 for task in made.tasks if task.job == "train-gan"}
    lines = planning.table(made, known, took).splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["draw-phantoms", "3", "3"],
        ["pretrain", "1", "0", "not", "known"],
        ["train-gan", "3", "0", "5", "min"],
    ]
    assert lines[-1] == f"{len(made.tasks)} tasks, {len(made.tasks) - 3} to do"
    assert planning.table(made, known, {task.place: 60.0 for task in made.tasks}).endswith("of one core")


@pytest.mark.parametrize(("seeds", "large"), [(1, False), (1200, True)])
def test_a_person_reads_how_large_the_workflow_is(
    seeds: int,
    large: bool,
    heads: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    planning.run(PlanSettings(data=str(heads), storage=str(tmp_path), **SMALL, seeds=seeds))
    # preprocess; phantoms and pretraining; in two folds a GAN, images of two classes and classifiers; the report.
    pods = 1 + 2 + 2 * (1 + 2 + 3 * seeds) + 2
    assert f"\nas an Argo workflow: {pods} pods" in capsys.readouterr().out
    assert ("too large for Argo" in caplog.text) == large


@pytest.mark.parametrize("settings", [{"regimes": ("real",), "gan_of_all": True}, {}])
def test_a_gan_needs_an_image_size_that_it_supports(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GANs support 32, 64, 128, 256 pixels"):
        planning.prepare(PipelineSettings(data="x", storage=str(tmp_path), image_size=48, **settings))


@pytest.mark.parametrize(("amount", "words"), [(4.4, "4 s"), (119, "2 min"), (5400, "90 min"), (12000, "3 h 20 min")])
def test_seconds_in_words(amount: float, words: str) -> None:
    assert progress.in_words(amount) == words


def test_a_name_is_one_that_a_key_can_have() -> None:
    assert declaration.name_of_folder("s3://b/p/My data (2)/") == "My-data-2"
    assert json.dumps(declaration.name_of_folder("...")) != '""'
    assert isinstance(Task("a", "", {}, "p", ()).name, str)
