"""All jobs together on phantom heads, as small as they go: killed, gone on with, repeated, and used to predict."""

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from jobs import evaluate, pipeline
from jobs.classifier.champion import parse_record
from jobs.cli import JOBS, read_settings
from jobs.common import keys
from jobs.common.storage import open_storage
from jobs.pipeline import PRESETS, PipelineSettings
from tests import fake_run

TINY = {
    "IMAGE_SIZE": "32",
    "FOLDS": "2",
    "NETWORKS": "mobilenetv2",
    "REGIMES": "synthetic",
    "GAN_EPOCHS": "60",
    "GAN_WIDTH": "4",
    "LATENT": "8",
    "GAN_BATCH": "8",
    "SYNTHETIC_COUNT": "16",
    "CLASSIFIER_EPOCHS": "1",
    "CLASSIFIER_STEPS_PER_EPOCH": "2",
    "CLASSIFIER_BATCH": "8",
    "RESAMPLES": "100",
    "THREADS": "1",
}
# Times and the decision's date: all else must repeat.
VOLATILE = ("manifest.json", "report.json", "report.html", "heads.json")


def mrigan(*words: str, wait: bool = True) -> subprocess.Popen[str]:
    """Start mrigan with the TINY settings in the environment."""
    environment = os.environ | {f"MRIGAN_{name}": value for name, value in TINY.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.shown, process.logged = process.communicate()  # type: ignore[attr-defined]
    return process


def digests(storage: Path) -> dict[str, str]:
    """Return the digests of all outputs that must repeat."""
    return {
        path.relative_to(storage).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(storage.rglob("*"))
        if path.is_file() and path.name not in VOLATILE and not path.name.startswith(".writing-")
    }


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of phantom heads."""
    folder = tmp_path_factory.mktemp("phantom") / "heads"
    assert mrigan("phantom", "--out", str(folder), "--count", "8").returncode == 0
    return folder


@pytest.fixture(scope="module")
def finished(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the storage of a pipeline that was never disturbed, and what it logged."""
    storage = tmp_path_factory.mktemp("undisturbed")
    process = mrigan("pipeline", "--data", str(heads), "--storage", str(storage))
    assert process.returncode == 0, process.logged
    return storage, process.logged


def test_it_ends_with_a_report_and_a_champion(finished: tuple[Path, str]) -> None:
    storage, logged = finished
    assert "held-out real images right" in logged
    assert len(list(storage.glob("runs/*/report/report.html"))) == 1
    assert (storage / "champions" / "heads.json").is_file()
    assert not list(storage.rglob("checkpoints/*"))


def written(storage: Path) -> dict[Path, int]:
    """Return when everything was written, but for the times of the runs themselves."""
    return {path: path.stat().st_mtime_ns for path in storage.rglob("*") if "activity" not in path.parts}


def test_a_second_run_computes_nothing_and_says_so(heads: Path, finished: tuple[Path, str]) -> None:
    storage, _ = finished
    before = written(storage)
    again = mrigan("pipeline", "--data", str(heads), "--storage", str(storage))
    assert again.returncode == 0
    assert "nothing was computed again" in again.logged
    assert written(storage) == before


def test_a_run_that_was_killed_ends_with_the_same_bytes(
    heads: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    words = ("pipeline", "--data", str(heads), "--storage", str(storage), "--checkpoint-steps", "8")
    stops = [("**/checkpoints/checkpoint.json", signal.SIGTERM, 75), ("**/synthetic/images/*", signal.SIGKILL, -9)]
    for pattern, number, code in stops:
        process = mrigan(*words, wait=False)
        while process.poll() is None and not any(storage.glob(pattern)):
            time.sleep(0.01)
        process.send_signal(number)
        _, logged = process.communicate()
        assert process.returncode == code, logged
    last = mrigan(*words)
    assert last.returncode == 0, last.logged
    assert digests(storage) == digests(finished[0])


def test_predict_reads_images_with_the_champion(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    storage, _ = finished
    images = sorted(str(path) for path in (heads / "lesion").glob("lesion-0*"))[:2]
    (tmp_path / "note.txt").write_text("no image")
    shown = mrigan("predict", *images, str(tmp_path / "note.txt"), "--storage", str(storage))
    assert shown.returncode == 2
    assert "note.txt: not-an-image" in shown.logged and "1 of 3 images could not be read" in shown.logged
    assert "no medical device" in shown.logged
    lines = shown.shown.splitlines()
    assert [line.split()[0] for line in lines] == images
    for line in lines:
        label, probability = line.split()[1:]
        assert label in ("healthy", "lesion") and 0.5 <= float(probability) <= 1


def test_on_new_data_old_and_new_are_judged_on_the_same_images(heads: Path, tmp_path: Path, s3_url: str) -> None:
    """On S3; also by a test set: they share the expensive runs."""
    folders = {name: str(tmp_path / name) for name in ("more", "test")}
    for seed, name in ((1, "more"), (2, "test")):
        assert mrigan("phantom", "--out", folders[name], "--count", "8", "--seed", str(seed)).returncode == 0
    for path in sorted(heads.glob("*/*-0000.*")):
        shutil.copy(path, Path(folders["more"]) / path.parent.name / f"known{path.suffix}")
    words = ("pipeline", "--name", "heads", "--storage", s3_url, "--regimes", "real", "--promote-margin", "1")
    runs = [
        ("--data", str(heads)),
        ("--data", folders["more"], "--classifier-learning-rate", "0.01"),
        ("--data", folders["more"], "--classifier-learning-rate", "0.02", "--test", folders["test"]),
    ]
    for more in runs:
        ended = mrigan(*words, *more)
        assert ended.returncode == 0, ended.logged
    record = parse_record(open_storage(s3_url).read(keys.champion("heads")), "heads")
    assert [decision["won"] for decision in record.decisions] == [True, True, True]
    images = [decision["images"] for decision in record.decisions[1:]]
    assert images[0]["own_out_of_fold"] == 2 and images[0]["ensemble"] >= 16
    assert images[1]["ensemble"] == images[1]["compared"] >= 16
    assert "test images" in record.decisions[2]["reason"]
    assert (
        record.published
        == json.loads(open_storage(s3_url).read(f"{keys.report(record.champion.run)}/report.json"))["selected"]
    )


def test_a_damaged_checkpoint_is_named(heads: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    process = mrigan("pipeline", "--data", str(heads), "--storage", str(storage), "--checkpoint-steps", "8", wait=False)
    while process.poll() is None and not any(storage.glob("**/checkpoints/checkpoint.json")):
        time.sleep(0.01)
    process.terminate()
    process.communicate()
    for checkpoint in storage.glob("**/checkpoints/*.safetensors"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    again = mrigan("pipeline", "--data", str(heads), "--storage", str(storage))
    assert again.returncode == 3
    assert "is damaged: delete that folder to train from the start" in again.logged
    assert "Traceback" not in again.logged
    shutil.rmtree(storage)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert PipelineSettings(data="x", **PRESETS[preset])


@pytest.mark.parametrize(("more", "warned"), [({}, True), ({"healthy": "healthy"}, False)])
def test_a_rate_for_networks_that_know_phantoms_is_not_taken_for_others_unsaid(
    more: dict[str, Any], warned: bool, heads: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"image_size": 32, "folds": 2, "phantoms": 2, "classifier_learning_rate": 0.001}
    pipeline.prepare(PipelineSettings(data=str(heads), storage=str(tmp_path), **asked, **more))
    assert ("--classifier-learning-rate 0.001 is low" in caplog.text) is warned


SMALL = {"folds": 2, "image_size": 32, "phantoms": 2}


def test_the_class_of_that_name_makes_the_same_run_as_the_class_itself(heads: Path, tmp_path: Path) -> None:
    """Of the preset that the schedule has, without more."""
    asked = PRESETS["recipe"] | SMALL
    runs = []
    for more in ({}, {"healthy": "healthy"}):
        settings = PipelineSettings(data=str(heads), storage=str(tmp_path), **asked | more)
        dataset, _, found = pipeline.prepare(settings)
        runs.append((pipeline.name_of_run(dataset, found), found))
    assert runs[0] == runs[1]
    assert (runs[0][1].healthy, runs[0][1].classifier_learning_rate) == ("healthy", 0.001)


def test_without_a_class_of_that_name_the_recipe_goes_on_without_phantoms(
    heads: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    for name, label in (("a", "healthy"), ("b", "lesion")):
        shutil.copytree(heads / label, data / name)
    storage = tmp_path / "out"
    settings = PipelineSettings(data=str(data), storage=str(storage), **PRESETS["recipe"] | SMALL)
    _, _, found = pipeline.prepare(settings)
    assert (found.healthy, found.classifier_learning_rate) == ("", 0.003)
    [warning] = (record.message for record in caplog.records if record.name == "mrigan.healthy")
    assert "--healthy" in warning and "(of a, b)" in warning
    assert not (storage / "phantoms").exists()


def test_pods_are_told_the_class_and_not_how_to_find_it(heads: Path, tmp_path: Path) -> None:
    words = ("plan", "--data", str(heads), "--storage", str(tmp_path / "out"), "--plan-folder", str(tmp_path))
    plans = []
    for healthy in ("auto", "healthy"):
        planned = mrigan(*words, "--phantoms", "2", "--healthy", healthy)
        assert planned.returncode == 0, planned.logged
        assert ("class without lesions: healthy (by its name" in planned.logged) == (healthy == "auto")
        plans.append(json.loads((tmp_path / "plan.json").read_text()))
    assert plans[0] == plans[1]
    assert json.loads(plans[0]["settings"])["healthy"] == "healthy" and plans[0]["pretrained"] == ["mobilenetv2"]


def test_classifiers_are_trained_for_the_report_and_no_others(tmp_path: Path) -> None:
    networks = ("mobilenetv2", "resnet152v2")
    asked = PipelineSettings(data="heads", networks=networks, seeds=2, controls=True)
    storage = open_storage(str(tmp_path))
    fake_run.make(storage, images=4, networks=networks, seeds=2, controls=True)
    wanted = pipeline.classifiers(asked, asked.networks, asked.regimes) + pipeline.controls(asked)
    trained = {
        keys.classifier(fake_run.RUN, 0, one["network"], keys.controlled(one["regime"], one["control"]), one["seed"])
        for one in wanted
    }
    reported = evaluate.EvaluateSettings.of(asked, storage=storage.url, dataset=fake_run.DATASET, run=fake_run.RUN)
    _, _, parts = evaluate.find(reported)
    assert trained == {part.prefix for part in parts if part.job == "train-classifier" and part.where["fold"] == 0}


def test_a_plan_leads_pods_to_the_same_steps(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    """The workflow's own way: a plan, and jobs that get their settings from it."""
    storage, _ = finished
    folder = tmp_path / "plan"
    planned = mrigan("plan", "--data", str(heads), "--storage", str(storage), "--plan-folder", str(folder))
    assert planned.returncode == 0, planned.logged
    assert "the data are unchanged" in planned.logged
    assert (folder / "state").read_text() == "finished"
    plan = json.loads((folder / "plan.json").read_text())
    assert [plan["run"]] == [path.name for path in (storage / "runs").iterdir()]
    assert (plan["labels"], plan["generators"]) == (["healthy", "lesion"], ["healthy", "lesion"])

    (tmp_path / "settings.json").write_text(plan["settings"])
    where = ["--settings", str(tmp_path / "settings.json"), "--dataset", plan["dataset"], "--run", plan["run"]]
    pods = [(job, {"label": label}) for job in ("train-gan", "generate") for label in plan["generators"]]
    pods += [("train-classifier", one) for one in plan["real"] + plan["synthetic"]]
    reused = set()
    for fold, (job, given) in product(plan["folds"], pods):
        words = [*where, "--fold", fold, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]
        module = importlib.import_module(JOBS[job].module)
        step = module.run(read_settings(job, getattr(module, JOBS[job].settings), words))
        assert step.reused, step.prefix
        reused.add(step.prefix)
    made = {path.parent.relative_to(storage).as_posix() for path in storage.glob("runs/*/fold-*/**/manifest.json")}
    assert reused == made


def test_a_plan_of_other_settings_is_unfinished(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    words = ("plan", "--data", str(heads), "--storage", str(finished[0]), "--plan-folder", str(tmp_path))
    assert mrigan(*words, "--seeds", "2").returncode == 0
    assert (tmp_path / "state").read_text() == "unfinished"
