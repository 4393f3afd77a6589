"""Images by number, their parts, their quality, and what is refused."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import generate, phantom, preprocess
from jobs.common import fields, hardware, keys, png
from jobs.common.errors import MachineError, UserError
from jobs.common.step import Step, manifest_digest, read_manifest, read_output
from jobs.common.storage import open_storage
from jobs.gan import drawing, features, grid, networks
from jobs.mri.dataset import Dataset, open_dataset
from jobs.settings import ExecutionSettings, GenerateSettings, PhantomSettings, PreprocessSettings
from tests import tars
from tests.untrained import LABELS, SIZE, write_dataset, write_generator


@pytest.fixture(scope="module", autouse=True)
def tensorflow() -> None:
    """Set TensorFlow up before a network is built, as run does."""
    hardware.configure(ExecutionSettings(threads=1))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage with dataset d and a generator of class yes for folds 0 and all."""
    folder = tmp_path_factory.mktemp("storage")
    storage = open_storage(str(folder))
    digest = write_dataset(storage, "d")
    for fold in (0, "all"):
        write_generator(storage, digest, "yes", ("yes",), fold)
    return folder


def asked(folder: Path, **more: Any) -> GenerateSettings:
    values = {"storage": str(folder), "dataset": "d", "run": "r", "fold": 0, "label": "yes", "threads": 1}
    return GenerateSettings(**(values | {"synthetic_count": 4} | more))


def outputs(step: Step) -> dict[str, bytes]:
    """The images of a step by name."""
    return tars.images(step.storage, step.prefix)


@pytest.fixture(scope="module")
def forty(filled: Path) -> Step:
    return generate.run(asked(filled, synthetic_count=40))


@pytest.fixture(scope="module")
def quality(forty: Step) -> dict:
    return json.loads(forty.read("quality.json"))


def test_an_image_depends_on_its_number_and_on_no_other_image(filled: Path, forty: Step, tmp_path: Path) -> None:
    whole = outputs(forty)
    assert forty.prefix == "runs/r/fold-0/yes/synthetic"
    assert list(whole) == [f"{number:06d}.png" for number in range(40)]
    assert len({hashlib.sha256(data).digest() for data in whole.values()}) == 40
    shutil.copytree(filled / "datasets", tmp_path / "datasets")
    shutil.copytree(filled / "runs/r/fold-0/yes/gan", tmp_path / "runs/r/fold-0/yes/gan")
    first = generate.run(asked(tmp_path, synthetic_count=17))
    assert first.facts["count"] == 17
    prefix, manifest = drawing.find_generator(first.storage, "r", 0, "yes")
    generator, config = networks.load_generator(read_output(first.storage, prefix, manifest, networks.GENERATOR))
    others = drawing.draw_images(generator, config, "yes", range(17, 40), seed=0, bend=asked(tmp_path).synthetic_bend)
    drawn = outputs(first) | {keys.synthetic_image(number): png.encode(image) for number, image in others}
    assert drawn == whole


def test_images_are_bent_as_far_as_asked(filled: Path, forty: Step, tmp_path: Path) -> None:
    def drawn(bend: float) -> np.ndarray:
        step = generate.run(asked(tmp_path, synthetic_bend=bend))
        return np.stack([np.asarray(Image.open(io.BytesIO(data)), float) for data in outputs(step).values()])

    shutil.copytree(filled / "datasets", tmp_path / "datasets")
    shutil.copytree(filled / "runs/r/fold-0/yes/gan", tmp_path / "runs/r/fold-0/yes/gan")
    as_drawn, little, much = (drawn(bend) for bend in (0, 0.01, 0.1))
    assert 0 < np.abs(little - as_drawn).mean() < np.abs(much - as_drawn).mean()
    default = list(outputs(forty).values())[:4]
    assert list(outputs(generate.run(asked(tmp_path))).values()) == default


def test_images_are_gray_and_of_the_datasets_size(forty: Step) -> None:
    image = Image.open(io.BytesIO(outputs(forty)["000007.png"]))
    assert image.mode == "L" and image.size == (SIZE, SIZE)
    assert np.asarray(image).std() > 1


def test_latents_are_standard_normal_by_number() -> None:
    latents = drawing.latents(0, range(2000), 8)
    assert latents.dtype == np.float32
    assert abs(latents.mean()) < 0.05 and abs(latents.std() - 1) < 0.05
    assert abs(np.corrcoef(latents[:-1].ravel(), latents[1:].ravel())[0, 1]) < 0.05
    assert drawing.latents(0, range(100, 103), 8).tobytes() == latents[100:103].tobytes()
    assert not np.isclose(drawing.latents(1, range(5), 8), latents[:5]).any()


def test_what_is_done_is_not_done_again(filled: Path, forty: Step) -> None:
    again = generate.run(asked(filled, synthetic_count=40))
    assert again.reused and again.digest == forty.digest


def test_fewer_images_leave_none_of_the_old_ones(filled: Path) -> None:
    generate.run(asked(filled, fold="all", synthetic_count=9))
    step = generate.run(asked(filled, fold="all", synthetic_count=5, seed=1))
    assert len(outputs(step)) == 5


def test_quality_is_judged_on_held_out_images_of_the_class(quality: dict) -> None:
    assert (quality["schema"], quality["count"]) == (2, 40)
    assert quality["reference"] == "held-out"
    assert quality["images"] == {"generated": 40, "training": 12, "held_out": 12, "compared": 12}
    assert quality["features"]["name"] == "random" and quality["features"]["networks"] == 5
    kid, fid = quality["figures"][0], quality["figures"][-1]
    assert (kid["metric"], fid["metric"]) == ("kid", "fid")
    for figure in (kid, fid):
        # An untrained generator is far from the data; real images are not.
        assert figure["generated"]["value"] > 3 * abs(figure["real"]["value"])
    assert quality["memorization"]["suspicious"] is False
    assert quality["memorization"]["near_duplicates"] == {"generated": None, "real": None}


def test_nearest_training_images_are_of_the_training_folds_and_the_class(
    filled: Path, forty: Step, quality: dict
) -> None:
    dataset = open_dataset(open_storage(str(filled)), "d")
    allowed = {row.id: row for row in dataset.training(0) if row.label == "yes"}
    assert len(quality["nearest"]) == generate.NEAREST_SHOWN
    # Brute force for one of them.
    entry = quality["nearest"][3]
    image = np.asarray(Image.open(io.BytesIO(outputs(forty)[entry["image"]]))).astype(float)
    distances = {
        row.id: min(
            np.sqrt(np.mean((image - side) ** 2))
            for pixels in dataset.pixels([row])
            for side in (pixels, pixels[:, ::-1])
        )
        for row in allowed.values()
    }
    assert entry["training"] == min(distances, key=lambda name: distances[name])
    assert entry["distance"] == pytest.approx(min(distances.values()), abs=1e-3)


def test_grids_show_samples_and_their_nearest(forty: Step, filled: Path, quality: dict) -> None:
    samples = np.asarray(Image.open(io.BytesIO(forty.read("grid.png"))))
    beside = np.asarray(Image.open(io.BytesIO(forty.read("nearest.png"))))
    cell = SIZE + grid.GAP
    assert samples.shape == (5 * cell - 1, 8 * cell - 1)
    assert beside.shape == (4 * cell - 1, 8 * cell - 1)
    ninth = np.asarray(Image.open(io.BytesIO(outputs(forty)["000008.png"])))
    assert (samples[cell : cell + SIZE, :SIZE] == ninth).all()
    assert (beside[2 * cell : 2 * cell + SIZE, :SIZE] == ninth).all()
    dataset = open_dataset(open_storage(str(filled)), "d")
    row = next(row for row in dataset.rows if row.id == quality["nearest"][8]["training"])
    pixels = dataset.pixels([row])[0]
    expected = pixels[:, ::-1] if quality["nearest"][8]["mirrored"] else pixels
    assert (beside[3 * cell : 3 * cell + SIZE, :SIZE] == expected).all()


def test_fold_all_has_nothing_held_out_and_says_so(filled: Path) -> None:
    step = generate.run(asked(filled, fold="all", synthetic_count=6))
    quality = json.loads(step.read("quality.json"))
    assert quality["reference"] == "training" and quality["images"]["held_out"] == 0
    assert all(figure["real"] is None for figure in quality["figures"])
    assert quality["memorization"]["suspicious"] is None and len(quality["nearest"]) == 6


@pytest.fixture(scope="module")
def dataset(filled: Path) -> Dataset:
    return open_dataset(open_storage(str(filled)), "d")


def test_a_generator_that_copies_is_caught(dataset: Dataset) -> None:
    training = [row for row in dataset.training(0) if row.label == "yes"]
    held_out = [row for row in dataset.held_out(0) if row.label == "yes"]
    noise = np.random.default_rng(0).normal(0, 5, (len(training), SIZE, SIZE))
    copies = np.clip(dataset.pixels(training) + noise, 0, 255).astype(np.uint8)
    judges = features.random_networks(SIZE, count=1)
    found, _ = generate.judge(judges, copies, dataset, training, held_out, 0)
    assert found["memorization"]["suspicious"] is True
    assert [entry["training"] for entry in found["nearest"]] == [row.id for row in training]


def test_a_generator_that_copies_in_another_exposure_is_caught(tmp_path: Path) -> None:
    phantom.run(PhantomSettings(out=str(tmp_path / "data"), count=12))
    step = preprocess.run(
        PreprocessSettings(data=str(tmp_path / "data"), storage=str(tmp_path), image_size=64, folds=2)
    )
    heads = open_dataset(step.storage, step.prefix.rpartition("/")[2])
    training, held_out = (
        [row for row in rows if row.label == "lesion"] for rows in (heads.training(0), heads.held_out(0))
    )
    judges = features.random_networks(64, count=1)
    exposed = (255 * (heads.pixels(training)[:, :, ::-1] / 255.0) ** 2).astype(np.uint8)
    for generated, expected in ((exposed, True), (heads.pixels(held_out), False)):
        memorization = generate.judge(judges, generated, heads, training, held_out, 0)[0]["memorization"]
        assert memorization["suspicious"] is expected
        assert memorization["near_duplicates"] == {"generated": pytest.approx(float(expected), abs=0.2), "real": 0.0}


def test_a_class_conditional_generator_draws_each_class(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    write_generator(storage, write_dataset(storage, "d"), keys.CLASS_CONDITIONAL, LABELS)
    no, yes = (generate.run(asked(tmp_path, label=label)) for label in LABELS)
    assert no.prefix == "runs/r/fold-0/no/synthetic"
    assert set(outputs(no).values()).isdisjoint(outputs(yes).values())


def refused(kind: type[Exception], words: str, chosen: GenerateSettings) -> None:
    with pytest.raises(kind, match=words) as caught:
        generate.run(chosen)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused(filled: Path) -> None:
    refused(UserError, "no dataset other", asked(filled, dataset="other"))
    refused(UserError, "--label: one of no, yes, not 'maybe'", asked(filled, label="maybe"))
    refused(UserError, "there is no fold 7", asked(filled, fold=7))
    refused(UserError, "no finished generator in runs/r/fold-0/no/gan: run train-gan first", asked(filled, label="no"))
    refused(UserError, r"--feature-weights: there is no file gone\.h5", asked(filled, feature_weights="gone.h5"))


def test_a_generator_for_another_size_or_dataset_is_refused(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    write_generator(storage, write_dataset(storage, "small"), "yes", ("yes",))
    write_dataset(storage, "large", size=64)
    write_dataset(storage, "changed", seed=1)
    refused(UserError, "generates 32 pixels, dataset large has 64: train it", asked(tmp_path, dataset="large"))
    refused(UserError, "trained on another dataset than changed", asked(tmp_path, dataset="changed"))
    assert read_manifest(storage, "runs/r/fold-0/yes/synthetic") is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_generator_is_refused(tmp_path: Path, damage: str) -> None:
    storage = open_storage(str(tmp_path))
    write_generator(storage, write_dataset(storage, "d"), "yes", ("yes",))
    name = f"runs/r/fold-0/yes/gan/{networks.GENERATOR}"
    data = storage.read(name)
    if damage == "missing":
        storage.delete(name)
    else:
        storage.write(name, data[:100] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    refused(MachineError, "is missing" if damage == "missing" else "is damaged", asked(tmp_path))


def test_an_interrupted_run_is_not_taken_for_whole(filled: Path, tmp_path: Path, monkeypatch) -> None:
    storage = open_storage(str(tmp_path))
    write_generator(storage, write_dataset(storage, "d"), "yes", ("yes",))
    done = generate.run(asked(tmp_path))
    whole, digest = outputs(done), done.digest
    with monkeypatch.context() as patch:
        patch.setattr(generate, "judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            generate.run(asked(tmp_path, seed=1))
    assert read_manifest(storage, done.prefix) is None
    assert generate.run(asked(tmp_path)).digest == digest
    assert outputs(done) == whole


def test_the_path_of_the_feature_weights_is_no_result() -> None:
    chosen = fields.validate(
        GenerateSettings, {"dataset": "d", "run": "r", "fold": "1", "label": "yes", "feature_weights": "x.h5"}
    )
    assert chosen.fold == 1 and "feature_weights" not in chosen.result()


def test_the_generators_digest_is_an_input(filled: Path, forty: Step) -> None:
    manifest = read_manifest(open_storage(str(filled)), "runs/r/fold-0/yes/gan")
    assert manifest is not None and forty.inputs["generator"] == manifest_digest(manifest)
