"""The package mrigan: what jobs stored, read from Python."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mrigan
from jobs import evaluate
from jobs.common import keys
from jobs.common.storage import open_storage
from jobs.settings import EvaluateSettings
from tests import fake_run, tars

RUN, DATASET = fake_run.RUN, fake_run.DATASET


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage with a run of two folds and two seeds, and its report."""
    path = tmp_path_factory.mktemp("run")
    fake_run.make(open_storage(str(path)), images=6, regimes=("synthetic", "real"), seeds=2)
    evaluate.run(
        EvaluateSettings(
            storage=str(path),
            dataset=DATASET,
            run=RUN,
            name="heads",
            networks=("mobilenetv2",),
            regimes=("synthetic", "real"),
            seeds=2,
            resamples=100,
        )
    )
    return path


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_runs_are_those_with_a_report(folder: Path, tmp_path: Path) -> None:
    assert mrigan.runs(folder) == [mrigan.Run(run=RUN, dataset=DATASET, name="heads")]
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / keys.report(RUN) / "manifest.json").unlink()
    assert mrigan.runs(copy) == []


def test_a_dataset_is_read_as_rows_and_pixels(folder: Path) -> None:
    data = mrigan.dataset(folder, DATASET)
    files = rows(folder / "datasets" / DATASET / "index.csv")
    assert [(row.id, row.label, row.group, row.fold) for row in data.rows] == [
        (row["id"], row["label"], row["group"], int(row["fold"])) for row in files
    ]
    assert (data.labels, data.folds) == (("no", "yes"), 2)
    found = data.pixels(data.rows)
    assert found.dtype == np.uint8
    pictures = tars.images(open_storage(str(folder)), keys.dataset(DATASET))
    np.testing.assert_array_equal(found, [pixels(pictures[f"{row['id']}.png"]) for row in files])


def test_synthetic_images_come_in_order(folder: Path) -> None:
    found = mrigan.images(folder, RUN, "yes", fold=1)
    files = tars.images(open_storage(str(folder)), keys.synthetic(RUN, 1, "yes"))
    assert found.shape == (len(files), 32, 32)
    np.testing.assert_array_equal(found, [pixels(files[name]) for name in sorted(files)])


def test_predictions_are_those_of_all_folds(folder: Path) -> None:
    found = mrigan.predictions(folder, RUN, "mobilenetv2", "synthetic", seed=1)
    places = [folder / keys.classifier(RUN, fold, "mobilenetv2", "synthetic", 1) for fold in (0, 1)]
    expected = sorted((row for place in places for row in rows(place / "predictions.csv")), key=lambda row: row["id"])
    assert found.ids == [row["id"] for row in expected]
    assert found.folds == [row["fold"] for row in expected]
    assert [found.labels[i] for i in found.truth] == [row["label"] for row in expected]
    assert [found.labels[i] for i in found.predicted] == [row["prediction"] for row in expected]
    np.testing.assert_allclose(found.probabilities[:, 1], [float(row["p:yes"]) for row in expected])


def test_the_selected_classifier_is_the_default(folder: Path) -> None:
    selected = mrigan.report(folder, RUN)["selected"]
    expected = mrigan.predictions(folder, RUN, selected["network"], selected["regime"], seed=0)
    np.testing.assert_array_equal(mrigan.predictions(folder, RUN).probabilities, expected.probabilities)


def test_the_report_is_that_of_the_file(folder: Path) -> None:
    assert mrigan.report(str(folder), RUN) == json.loads((folder / keys.report(RUN) / "report.json").read_text())


def test_s3_gives_the_same(folder: Path, s3_url: str) -> None:
    storage = open_storage(s3_url)
    for file in folder.rglob("*"):
        if file.is_file():
            storage.write(file.relative_to(folder).as_posix(), file.read_bytes())
    assert mrigan.runs(s3_url) == mrigan.runs(folder)
    assert mrigan.report(s3_url, RUN) == mrigan.report(folder, RUN)
    assert mrigan.predictions(s3_url, RUN).ids == mrigan.predictions(folder, RUN).ids
    np.testing.assert_array_equal(mrigan.images(s3_url, RUN, "no"), mrigan.images(folder, RUN, "no"))
    there, here = mrigan.dataset(s3_url, DATASET), mrigan.dataset(folder, DATASET)
    np.testing.assert_array_equal(there.pixels(there.rows), here.pixels(here.rows))


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(mrigan.UserError, match="no dataset d2 in"):
        mrigan.dataset(folder, "d2")
    with pytest.raises(mrigan.UserError, match="no synthetic images of class maybe in fold 0 of run r1"):
        mrigan.images(folder, RUN, "maybe")
    with pytest.raises(mrigan.UserError, match="no report of run r2"):
        mrigan.report(folder, "r2")
    with pytest.raises(
        mrigan.UserError,
        match="no classifier resnet152v2 trained on real with seed 0; it has networks mobilenetv2; "
        "regimes synthetic, real; seeds 0 to 1",
    ):
        mrigan.predictions(folder, RUN, "resnet152v2", "real")
    with pytest.raises(mrigan.UserError, match="storage must be a folder or s3"):
        mrigan.runs("gs://bucket")


def test_a_damaged_image_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / keys.synthetic(RUN, 0, "no") / "images" / "shard-000000.tar"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(mrigan.MachineError, match=r"shard-000000\.tar is damaged"):
        mrigan.images(copy, RUN, "no")


def test_the_import_loads_no_tensorflow() -> None:
    code = "import sys, mrigan; print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"
