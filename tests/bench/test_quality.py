"""The protocol of bench/quality on phantom heads, as small as it goes: side by side, gone on with, put back, shown."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.quality import __main__ as quality
from bench.quality import ablate, baselines, cells, inner, kept, page, protocol, table
from jobs import finished, phantom, preprocess
from jobs import plan as planning
from jobs.classifier.predictions import read_predictions
from jobs.common import keys, png
from jobs.common.step import stored
from jobs.common.storage import open_storage
from jobs.mri.dataset import open_dataset
from jobs.settings import PhantomSettings, PipelineSettings, PreprocessSettings
from tests import tars
from tests.tiny import TINY

First = tuple[PipelineSettings, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of phantom heads."""
    folder = tmp_path_factory.mktemp("data") / "heads"
    phantom.run(PhantomSettings(out=str(folder), count=12))
    return folder


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> First:
    """Return the settings, the results' folder and the result of a run."""
    folder = tmp_path_factory.mktemp("quality")
    small = TINY | {"gan_conditional": False, "workers": 1}
    settings = PipelineSettings(data=str(data), storage=str(folder / "storage"), **small)
    return settings, folder / "results" / "heads", quality.run(settings, folder / "results")


def test_the_pipeline_finds_nothing_left_to_do(first: First) -> None:
    settings, _, result = first
    plan, storage = planning.prepare(settings), open_storage(settings.storage)
    assert plan.run == result["run"]
    known = finished.done(storage, plan)
    assert [task.job for task in plan.tasks if task.place not in known] == ["promote"]
    step = stored(storage, keys.report(plan.run))
    assert step
    report = json.loads(step.read("report.json"))
    for part in ("results", "comparisons", "controls"):
        assert result[part] == report[part]
    # What the network knew before it saw an image is the same for every classifier.
    before = {path.read_bytes() for path in Path(settings.storage).glob("runs/*/fold-0/classifiers/*/phantoms.csv")}
    assert len(before) == 1
    assert {row["control"] for row in report["controls"]["results"]} >= {"majority", "phantoms"}
    pretraining = [row["seconds"] for row in report["cost"] if row["job"] == "pretrain"]
    [learned] = (json.loads(path.read_text()) for path in Path(settings.storage).glob("pretrained/*/manifest.json"))
    assert pretraining == [learned["seconds"]]
    assert b"Every classifier was also trained on" in step.read("report.html")


def test_nothing_kept_shows_a_real_image_or_is_large(first: First) -> None:
    files = [path for path in first[1].rglob("*") if path.is_file()]
    assert {path.suffix for path in files if path.name != "samples.png"} == {".csv", ".json"}
    assert len(files) == 8
    assert {prefix.rpartition("/")[2] for prefix, step in kept.read(first[1]).items() if "predictions.csv" in step} == {
        f"mobilenetv2-{regime}-seed-0" for regime in ("synthetic", "real", "real+synthetic")
    }
    assert sum(path.stat().st_size for path in files) < 300_000


def test_what_is_kept_is_what_was_stored(first: First) -> None:
    settings, results, _ = first
    steps = kept.read(results)
    assert len(steps) == 2 * (2 + 2 + 3)  # GANs, their images and classifiers of two folds
    for prefix, files in steps.items():
        assert files == {name: Path(settings.storage, prefix, name).read_bytes() for name in files}
    before = {path.name: path.read_bytes() for path in results.glob("runs/*")}
    storage = open_storage(settings.storage)
    for prefix in sorted(steps, reverse=True):
        kept.keep(storage, prefix, results)
    assert {path.name: path.read_bytes() for path in results.glob("runs/*")} == before


def test_a_table_says_where_its_columns_change(tmp_path: Path) -> None:
    rows = {"runs/a": b"x,y\n1,2\n", "runs/b": b"x\n3\n", "runs/c": b'x\n"4,\n5"\n'}
    steps = {prefix: {"losses.csv": data, kept.MANIFEST: b"{}\n"} for prefix, data in rows.items()}
    kept.write(steps, tmp_path)
    assert kept.read(tmp_path) == steps
    table = (tmp_path / "runs" / "losses.csv").read_text()
    assert table == 'prefix,x,y\nruns/a,1,2\nprefix,x\nruns/b,3\nruns/c,"4,\n5"\n'


def lose(results: Path, place: str) -> None:
    """Keep no step any more whose prefix ends in `place`."""
    steps = kept.read(results)
    left = {prefix: files for prefix, files in steps.items() if not prefix.endswith(place)}
    assert len(left) == len(steps) - 1
    kept.write(left, results)


def test_the_picture_shows_synthetic_images_alone(first: First) -> None:
    settings, results, result = first
    shown = np.asarray(Image.open(results / "samples.png"))
    cell = settings.image_size + 1
    for number, label in enumerate(one["label"] for one in result["dataset"]["labels"]):
        drawn = tars.images(open_storage(settings.storage), keys.synthetic(result["run"], 0, label))["000000.png"]
        place = settings.synthetic_count * number
        top, left = place // quality.COLUMNS * cell, place % quality.COLUMNS * cell
        assert (shown[top : top + cell - 1, left : left + cell - 1] == png.decode(drawn)).all()


@pytest.fixture
def elsewhere(first: First, tmp_path: Path) -> PipelineSettings:
    """Return the settings of the run on a machine that has nothing but its kept results, in tmp_path / results."""
    settings, results, _ = first
    shutil.copytree(results, tmp_path / "results" / results.name)
    return settings.model_copy(update={"storage": str(tmp_path / "storage"), "workers": 1})


def test_kept_results_are_enough_on_another_machine(first: First, elsewhere: PipelineSettings, tmp_path: Path) -> None:
    result = first[2]
    assert quality.run(elsewhere, tmp_path / "results") == result
    assert not list(tmp_path.glob("storage/runs/**/*.safetensors")) + list(tmp_path.glob("storage/phantoms/*"))


def test_a_classifier_that_is_missing_brings_its_generator_back(first: First) -> None:
    settings, results, _ = first
    place = "fold-1/classifiers/mobilenetv2-synthetic-seed-0"
    steps = {prefix: files for prefix, files in kept.read(results).items() if not prefix.endswith(place)}
    plan = planning.prepare(settings)
    assert [task.name for task in cells.todo(plan, [0, 1], steps)] == [
        "draw-phantoms(0)",
        "pretrain(mobilenetv2)",
        "train-gan(1:healthy)",
        "train-gan(1:lesion)",
        "generate(1:healthy)",
        "generate(1:lesion)",
        "train-classifier(1:mobilenetv2-synthetic-seed-0)",
        "train-classifier(1:mobilenetv2-real+synthetic-seed-0)",
    ]
    assert cells.todo(plan, [0], steps) == []


def test_a_classifier_of_real_images_that_is_missing_needs_no_generator(
    first: First, elsewhere: PipelineSettings, tmp_path: Path
) -> None:
    place = "fold-1/classifiers/mobilenetv2-real-seed-0"
    lose(tmp_path / "results" / "heads", place)
    result = quality.run(elsewhere, tmp_path / "results")
    assert result["results"] == first[2]["results"]
    assert kept.read(tmp_path / "results" / "heads").keys() == kept.read(first[1]).keys()
    assert [path.parent.name for path in tmp_path.glob("storage/runs/**/*.safetensors")] == ["mobilenetv2-real-seed-0"]


def test_more_seeds_can_follow_on_another_machine(first: First, elsewhere: PipelineSettings, tmp_path: Path) -> None:
    result = first[2]
    quality.run(elsewhere, tmp_path / "results")
    more = quality.run(elsewhere.model_copy(update={"seeds": 2, "workers": 2}), tmp_path / "results")
    assert more["run"] == result["run"]
    steps = kept.read(tmp_path / "results" / "heads")
    assert sum(prefix.endswith("/classifiers/mobilenetv2-synthetic-seed-1") for prefix in steps) == 2


def test_looks_name_the_recipes_judged_on_the_folds(first: First, tmp_path: Path) -> None:
    settings, results, result = first
    assert result["looks"] == [result["run"]]
    dataset = open_dataset(open_storage(settings.storage), result["dataset"]["id"])
    here = result["dataset"] | {"digest": dataset.digest}
    of_64_pixels = here | {"id": "of 64 pixels", "digest": "of it"}
    assert quality.looks(results, here, result["run"]) == [result["run"]]
    assert quality.looks(results, of_64_pixels, "another") == [result["run"], "another"]
    assert quality.looks(results, of_64_pixels | {"images": 1}, "another") == ["another"]
    assert quality.looks(tmp_path, here, result["run"]) == [result["run"]]
    # Whoever stopped before all folds were judged has looked too.
    shutil.copytree(results / "runs", tmp_path / "runs")
    assert quality.looks(tmp_path, here, "another") == [result["run"], "another"]


def test_inner_splits_hold_no_image_of_the_outer_fold(data: Path, tmp_path: Path) -> None:
    step = preprocess.run(PreprocessSettings(data=str(data), storage=str(tmp_path), image_size=32, folds=2))
    storage = open_storage(str(tmp_path))
    outer = open_dataset(storage, step.prefix.rpartition("/")[2])
    made = inner.inner_dataset(outer)
    assert inner.inner_dataset(outer).reused
    split = open_dataset(storage, made.prefix.rpartition("/")[2])
    assert {row.id for row in split.rows} == {row.id for row in outer.training(inner.OUTER)}
    assert not {row.group for row in split.rows} & {row.group for row in outer.held_out(inner.OUTER)}
    for fold in range(inner.FOLDS):
        assert not {x.group for x in split.training(fold)} & {x.group for x in split.held_out(fold)}
    assert (split.pixels(split.rows) == outer.pixels(split.rows)).all()


def test_the_table_has_every_row(first: First) -> None:
    lines = table.markdown(first[2]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    shown = [line.split(" | ")[1] for line in lines[2:]]
    controls = [name.format("MobileNetV2") for name in list(table.NAMES.values())[:5]]
    assert shown == ["synthetic", "real", "real + synthetic", *controls]
    assert " % [" in lines[2]


def test_a_closer_look_is_at_one_fold_and_each_seed(first: First) -> None:
    _, results, result = first
    said = {}
    for prefix, files in kept.read(results).items():
        if prefix.endswith("/mobilenetv2-real-seed-0"):
            read = read_predictions(files["predictions.csv"])
            said[read.folds[0]] = [*(read.truth == read.predicted)]
    one = {"network": "mobilenetv2", "regime": "real"}
    [apart] = [x for x in result["closer"]["untouched"] if one.items() <= x.items() and x["metric"] == "accuracy"]
    assert (apart["value"], apart["n"]) == (pytest.approx(np.mean(said["0"]), abs=1e-6), len(said["0"]))
    [seeds] = [x["accuracy"] for x in result["closer"]["seeds"] if one.items() <= x.items()]
    assert seeds == [pytest.approx(np.mean(said["0"] + said["1"]), abs=1e-6)]
    assert {x["control"] for x in result["closer"]["beyond"]} == {"hog"}
    lines = table.closer(result).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + 3


def test_results_of_another_network_stand_in_the_same_table(
    first: First,
) -> None:
    result = first[2]
    other = json.loads(json.dumps(result).replace('"mobilenetv2"', '"resnet152v2"'))
    other["recipe"]["train-classifier"]["classifier_batch"] = 4
    lines = table.markdown(result, other).splitlines()
    assert len(lines) == len(table.markdown(result).splitlines()) + 3 + 1
    assert len(lines) == len(set(lines))
    written = page.page(result, other)
    assert "\n- ResNet152V2: 1 seed, run " in written
    assert "\n- ResNet152V2, in place of that: classifier_batch 4\n" in written


def test_the_documents_say_what_is_stored(tmp_path: Path) -> None:
    names = ("README.md", "docs/quality.md", "docs/results.md")
    (tmp_path / "docs").mkdir()
    for name in names:
        shutil.copy(page.ROOT / name, tmp_path / name)
    page.write(page.stored(), page.ablations(), tmp_path)
    assert [(tmp_path / name).read_text() for name in names] == [(page.ROOT / name).read_text() for name in names]


def test_four_classes_need_nothing_else(tmp_path: Path) -> None:
    phantom.run(PhantomSettings(out=str(tmp_path / "four"), count=8, classes=4))
    small = TINY | {"regimes": ("synthetic",), "workers": 1}
    settings = PipelineSettings(data=str(tmp_path / "four"), storage=str(tmp_path / "storage"), **small)
    result = quality.run(settings, tmp_path / "results")
    assert len({line.count("|") for line in table.generators(result).splitlines()}) == 1
    assert [line.split(" | ")[0] for line in table.generators(result).splitlines()[2:]] == [
        f"| {one['label']}" for one in result["dataset"]["labels"]
    ]
    assert np.shape(result["confusion"][0]["matrix"]) == (4, 4)
    assert len(table.markdown(result).splitlines()) == 2 + 1 + 5


def test_the_page_and_the_readme_say_the_result(first: First, tmp_path: Path) -> None:
    result = first[2]
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/quality.md"):
        (tmp_path / name).write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    for _ in range(2):
        page.write([result], {}, tmp_path)
        written = (tmp_path / "docs" / "results.md").read_text()
        assert written.count(table.markdown(result)) == 1
        for one in result["dataset"]["labels"]:
            assert f"\n| {one['label']} | " in written
        assert "the only recipe" in written and "nan" not in written and "None" not in written
        whole = (tmp_path / "README.md").read_text()
        assert whole == f"before\n\n{page.BEGIN}\n\n{table.short(result)}\n\n{page.END}\n\nafter\n"


def test_the_baseline_reads_no_label_of_the_fold_it_judges(
    first: First,
) -> None:
    dataset = baselines.prepared(first[0])
    assert dataset.rows == open_dataset(open_storage(first[0].storage), first[2]["dataset"]["id"]).rows
    other = {label: dataset.labels[-1 - number] for number, label in enumerate(dataset.labels)}
    rows = [replace(row, label=other[row.label]) if row.fold == 0 else row for row in dataset.rows]
    before, after = (baselines.predictions(x) for x in (dataset, replace(dataset, rows=rows)))
    same = (before.probabilities == after.probabilities).all(axis=1)
    assert same.tolist() == [fold == "0" for fold in before.folds]


def test_variants_are_judged_on_inner_splits_alone(data: Path, tmp_path: Path) -> None:
    settings = PipelineSettings(data=str(data), storage=str(tmp_path / "storage"), **TINY, workers=1)
    results = tmp_path / "results" / "heads"
    found = ablate.run("no-bends", settings, tmp_path / "results")
    # One that cannot be tried again stays.
    (results / "ablations.json").write_text(json.dumps(found | {"former": found["no-bends"]}))
    found = ablate.run("no-patches", settings.model_copy(update={"regimes": ("synthetic",)}), tmp_path / "results")
    assert json.loads((results / "ablations.json").read_text()).keys() == found.keys()
    steps = kept.read(results)
    assert found["no-patches"]["run"] == f"{found['no-bends']['run']}-no-patches"
    left_out = {
        prefix.split("/")[1]: json.loads(steps[prefix][kept.MANIFEST])["settings"].get("off")
        for prefix in steps
        if prefix.endswith("/gan")
    }
    assert left_out == {found["no-bends"]["run"]: None, found["no-patches"]["run"]: ["patches"]}
    judged = {
        id
        for files in steps.values()
        if "predictions.csv" in files
        for id in read_predictions(files["predictions.csv"]).ids
    }
    outer = open_dataset(open_storage(settings.storage), planning.prepare(settings).dataset)
    assert judged and not judged & {row.id for row in outer.held_out(inner.OUTER)}
    lines = table.ablations(found).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        *(
            [f"| {name}", regime]
            for name in ("no-bends", "former")
            for regime in ("synthetic", "real", "real + synthetic")
        ),
        ["| no-patches", "synthetic"],
    ]
    images = table.ablated_images(found).splitlines()
    assert [line.split(" | ")[0] for line in images[2:]] == ["| no-bends", "| no-patches"]
    reference, _, other = ([x for x in one["results"] if x["regime"] == "synthetic"] for one in found.values())
    for before, after in zip(reference, other, strict=True):
        assert before["beyond"] is None
        assert after["beyond"]["difference"] == pytest.approx(after["value"] - before["value"], abs=2e-6)
        assert after["beyond"]["low"] <= after["beyond"]["difference"] <= after["beyond"]["high"]


@pytest.mark.parametrize("name", protocol.VARIANTS)
def test_every_variant_is_a_recipe_of_its_own(name: str) -> None:
    def recipe(name: str) -> tuple[PipelineSettings, Sequence[str]]:
        asked = protocol.RECIPE | protocol.ONE_SEED | protocol.VARIANTS[name]
        return PipelineSettings(data="x", storage="y", **asked), protocol.OFF.get(name, ())

    assert [other for other in protocol.VARIANTS if recipe(other) == recipe(name)] == [name]
