"""All jobs together on phantom heads, as small as they go: killed, gone on with, repeated, and used to predict."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from jobs import plan as planning
from jobs.classifier.champion import parse_record
from jobs.common import keys
from jobs.common.storage import open_storage

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
    "HEALTHY": "off",
    "WORKERS": "1",
}
# Times and the decision's date: all else must repeat.
VOLATILE = ("manifest.json", "report.json", "report.html", "heads.json")


def environment() -> dict[str, str]:
    """Return this process's environment with the TINY settings."""
    return os.environ | {f"MRIGAN_{name}": value for name, value in TINY.items()}


def mrigan(*words: str, wait: bool = True) -> subprocess.Popen[str]:
    """Start mrigan with the TINY settings in the environment."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.shown, process.logged = process.communicate()  # type: ignore[attr-defined]
    return process


def one_after_another(*words: str, last: list[str]) -> subprocess.CompletedProcess[str]:
    """Run mrigan once for each last word, all in one process: TensorFlow is loaded once."""
    code = f"import sys; from jobs.cli import main; sys.exit(max([main([*sys.argv[1:], last]) for last in {last}]))"
    return subprocess.run([sys.executable, "-c", code, *words], env=environment(), capture_output=True, text=True)


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
    assert "held-out real images" in logged
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
    assert "all results exist: nothing to do" in again.logged
    assert written(storage) == before


def test_a_run_that_was_killed_ends_with_the_same_bytes_and_a_damaged_checkpoint_is_named(
    heads: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    storage, damaged = tmp_path / "storage", tmp_path / "damaged"
    words = ("pipeline", "--data", str(heads), "--checkpoint-steps", "8", "--storage")
    stops = [("**/checkpoints/checkpoint.json", signal.SIGTERM, 75), ("**/synthetic/images/*", signal.SIGKILL, -9)]
    for pattern, number, code in stops:
        process = mrigan(*words, str(storage), wait=False)
        while process.poll() is None and not any(storage.glob(pattern)):
            time.sleep(0.01)
        process.send_signal(number)
        _, logged = process.communicate()
        assert process.returncode == code, logged
        if not damaged.exists():
            shutil.copytree(storage, damaged)
    last = mrigan(*words, str(storage))
    assert last.returncode == 0, last.logged
    assert digests(storage) == digests(finished[0])
    for checkpoint in damaged.glob("**/checkpoints/*.safetensors"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    again = mrigan(*words, str(damaged))
    assert again.returncode == 3
    assert "is damaged: delete that folder to train from the start" in again.logged
    assert "Traceback" not in again.logged


def test_predict_reads_images_with_the_champion(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    storage, _ = finished
    images = sorted(str(path) for path in (heads / "lesion").glob("lesion-0*"))[:2]
    (tmp_path / "note.txt").write_text("no image")
    shown = mrigan("predict", *images, str(tmp_path / "note.txt"), "--storage", str(storage))
    assert shown.returncode == 2
    assert "note.txt: not-an-image" in shown.logged and "1 of 3 images could not be read" in shown.logged
    assert "not a medical device" in shown.logged
    lines = shown.shown.splitlines()
    assert [line.split()[0] for line in lines] == images
    for line in lines:
        label, probability = line.split()[1:]
        assert label in ("healthy", "lesion") and 0.5 <= float(probability) <= 1


def test_predict_without_a_champion_uses_the_packaged_weights_and_says_how_well_they_read(
    heads: Path, tmp_path: Path
) -> None:
    images = sorted(str(path) for path in heads.glob("*/*-0*"))[:6]
    shown = mrigan("predict", *images, "--storage", str(tmp_path / "none"))
    assert shown.returncode == 0
    assert "has no champion" in shown.logged and "public MRI" in shown.logged and "drawn heads only" in shown.logged
    assert {line.split()[1] for line in shown.shown.splitlines()} <= {"no", "lesion"}
    assert len(shown.shown.splitlines()) == len(images)
    assert not (tmp_path / "none").exists()


def test_predict_writes_tables_and_json_with_every_probability(
    heads: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    storage, _ = finished
    image = str(next((heads / "lesion").glob("lesion-0*.jpg")))
    volume, note, gone = (str(tmp_path / name) for name in ('a "volume", of 3.tif', "note.txt", "gone.png"))
    pages = [Image.open(path).convert("L").resize((96, 96)) for path in sorted((heads / "healthy").glob("healthy-0*"))]
    Image.new("L", (96, 96)).save(volume, save_all=True, append_images=pages[:2])
    Path(note).write_text("no image")
    shown = {
        form: mrigan("predict", gone, image, note, volume, "--storage", str(storage), "--format", form)
        for form in ("text", "csv", "json")
    }
    for process in shown.values():
        assert process.returncode == 2 and "3 of 6 images could not be read" in process.logged
        assert "not a medical device" in process.logged and "not a medical device" not in process.shown
    objects = json.loads(shown["json"].shown)
    assert [(one["file"], one["slice"]) for one in objects] == [
        (gone, None), (image, None), (note, None), (volume, 0), (volume, 1), (volume, 2)
    ]  # fmt: skip
    findings = [(one["finding"] or "").partition(":")[0] for one in objects]
    assert findings == ["No such file or directory", "", "not-an-image", "blank", "", ""]
    table = list(csv.DictReader(io.StringIO(shown["csv"].shown)))
    texts = iter(line.split()[-2:] for line in shown["text"].shown.splitlines())
    for one, row in zip(objects, table, strict=True):
        assert (row["file"], row["slice"]) == (one["file"], "" if one["slice"] is None else str(one["slice"]))
        assert row["finding"] == (one["finding"] or "") and row["prediction"] == (one["prediction"] or "")
        if one["finding"]:
            assert one["probabilities"] is None and row["p:lesion"] == ""
            continue
        probabilities = one["probabilities"]
        assert list(probabilities) == ["healthy", "lesion"] and sum(probabilities.values()) == pytest.approx(1)
        assert {label: float(row[f"p:{label}"]) for label in probabilities} == pytest.approx(probabilities)
        best = max(probabilities, key=probabilities.__getitem__)
        assert one["prediction"] == best and next(texts) == [best, f"{probabilities[best]:.3f}"]
    assert not list(texts)


def test_a_gan_of_all_images_is_added_to_a_finished_run(
    heads: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    shutil.copytree(finished[0], storage)
    words = ("pipeline", "--data", str(heads), "--storage", str(storage), "--gan-of-all")
    added = mrigan(*words)
    assert added.returncode == 0, added.logged
    before, after = digests(finished[0]), digests(storage)
    new = after.keys() - before.keys()
    [run] = (path.name for path in storage.glob("runs/*"))
    assert {key for key in new if not key.startswith("done/")} == {
        key for key in after if key.startswith(f"runs/{run}/fold-all/")
    }
    assert before.items() <= after.items()
    activity = json.loads((storage / "activity" / "heads.json").read_text())
    assert activity["succeeded"] >= activity["began"]
    got = mrigan("images", run, "--storage", str(storage), "--out", str(tmp_path / "out"), "--count", "20")
    assert got.returncode == 0 and "images of fold all" in got.logged
    assert sorted(len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir()) == [20, 20]
    assert "nothing to do" in mrigan(*words).logged


def test_new_data_are_judged_on_s3_too(heads: Path, tmp_path: Path, s3_url: str) -> None:
    folders = {name: str(tmp_path / name) for name in ("more", "test")}
    for seed, name in ((1, "more"), (2, "test")):
        assert mrigan("phantom", "--out", folders[name], "--count", "8", "--seed", str(seed)).returncode == 0
    words = ("pipeline", "--name", "heads", "--storage", s3_url, "--regimes", "real", "--promote-margin", "1")
    for more in (
        ("--data", str(heads)),
        ("--data", folders["more"]),
        ("--data", folders["more"], "--classifier-learning-rate", "0.02", "--test", folders["test"]),
    ):
        ended = mrigan(*words, *more)
        assert ended.returncode == 0, ended.logged
    record = parse_record(open_storage(s3_url).read(keys.champion("heads")), "heads")
    assert [decision["won"] for decision in record.decisions] == [True, True, True]


def test_a_failing_task_stops_only_what_needs_it(heads: Path, tmp_path: Path) -> None:
    """A generator that cannot be written: its images, their classifier and the report are left out."""
    storage = tmp_path / "storage"
    words = ("--data", str(heads), "--storage", str(storage), "--regimes", "real,synthetic", "--no-gan-conditional")
    assert mrigan("plan", *words).returncode == 0
    [line] = [line for line in mrigan("plan", *words).shown.splitlines() if line.startswith("run ")]
    place = storage / "runs" / line.split()[1] / "fold-0" / "lesion"
    place.mkdir(parents=True)
    (place / "gan").write_text("in the way")
    ended = mrigan("pipeline", *words)
    assert ended.returncode == 2, ended.logged
    last = ended.logged.strip().splitlines()[-1]
    assert "train-gan(0:lesion): " in last and "tasks that depend on it and were not started: 4" in last
    made = {path.parent.name for path in storage.glob("runs/*/fold-*/classifiers/*/manifest.json")}
    assert made == {"mobilenetv2-real-seed-0", "mobilenetv2-synthetic-seed-0"}
    assert len(list(storage.glob("runs/*/fold-0/classifiers/*/manifest.json"))) == 1
    (place / "gan").unlink()
    again = mrigan("pipeline", *words)
    assert again.returncode == 0, again.logged


def test_two_workers_give_the_bytes_of_one(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    ended = mrigan("pipeline", "--data", str(heads), "--storage", str(tmp_path / "s"), "--workers", "2")
    assert ended.returncode == 0, ended.logged
    assert digests(tmp_path / "s") == digests(finished[0])


def test_a_pod_does_a_task_of_the_plan(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    """The way of the workflow: the first pod writes the plan, and every other pod does a task of it by its name."""
    storage = tmp_path / "storage"
    words = ("--data", str(heads), "--storage", str(storage))
    assert mrigan("plan", *words, "--plan-folder", str(tmp_path / "plan")).returncode == 0
    found = {path.name: path.read_text() for path in (tmp_path / "plan").iterdir()}
    assert found["state"] == "unfinished" and json.loads(found["folds"]) == ["0", "1"]
    tasks = [task.name for task in planning.read(open_storage(str(storage)), found["plan"]).tasks]
    ended = one_after_another("task", "--storage", str(storage), "--plan", found["plan"], "--task", last=tasks)
    assert ended.returncode == 0, ended.stderr
    written = digests(storage)
    assert written.pop(f"plans/{found['plan']}.json")
    assert written == digests(finished[0])
    again = mrigan("plan", *words, "--plan-folder", str(tmp_path / "plan"))
    assert "0 to do" in again.shown
    found = {path.name: path.read_text() for path in (tmp_path / "plan").iterdir()}
    assert found["state"] == "finished"
    assert all(found[stage] == "[]" for stage in ("folds", *planning.STAGES))
    wrong = mrigan("task", "--storage", str(storage), "--plan", found["plan"], "--task", "train-gan(7:yes)")
    assert wrong.returncode == 2 and "has no task train-gan(7:yes)" in wrong.logged


def test_a_plan_of_other_settings_is_unfinished(heads: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    words = ("plan", "--data", str(heads), "--storage", str(finished[0]), "--plan-folder", str(tmp_path))
    planned = mrigan(*words, "--seeds", "2")
    assert planned.returncode == 0
    assert (tmp_path / "state").read_text() == "unfinished"
    # The classifiers of seed 0 tell how long those of seed 1 take.
    assert "not known" not in next(line for line in planned.shown.splitlines() if line.startswith("train-classifier"))
