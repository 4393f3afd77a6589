"""train-classifier: what it writes and from which images, that it repeats and goes on bit for bit, what it refuses."""

import csv
import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import log_loss

from jobs import cli, draw_phantoms, pretrain, train_classifier
from jobs.classifier import networks, starting
from jobs.classifier.predictions import Predictions, read_predictions
from jobs.common import hardware, keys, shards
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.step import Step, manifest_digest, read_manifest
from jobs.common.storage import open_storage
from jobs.mri import negative_controls
from jobs.mri.dataset import Row, open_dataset, rows_to_csv
from jobs.phantoms import learning
from jobs.settings import DrawPhantomsSettings, ExecutionSettings, PretrainSettings, TrainClassifierSettings

SIZE, FOLDS, GROUPS = 32, 2, 12  # groups of each class; each has two images, the last one three
LABELS = ("no", "yes")
EPOCHS, STEPS = 3, 10
COMMON = {
    "dataset": "d",
    "run": "r",
    "fold": 0,
    "threads": 1,
    "classifier_epochs": EPOCHS,
    "classifier_steps_per_epoch": STEPS,
    "classifier_batch": 8,
    "healthy": "off",
}
PHANTOMS = {"healthy": "no", "phantoms": 8, "phantom_epochs": 1}
OUTPUTS = ["classifier.safetensors", "history.csv", "predictions.csv"]


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


def png(value: float, seed: int, size: int = SIZE) -> bytes:
    """A noisy square on black."""
    pixels = np.zeros((size, size), np.uint8)
    noise = np.random.default_rng(seed).integers(0, 40, (size - 16, size - 16))
    pixels[8:-8, 8:-8] = value + noise
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_dataset(folder: Path, *, training: float = 100, held_out: float = 100) -> Step:
    """Write a dataset of two classes; `training` and `held_out` are the brightness of those parts of fold 0."""
    storage = open_storage(str(folder))
    step = Step(storage, keys.dataset("d"), job="preprocess", settings={"image_size": SIZE, "folds": FOLDS}, inputs={})
    rows, files = [], []
    for index, label in enumerate(LABELS):
        for group in range(GROUPS):
            for member in range(3 if group == GROUPS - 1 else 2):
                fold = group % FOLDS
                id = f"{label}-{group:02d}-{member}"
                row = Row(id, f"{label}/{id}.png", label, f"{label}-{group:02d}", fold, "PNG", 9, SIZE, SIZE, 0.0)
                value = (held_out if fold == 0 else training) + 80 * index
                files.append((keys.image(id), png(value, len(rows))))
                rows.append(row)
    shards.write(step, "images", files)
    step.write("index.csv", rows_to_csv(rows))
    step.finish(labels={label: len(files) // 2 for label in LABELS})
    return step


def write_synthetic(folder: Path, dataset: Step, label: str, count: int = 6, size: int = SIZE) -> Step:
    """Write the synthetic images of a class in fold 0."""
    prefix = keys.synthetic("r", 0, label)
    step = Step(dataset.storage, prefix, job="generate", settings={}, inputs={"dataset": dataset.digest})
    value = 100 + 80 * LABELS.index(label)
    drawn = ((keys.synthetic_image(number), png(value, 1000 + number, size)) for number in range(count))
    shards.write(step, "images", drawn)
    step.finish()
    return step


def settings(folder: Path, **values: object) -> TrainClassifierSettings:
    return TrainClassifierSettings(**(COMMON | {"storage": str(folder)} | values))


def learn_phantoms(folder: Path, **values: object) -> tuple[Step, Step]:
    """Draw the phantoms of such a classifier and train its network on them; return both steps."""
    wanted = PretrainSettings.of(settings(folder, **PHANTOMS | values), image_size=SIZE)
    draw_phantoms.run(DrawPhantomsSettings.of(wanted))
    [drawn] = learning.drawn(open_storage(str(folder)), SIZE, wanted.phantoms)
    return drawn, pretrain.run(wanted)


def outputs(step: Step) -> dict[str, bytes]:
    """Everything under a step but its manifest."""
    found = {key.removeprefix(step.prefix + "/"): step.storage.read(key) for key in step.storage.list(step.prefix)}
    found.pop("manifest.json")
    return found


def history(step: Step) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(step.read("history.csv").decode())))


def predictions(step: Step) -> Predictions:
    return read_predictions(step.read("predictions.csv"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    dataset = write_dataset(folder)
    for label in LABELS:
        write_synthetic(folder, dataset, label)
    return folder


@pytest.fixture(scope="module")
def step(folder: Path) -> Step:
    """A classifier of regime real."""
    return train_classifier.run(settings(folder))


@pytest.fixture(scope="module")
def synthetic(folder: Path) -> Step:
    return train_classifier.run(settings(folder, regime="synthetic"))


# ---- outputs ----------------------------------------------------------------------------------------------------


def test_held_out_images_are_predicted_by_the_stored_classifier(folder: Path, step: Step) -> None:
    assert step.prefix == "runs/r/fold-0/classifiers/mobilenetv2-real-seed-0"
    assert sorted(outputs(step)) == OUTPUTS
    dataset = open_dataset(step.storage, "d")
    held_out = sorted(dataset.held_out(0), key=lambda row: row.id)
    said = predictions(step)
    assert said.ids == [row.id for row in held_out]
    assert said.groups == [row.group for row in held_out]
    assert set(said.folds) == {"0"}
    assert [said.labels[index] for index in said.truth] == [row.label for row in held_out]
    model, architecture = networks.load_classifier(step.read("classifier.safetensors"))
    assert architecture == networks.Architecture("mobilenetv2", LABELS, SIZE)
    expected = networks.predict(model, dataset.pixels(held_out))
    np.testing.assert_allclose(said.probabilities, expected, rtol=1e-8)


def test_history_has_each_epoch_and_ends_with_what_is_kept_in_one_view(step: Step) -> None:
    rows = history(step)
    assert [(int(row["epoch"]), int(row["step"])) for row in rows] == [(i, i * STEPS) for i in range(1, EPOCHS + 1)]
    dataset, (model, _) = open_dataset(step.storage, "d"), networks.load_classifier(step.read("classifier.safetensors"))
    held_out = dataset.held_out(0)
    gray = dataset.pixels(held_out) / np.float32(255)
    probabilities = tf.nn.softmax(model(networks.network_input(tf.constant(gray)), training=False)).numpy()
    truth = np.array([LABELS.index(row.label) for row in held_out])
    accuracy = (probabilities.argmax(axis=1) == truth).mean()
    assert float(rows[-1]["held_out_accuracy"]) == pytest.approx(accuracy, abs=1e-6)
    assert float(rows[-1]["held_out_loss"]) == pytest.approx(log_loss(truth, probabilities, labels=[0, 1]), abs=1e-5)


def test_what_is_there_is_not_done_again(folder: Path, step: Step) -> None:
    again = train_classifier.run(settings(folder, checkpoint_seconds=5))
    assert again.reused
    assert again.digest == step.digest


@pytest.mark.parametrize(("choice", "begun"), [("continue", 0), ("restart", 1)])
def test_what_other_arithmetic_did_is_used_or_done_again(
    choice: str,
    begun: int,
    folder: Path,
    step: Step,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = step.storage.read(f"{step.prefix}/manifest.json")
    began: list[Step] = []
    monkeypatch.setattr(train_classifier, "_train", lambda _, step, *rest: began.append(step))
    monkeypatch.setattr(hardware.Hardware, "arithmetic", lambda _: step.manifest["arithmetic"] | {"kind": "gpu"})
    train_classifier.run(settings(folder, other_arithmetic=choice))
    assert len(began) == begun
    assert f"{step.prefix} was made with kind cpu, this machine has kind gpu" in caplog.text
    step.storage.write(f"{step.prefix}/manifest.json", manifest)


def test_what_another_run_trained_is_copied(folder: Path, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_classifier, "_train", lambda *_: pytest.fail("it trains again"))
    copied = train_classifier.run(settings(folder, run="s"))
    assert copied.prefix == step.prefix.replace("runs/r/", "runs/s/")
    assert copied.digest == step.digest
    assert outputs(copied) == outputs(step)


def test_fold_all_gives_a_model_and_no_predictions(folder: Path) -> None:
    everything = train_classifier.run(settings(folder, fold="all"))
    assert sorted(outputs(everything)) == ["classifier.safetensors", "history.csv"]
    images = everything.facts["images"]
    assert images["held_out"] == 0
    assert images["training_real"] == 2 * (2 * GROUPS + 1)
    assert {row["held_out_loss"] for row in history(everything)} == {""}


# ---- which images do what ---------------------------------------------------------------------------------------


def test_held_out_images_have_no_part_in_training(step: Step, tmp_path: Path) -> None:
    write_dataset(tmp_path, held_out=20)
    other = outputs(train_classifier.run(settings(tmp_path)))
    mine = outputs(step)
    assert other["classifier.safetensors"] == mine["classifier.safetensors"]
    assert other["predictions.csv"] != mine["predictions.csv"]


def test_in_the_synthetic_regime_real_images_change_nothing(synthetic: Step, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, training=20)
    for label in LABELS:
        write_synthetic(tmp_path, dataset, label)
    darker = train_classifier.run(settings(tmp_path, regime="synthetic"))
    assert outputs(synthetic)["classifier.safetensors"] == outputs(darker)["classifier.safetensors"]
    assert synthetic.facts["images"]["training_real"] == 0
    assert synthetic.facts["images"]["training_synthetic"] == 12
    assert "no image was used for model selection" in synthetic.facts["selection"]
    assert "real images were only used to train the generators" in synthetic.facts["selection"]


def test_both_kinds_of_images_train_together(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path)
    for label, count in zip(LABELS, (6, 9), strict=True):
        write_synthetic(tmp_path, dataset, label, count=count)
    both = train_classifier.run(settings(tmp_path, regime="real+synthetic"))
    images = both.facts["images"]
    assert images["training_synthetic"] == 15
    assert images["training_real"] + images["held_out"] == 2 * (2 * GROUPS + 1)
    assert sorted(both.inputs) == ["dataset", "no/synthetic", "yes/synthetic"]
    assert both.prefix.endswith("mobilenetv2-real+synthetic-seed-0")


# ---- controls ---------------------------------------------------------------------------------------------------


def test_permuted_labels_go_by_group_and_say_nothing(folder: Path, step: Step) -> None:
    permuted = train_classifier.run(settings(folder, control="permuted"))
    assert permuted.prefix.endswith("mobilenetv2-real-permuted-seed-0")
    said, true = predictions(permuted), predictions(step)
    assert said.ids == true.ids
    assert len(set(zip(said.groups, said.truth, strict=True))) == len(set(said.groups))
    assert (said.truth != true.truth).any()
    assert 0 <= permuted.facts["learned"] <= 1 and "learned" not in step.facts


@pytest.mark.parametrize(
    ("asked", "strength"),
    [
        ({}, 1),
        ({"network": "resnet152v2"}, 1),
        (PHANTOMS, 1),
        (PHANTOMS | {"network": "resnet152v2"}, 0.3),
        (PHANTOMS | {"network": "resnet152v2", "phantom_epochs": 0}, 1),
        (PHANTOMS | {"network": "resnet152v2", "classifier_augmentation": False}, 0),
        ({"control": "permuted"}, 0),
    ],
)
def test_a_network_that_learned_phantoms_goes_on_as_strongly_augmented(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: dict, strength: float
) -> None:
    begun: list[tuple[dict, float]] = []
    # ResNet152V2 takes a minute to its first step.
    monkeypatch.setattr(starting, "start", lambda *_: starting.Start(b"", "none", 0.0))
    monkeypatch.setattr(train_classifier, "_train", lambda _, step, *rest: begun.append((step.settings, rest[-2])))
    draw_phantoms.run(DrawPhantomsSettings(storage=str(folder), image_size=SIZE, phantoms=PHANTOMS["phantoms"]))
    train_classifier.run(settings(folder, seed=9, **asked))
    [(told, found)] = begun
    assert found == told["augmentation"] == strength


def test_permuted_labels_are_learned_by_heart_without_phantoms(folder: Path) -> None:
    learn_phantoms(folder)
    permuted = train_classifier.run(settings(folder, control="permuted", **PHANTOMS))
    assert "phantoms.csv" not in permuted.manifest["outputs"]
    assert "phantoms: drawn heads" not in permuted.facts["selection"]
    dataset = open_dataset(permuted.storage, "d")
    rows = negative_controls.permuted(dataset.training(0), 0)
    model, _ = networks.load_classifier(permuted.read("classifier.safetensors"))
    said = networks.predict(model, dataset.pixels(rows)).argmax(axis=1)
    right = [LABELS[answer] == row.label for answer, row in zip(said, rows, strict=True)]
    assert permuted.facts["learned"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("wrong", [{"regime": "synthetic"}, {"fold": "all"}])
def test_controls_are_for_real_images_and_a_held_out_fold(folder: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="--control leaky requires --regime real"):
        train_classifier.run(settings(folder, control="leaky", **wrong))


# ---- phantoms ---------------------------------------------------------------------------------------------------


def test_phantoms_teach_first_and_beside_the_images(folder: Path, step: Step) -> None:
    drawn, learned = learn_phantoms(folder)
    with_phantoms = train_classifier.run(settings(folder, seed=3, **PHANTOMS))
    for name, one in ((drawn.prefix, drawn), ("pretrained", learned)):
        assert with_phantoms.inputs[name] == manifest_digest(read_manifest(one.storage, one.prefix) or {})
        assert name not in step.inputs
    assert with_phantoms.facts["pretraining_seconds"] == learned.manifest["seconds"]
    assert "phantoms: drawn heads" in with_phantoms.facts["selection"]
    before, after = (read_predictions(with_phantoms.read(name)) for name in ("phantoms.csv", "predictions.csv"))
    assert before.ids == after.ids
    assert (before.probabilities != after.probabilities).all()
    assert train_classifier.run(settings(folder, seed=3, **PHANTOMS)).reused
    assert train_classifier.run(settings(folder, seed=3, **PHANTOMS | {"healthy": "auto"})).reused
    others = train_classifier.run(settings(folder, seed=3, **PHANTOMS | {"phantom_epochs": 0}))
    assert not others.reused
    assert "pretrained" not in others.inputs and drawn.prefix in others.inputs


def test_missing_phantoms_and_weights_are_asked_for_by_command(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    asked = settings(tmp_path, **PHANTOMS)
    command = f"mrigan draw-phantoms --storage {tmp_path} --image-size 32 --phantoms 8"
    with pytest.raises(UserError, match=f"run `{command}` first"):
        train_classifier.run(asked)
    draw_phantoms.run(DrawPhantomsSettings(storage=str(tmp_path), image_size=SIZE, phantoms=8))
    with pytest.raises(UserError, match="has no weights pretrained on phantoms: run `mrigan pretrain ") as told:
        train_classifier.run(asked)
    # The command writes what is missing.
    words = str(told.value).partition("`mrigan pretrain ")[2].partition("`")[0].split()
    assert starting.place(cli.read_settings("pretrain", words).result()) == starting.place(
        PretrainSettings.of(asked, image_size=SIZE).result()
    )


def test_packaged_weights_need_no_pretraining(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, learned = learn_phantoms(folder)
    data = networks.in_half_precision(learned.read(starting.WEIGHTS))
    card = {"settings": learned.settings, "digest": hashlib.sha256(data).hexdigest()}
    monkeypatch.setattr(starting, "PACKAGED", tmp_path)
    (tmp_path / f"mobilenetv2-{SIZE}.safetensors").write_bytes(data)
    (tmp_path / f"mobilenetv2-{SIZE}.json").write_text(json.dumps(card))

    started = train_classifier.run(settings(folder, seed=4, **PHANTOMS))
    assert started.inputs["pretrained"] == card["digest"]
    assert started.facts["pretraining_seconds"] == 0
    rounded = read_predictions(started.read("phantoms.csv"))
    monkeypatch.undo()
    by_pretrain = train_classifier.run(settings(folder, seed=4, **PHANTOMS))
    assert not by_pretrain.reused
    exact = read_predictions(by_pretrain.read("phantoms.csv"))
    np.testing.assert_allclose(rounded.probabilities, exact.probabilities, atol=0.02)


def test_a_class_without_lesions_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--healthy: there is no class 'fine': use one of no, yes, or off"):
        train_classifier.run(settings(folder, healthy="fine"))


# ---- bad input --------------------------------------------------------------------------------------------------


def test_missing_synthetic_images_are_asked_for_by_command(folder: Path) -> None:
    with pytest.raises(UserError, match=f"mrigan generate --storage {folder} --dataset d --run r --fold 1 --label no"):
        train_classifier.run(settings(folder, regime="synthetic", fold=1))


def test_synthetic_images_of_another_dataset_or_size_or_damaged_are_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path)
    for label in LABELS:
        write_synthetic(tmp_path, dataset, label, size=64)
    with pytest.raises(UserError, match="images that are not 32 x 32"):
        train_classifier.run(settings(tmp_path, regime="synthetic"))
    broken = f"{write_synthetic(tmp_path, dataset, 'no').prefix}/images/shard-000000.tar"
    dataset.storage.write(broken, b"broken")
    with pytest.raises(MachineError, match=f"{broken} is damaged"):
        train_classifier.run(settings(tmp_path, regime="synthetic"))
    write_dataset(tmp_path, held_out=50)
    with pytest.raises(UserError, match="was not made from dataset d"):
        train_classifier.run(settings(tmp_path, regime="synthetic"))


def test_synthetic_images_that_were_deleted_in_part_are_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path)
    parts = [write_synthetic(tmp_path, dataset, label) for label in LABELS]
    parts[0].storage.delete(f"{parts[0].prefix}/images/shard-000000.tar")
    with pytest.raises(MachineError, match=r"000000\.tar is missing: delete .*/no/synthetic and run its job again"):
        train_classifier.run(settings(tmp_path, regime="synthetic"))


def test_a_loss_that_is_not_finite_is_named_with_its_steps(folder: Path) -> None:
    with pytest.raises(UserError, match=r"not finite in steps \d+ to \d+: lower --classifier-learning-rate"):
        train_classifier.run(settings(folder, seed=1, classifier_learning_rate=1e38))


def test_missing_weights_are_refused_before_any_work(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--classifier-weights: there is no file nothing\.h5"):
        train_classifier.run(settings(folder, classifier_weights="nothing.h5"))


# ---- to be stopped ----------------------------------------------------------------------------------------------


def start(folder: Path) -> subprocess.Popen:
    given = COMMON | {"storage": str(folder), "checkpoint_steps": 1}
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
    command = [sys.executable, "-m", "jobs.cli", "train-classifier", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_what_is_stopped_ends_as_if_it_never_was(step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    write_dataset(tmp_path)
    process = start(tmp_path)
    pointer = tmp_path / step.prefix / "checkpoints" / "checkpoint.json"
    deadline = time.monotonic() + 300
    while not pointer.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == Interrupted.exit_code, said
    assert "run the same command to resume" in said
    assert "Traceback" not in said and "oneDNN" not in said
    assert not (tmp_path / step.prefix / "manifest.json").exists()
    resumed = train_classifier.run(settings(tmp_path))
    assert outputs(resumed) == outputs(step)
    assert resumed.digest == step.digest
