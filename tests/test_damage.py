"""Damage in the files of a whole run: one flipped bit, or one value that is another one and whose digest fits."""

import copy
import json
import os
import platform
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import declaration, evaluate, fetch_report, phantom, pipeline, predict
from jobs import plan as planning
from jobs.classifier import champion
from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.seeds import derive
from jobs.common.step import read_output, seal
from jobs.common.storage import open_storage
from jobs.settings import FetchReportSettings, PhantomSettings, PipelineSettings, PlanSettings, PredictSettings
from tests.tiny import TINY

SETTINGS = TINY | {"regimes": ("synthetic",), "workers": 1}
REPORT = "runs/*/report/manifest.json"
CLASSIFIERS = "runs/*/fold-0/classifiers/*/manifest.json"
MUTANTS = 25  # of each file
DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]
OTHER: tuple[Any, ...] = (
    None,
    -1,
    0,
    10**12,
    0.5,
    "",
    "../../../etc/passwd",
    "\x00",
    True,
    [],
    {},
    ["a"],
    {"a": 1},
    DEEP,
)
# A kind of file, and the manifests without which the jobs that read such a file run again.
READ_BY = {
    "datasets/*/manifest.json": "",
    "datasets/*/index.csv": REPORT,
    "datasets/*/images.csv": REPORT,
    "datasets/*/images.sha256": REPORT,
    "datasets/*/images/*.tar": REPORT,
    "datasets/*/quarantine.csv": REPORT,
    "phantoms/*/*/manifest.json": "",
    "phantoms/*/*/phantoms.safetensors": CLASSIFIERS,
    "pretrained/*/manifest.json": "",
    "pretrained/*/classifier.safetensors": CLASSIFIERS,
    "runs/*/fold-0/*/gan/manifest.json": "",
    "runs/*/fold-0/*/gan/generator.safetensors": "runs/*/fold-0/lesion/synthetic/manifest.json",
    "runs/*/fold-0/*/gan/losses.csv": REPORT,
    "runs/*/fold-0/*/gan/samples.sha256": REPORT,
    "runs/*/fold-0/*/gan/samples/*.png": REPORT,
    "runs/*/fold-0/lesion/synthetic/manifest.json": "",
    "runs/*/fold-0/lesion/synthetic/images.csv": REPORT,
    "runs/*/fold-0/lesion/synthetic/images.sha256": CLASSIFIERS,
    "runs/*/fold-0/lesion/synthetic/images/*.tar": CLASSIFIERS,
    "runs/*/fold-0/lesion/synthetic/nearest.png": REPORT,
    "runs/*/fold-0/lesion/synthetic/quality.json": REPORT,
    "runs/*/fold-0/classifiers/*/manifest.json": "",
    "runs/*/fold-0/classifiers/*/predictions.csv": REPORT,
    "runs/*/fold-0/classifiers/*/phantoms.csv": REPORT,
    "runs/*/fold-0/classifiers/*/history.csv": REPORT,
    "runs/*/report/manifest.json": "",
    "runs/*/report/report.json": "",
    "champions/*.json": "",
    "activity/*.json": "",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data and the storage of a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    phantom.run(PhantomSettings(out=str(folder / "heads"), count=8))
    plan(folder, plan_folder=str(folder / "plan"))
    pipeline.run(settings(folder))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder; its files are links, and written anew where they change."""
    return shutil.copytree(finished, tmp_path / "copy", copy_function=os.link)


def settings(folder: Path) -> PipelineSettings:
    return PipelineSettings(data=str(folder / "heads"), storage=str(folder / "storage"), **SETTINGS)


def flip_a_bit(folder: Path, pattern: str) -> str:
    """Flip one bit of a file; return the file's key."""
    rng = np.random.default_rng(derive(0, "flip", pattern))
    files = sorted((folder / "storage").glob(pattern))
    path = files[rng.integers(len(files))]
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.unlink()
    path.write_bytes(data)
    return path.relative_to(folder / "storage").as_posix()


@pytest.mark.parametrize("pattern", READ_BY)
def test_a_run_ends_with_the_name_of_the_file(pattern: str, folder: Path) -> None:
    key = flip_a_bit(folder, pattern)
    for manifest in (folder / "storage").glob(READ_BY[pattern]) if READ_BY[pattern] else ():
        manifest.unlink()
    with pytest.raises(MachineError, match="is damaged") as caught:
        pipeline.run(settings(folder))
    assert key in str(caught.value)


def test_predict_takes_no_damaged_classifier(folder: Path) -> None:
    key = flip_a_bit(folder, "runs/*/fold-*/classifiers/*/classifier.safetensors")
    image = next((folder / "heads" / "lesion").glob("*.png"))
    with pytest.raises(MachineError, match=f"{key} is damaged"):
        predict.run(PredictSettings(images=(str(image),), storage=str(folder / "storage"), threads=1))


def test_no_damaged_page_is_handed_on(folder: Path) -> None:
    key = flip_a_bit(folder, "runs/*/report/report.html")
    plan = planning.prepare(settings(folder))
    [task] = [task for task in plan.tasks if task.job == "evaluate"]
    asked = declaration.settings_of(plan, task).model_copy(update={"report_folder": str(folder / "handed")})
    with pytest.raises(MachineError, match=f"{key} is damaged"):
        evaluate.run(asked)


def test_every_kind_of_file_is_tried(finished: Path) -> None:
    storage = finished / "storage"
    tried = {path.name for pattern in READ_BY for path in storage.glob(pattern)}
    # The page is handed on, a grid and remarks are for people alone, what `done/` names is compared with what is asked
    # for, files are read again where `sources/` is damaged, and pods read plans.
    left = {path for path in storage.rglob("*") if path.is_file()}
    left -= {*storage.glob("done/*"), *storage.glob("sources/*"), *storage.glob("plans/*")}
    left -= {path for name in ("report.html", "grid.png", "remarks.csv", ".writing-*") for path in storage.rglob(name)}
    assert {path.name for path in left} <= tried


def test_the_next_start_removes_what_a_kill_left_at_finished_places(folder: Path) -> None:
    pipeline.run(settings(folder))  # remembers the files of the copy
    before = {path for path in folder.rglob("*") if path.is_file()}
    for place in ("runs/*/fold-0/*/gan", "runs/*/fold-0/classifiers/*", "pretrained/*"):
        found = sorted((folder / "storage").glob(place))[0]
        (found / "checkpoints").mkdir()
        (found / "checkpoints" / "checkpoint-00000007.safetensors").touch()
        (found / "checkpoints" / ".writing-checkpoint").touch()
        # Of a process that ended between its last two operations.
        lease = {"process": "another", "host": platform.node(), "pid": os.getpid(), "started": "never"}
        key = keys.lease(found.relative_to(folder / "storage").as_posix())
        (folder / "storage" / key).parent.mkdir(exist_ok=True)
        (folder / "storage" / key).write_text(json.dumps(lease))
    pipeline.run(settings(folder))
    assert {path for path in folder.rglob("*") if path.is_file()} == before


# ---- values ----------------------------------------------------------------------------------------------------------


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in `value` with each of its keys or indices."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutants(content: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Yield copies of `content` in which one value is missing or another one."""
    generator = random.Random(seed)
    for _ in range(MUTANTS):
        changed = copy.deepcopy(content)
        holder, key = generator.choice(list(places(changed)))
        if generator.random() < 0.2:
            del holder[key]
        else:
            holder[key] = generator.choice(OTHER)
        yield changed


def read_classifiers(folder: Path) -> None:
    storage = open_storage(str(folder / "storage"))
    found = champion.read_champion(storage, "")
    for prefix in found.models:
        manifest = champion.finished(storage, prefix)
        read_output(storage, prefix, manifest, "classifier.safetensors")


def plan(folder: Path, **more: str) -> None:
    planning.run(PlanSettings.of(settings(folder), **more))


def read_plan(folder: Path) -> None:
    storage = open_storage(str(folder / "storage"))
    [path] = (folder / "storage" / "plans").iterdir()
    found = planning.read(storage, path.stem)
    declaration.works(found, found.tasks)


def reported(folder: Path) -> None:
    [run] = (path.name for path in (folder / "storage" / "runs").iterdir())
    asked = {"runs": (run,), "report_folder": str(folder / "report"), "open": False}
    fetch_report.run(FetchReportSettings(storage=str(folder / "storage"), **asked))


@pytest.mark.parametrize(
    ("pattern", "reads"),
    [
        ("champions/*.json", (read_classifiers, plan, reported)),
        ("datasets/*/manifest.json", (plan,)),
        ("runs/*/fold-0/classifiers/*/manifest.json", (plan, read_classifiers)),
        ("runs/*/fold-0/*/gan/manifest.json", (plan,)),
        ("runs/*/report/manifest.json", (plan, reported)),
        ("plans/*.json", (read_plan,)),
        ("activity/*.json", (plan,)),
    ],
)
def test_another_value_ends_in_one_line(
    pattern: str, reads: tuple[Callable[[Path], None], ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted((folder / "storage").glob(pattern))[0]
    content = json.loads(path.read_text())
    del content["digest"]
    for changed in mutants(content, derive(0, "values", pattern)):
        path.unlink(missing_ok=True)
        path.write_bytes(seal(changed))
        shutil.rmtree(folder / "report", ignore_errors=True)
        for read in reads:
            try:
                read(folder)
            except (MachineError, UserError) as error:
                assert str(error) and "\n" not in str(error)
    capsys.readouterr()


def test_what_is_no_json_at_all_ends_in_one_line(folder: Path) -> None:
    for path in (folder / "storage").glob("champions/*.json"):
        for data in (b"\xff\xfe", b"[" * 100_000, b"", b"null", b"[1]", b'{"champion": '):
            path.unlink()
            path.write_bytes(data)
            with pytest.raises(MachineError, match="is damaged"):
                read_classifiers(folder)
