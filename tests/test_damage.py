"""One flipped bit in any file of a whole run is found by the job that reads the file."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jobs import evaluate, phantom, pipeline, predict
from jobs import plan as planning
from jobs.common.errors import MachineError
from jobs.common.seeds import derive
from jobs.settings import PhantomSettings, PipelineSettings, PredictSettings
from tests.tiny import TINY

SETTINGS = TINY | {"regimes": ("synthetic",), "workers": 1}
REPORT = "runs/*/report/manifest.json"
CLASSIFIERS = "runs/*/fold-0/classifiers/*/manifest.json"
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
    asked = planning.settings_of(plan, task).model_copy(update={"report_folder": str(folder / "handed")})
    with pytest.raises(MachineError, match=f"{key} is damaged"):
        evaluate.run(asked)


def test_every_kind_of_file_is_tried(finished: Path) -> None:
    storage = finished / "storage"
    tried = {path.name for pattern in READ_BY for path in storage.glob(pattern)}
    # The page is handed on, a grid and remarks are for people alone, what `done/` names is compared with what is asked
    # for, and files are read again where `sources/` is damaged.
    left = {path for path in storage.rglob("*") if path.is_file()}
    left -= {*storage.glob("done/*"), *storage.glob("sources/*")}
    left -= {path for name in ("report.html", "grid.png", "remarks.csv", ".writing-*") for path in storage.rglob(name)}
    assert {path.name for path in left} <= tried
