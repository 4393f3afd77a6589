"""train-gan: what it writes, that it repeats and goes on bit for bit, and what it refuses."""

import csv
import io
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import train_gan
from jobs.common import hardware, keys, png, shards
from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.gan import networks
from jobs.mri.dataset import Row, rows_to_csv
from jobs.settings import ExecutionSettings, GanSettings, TrainGanSettings

SIZE, FOLDS, EACH = 32, 2, 10
EPOCHS, BATCH = 150, 4
STEPS_PER_EPOCH = 2  # five training images of a class in batches of four
COMMON = {
    "dataset": "d",
    "run": "r",
    "fold": 0,
    "label": "yes",
    "threads": 1,
    "gan_epochs": EPOCHS,
    "gan_width": 4,
    "latent": 8,
    "gan_batch": BATCH,
    "sample_every": 100,
}
OUTPUTS = [
    "generator.safetensors",
    "losses.csv",
    "samples.sha256",
    "samples/epoch-000100.png",
    "samples/epoch-000150.png",
]


def write_dataset(folder: Path, *, held_out_value: int = 200, size: int = SIZE) -> None:
    """Write a dataset of two classes: rectangles; those held out in fold 0 have their own brightness."""
    storage = open_storage(str(folder))
    step = Step(
        storage, keys.dataset("d"), job="preprocess", settings={"image_size": size, "folds": FOLDS}, inputs={"data": ""}
    )
    rows, files = [], []
    for label in ("no", "yes"):
        for number in range(EACH):
            image = np.zeros((size, size), np.uint8)
            fold = number % FOLDS
            image[8:24, 8 : 16 + number] = held_out_value if fold == 0 else 150
            name = f"{label}-{number}"
            rows.append(Row(name, f"{label}/{number}.png", label, name, fold, "PNG", 100, size, size, 0.0))
            files.append((keys.image(name), png.encode(image)))
    shards.write(step, "images", files)
    step.write("index.csv", rows_to_csv(rows))
    step.finish(labels={"no": EACH, "yes": EACH})


def settings(folder: Path, **values: object) -> TrainGanSettings:
    return TrainGanSettings(**(COMMON | {"storage": str(folder)} | values))


def outputs(folder: Path, run: str = "r") -> dict[str, bytes]:
    below = folder / keys.gan(run, 0, "yes")
    found = {path.relative_to(below).as_posix(): path.read_bytes() for path in below.rglob("*") if path.is_file()}
    found.pop("manifest.json", None)
    return found


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    write_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def step(folder: Path) -> Step:
    """Return the step of a run that nothing disturbed."""
    return train_gan.run(settings(folder))


def test_the_outputs_are_what_the_design_says(folder: Path, step: Step) -> None:
    found = outputs(folder)
    assert sorted(found) == OUTPUTS
    generator, config = networks.load_generator(found["generator.safetensors"])
    assert (config.image_size, config.width, config.latent, config.labels) == (32, 4, 8, ("yes",))
    assert networks.sample(generator, np.zeros((1, 8), np.float32)).shape == (1, 32, 32, 1)
    table = list(csv.DictReader(io.StringIO(found["losses.csv"].decode())))
    assert found["losses.csv"].startswith(
        b"epoch,step,generator_loss,discriminator_loss,discriminator_accuracy_real,discriminator_accuracy_fake\n"
    )
    assert [(int(row["epoch"]), int(row["step"])) for row in table] == [
        (epoch, epoch * STEPS_PER_EPOCH) for epoch in range(1, EPOCHS + 1)
    ]
    assert all(0 <= float(row["discriminator_accuracy_real"]) <= 1 for row in table)
    image = Image.open(io.BytesIO(found["samples/epoch-000150.png"]))
    assert (image.mode, image.size) == ("L", (8 * 33 - 1, 8 * 33 - 1))
    assert found["samples/epoch-000150.png"] != found["samples/epoch-000100.png"]


def test_the_manifest_says_what_it_cost(step: Step) -> None:
    assert step.facts["steps"] == EPOCHS * STEPS_PER_EPOCH
    assert step.facts["images"] == EACH // FOLDS
    assert step.facts["seconds_per_step"] > 0
    assert step.facts["images_per_second"] == pytest.approx(BATCH / step.facts["seconds_per_step"], rel=0.01)


def test_a_second_run_does_nothing(folder: Path, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_gan, "_train", lambda *_: pytest.fail("it trains again"))
    assert train_gan.run(settings(folder)).digest == step.digest
    assert train_gan.run(settings(folder, checkpoint_steps=7, run="r")).digest == step.digest


def test_what_another_run_trained_is_copied(folder: Path, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_gan, "_train", lambda *_: pytest.fail("it trains again"))
    copied = train_gan.run(settings(folder, run="s"))
    assert copied.prefix == keys.gan("s", 0, "yes")
    assert copied.digest == step.digest
    assert outputs(folder, run="s") == outputs(folder)


def start(folder: Path, every: int) -> subprocess.Popen[bytes]:
    """Start the job in a process of its own, a checkpoint every so many steps."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in COMMON.items()]
    flags += [f"--storage={folder}", f"--checkpoint-steps={every}"]
    return subprocess.Popen([sys.executable, "-m", "jobs.cli", "train-gan", *flags], stderr=subprocess.PIPE)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[bytes] | None = None, other_than: bytes = b"") -> bytes:
    """Return the pointer to the checkpoint as soon as there is one, another than before."""
    pointer = folder / keys.gan("r", 0, "yes") / "checkpoints" / "checkpoint.json"
    deadline = time.monotonic() + 120
    while not pointer.exists() or pointer.read_bytes() in (b"", other_than):
        assert process is not None and process.poll() is None, process and process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pointer.read_bytes()


def test_what_is_stopped_or_killed_ends_as_if_it_never_was(folder: Path, step: Step, tmp_path: Path) -> None:
    write_dataset(tmp_path)
    process = start(tmp_path, every=1)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == Interrupted.exit_code
    assert "run the same command to resume" in said
    assert "Traceback" not in said
    stopped = wait_for_checkpoint(tmp_path)
    process = start(tmp_path, every=1)
    wait_for_checkpoint(tmp_path, process, other_than=stopped)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert "manifest.json" not in {path.name for path in (tmp_path / keys.gan("r", 0, "yes")).iterdir()}
    resumed = train_gan.run(settings(tmp_path))
    assert outputs(tmp_path) == outputs(folder)
    assert resumed.digest == step.digest


_save = Checkpoints.save


def save_and_stop(checkpoints: Checkpoints, number: int, *what: Any) -> None:
    """Save a checkpoint as if a signal had come before it."""
    _save(checkpoints, number, *what)
    raise Interrupted


def test_a_sample_that_changed_while_nothing_ran_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path)
    asked = settings(tmp_path, gan_epochs=3, sample_every=1, checkpoint_steps=4)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Checkpoints, "save", save_and_stop)
        train_gan.run(asked)
    sample = tmp_path / keys.gan("r", 0, "yes") / "samples" / "epoch-000001.png"
    whole = sample.read_bytes()
    sample.write_bytes(whole[:-1] + b"x")
    with pytest.raises(MachineError, match=r"samples/epoch-000001\.png is damaged: delete .*/yes/gan and run its job"):
        train_gan.run(asked)
    sample.write_bytes(whole)
    assert train_gan.run(asked).read("samples/epoch-000001.png") == whole


@pytest.mark.parametrize(("choice", "goes_on"), [("continue", True), ("restart", False)])
def test_what_other_arithmetic_began_is_gone_on_with_or_begun_again(
    choice: str, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path)
    caplog.set_level("INFO")
    asked = settings(tmp_path, gan_epochs=3, sample_every=1, checkpoint_steps=4, other_arithmetic=choice)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Checkpoints, "save", save_and_stop)
        train_gan.run(asked)
    found = hardware.configure(asked).arithmetic()
    # Threads cannot be changed in a process that computes.
    monkeypatch.setattr(hardware.Hardware, "arithmetic", lambda _: found | {"threads": 64})
    step = train_gan.run(asked)
    assert "has a checkpoint that was made with threads 1, this machine has threads 64" in caplog.text
    assert ("resuming after step 4 of 6" in caplog.text) == goes_on
    assert step.manifest["arithmetic"]["threads"] == 64
    # The finished step in turn is of other arithmetic than that of the first machine.
    monkeypatch.undo()
    caplog.clear()
    assert train_gan.run(asked).reused == goes_on
    assert "was made with threads 64, this machine has threads 1" in caplog.text


def test_only_the_training_images_of_the_class_matter(folder: Path, step: Step, tmp_path: Path) -> None:
    write_dataset(tmp_path, held_out_value=90)
    other = train_gan.run(settings(tmp_path))
    assert other.inputs != step.inputs
    assert outputs(tmp_path) == outputs(folder)


def test_settings_of_another_run_start_anew(folder: Path, step: Step, tmp_path: Path) -> None:
    write_dataset(tmp_path)
    train_gan.run(settings(tmp_path, gan_epochs=2, sample_every=1))
    train_gan.run(settings(tmp_path, gan_epochs=3, sample_every=3))
    assert sorted(outputs(tmp_path)) == [*OUTPUTS[:3], "samples/epoch-000003.png"]


def test_one_conditional_gan_draws_every_class(folder: Path) -> None:
    step = train_gan.run(settings(folder, label="", gan_epochs=2))
    assert step.prefix == keys.gan("r", 0, keys.CLASS_CONDITIONAL)
    assert step.facts["images"] == EACH
    _, config = networks.load_generator(step.read("generator.safetensors"))
    assert config.labels == ("no", "yes")
    assert train_gan.run(settings(folder, label=keys.CLASS_CONDITIONAL, gan_epochs=2)).reused


def test_the_plain_dcgan_is_one_setting_away(folder: Path) -> None:
    step = train_gan.run(settings(folder, gan_stabilizers="none", gan_epochs=2, label="no"))
    assert step.settings["gan_stabilizers"] == "none"
    assert step.settings["gan_learning_rate"] == 2e-4
    _, config = networks.load_generator(step.read("generator.safetensors"))
    assert (config.labels, config.anchors) == (("no",), 0)
    both = train_gan.run(settings(folder, label="", gan_stabilizers="none", gan_epochs=2))
    _, config = networks.load_generator(both.read("generator.safetensors"))
    assert config.labels == ("no", "yes")


def test_a_stabilizer_left_out_is_other_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[set[str]] = []

    def train(_: TrainGanSettings, step: Step, *given: Any) -> None:
        began.append(given[-2])
        step.finish()

    monkeypatch.setattr(train_gan, "_train", train)
    asked, every = settings(folder, run="ablated", gan_epochs=2), set(train_gan.STABILIZERS)
    whole = train_gan.run(asked)
    without = train_gan.run(asked, off=("patches", "relativistic"))
    assert train_gan.run(asked, off=("relativistic", "patches")).reused
    none = train_gan.run(asked.model_copy(update={"gan_stabilizers": "none"}))
    assert began == [every, every - {"patches", "relativistic"}, set()]
    assert len({whole.digest, without.digest, none.digest}) == 3
    assert (whole.settings.get("off"), without.settings["off"]) == (None, ["patches", "relativistic"])


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({}, 1e-3),
        ({"gan_stabilizers": "all"}, 1e-3),
        ({"gan_stabilizers": "none"}, 2e-4),
        ({"gan_stabilizers": "none", "gan_learning_rate": 1e-3}, 1e-3),
    ],
)
def test_the_plain_dcgan_has_a_learning_rate_of_its_own_unless_one_is_given(
    given: dict[str, object], rate: float
) -> None:
    asked = GanSettings(**given)
    assert asked.gan_learning_rate == rate
    assert TrainGanSettings.of(asked, dataset="d", run="r", fold=0).gan_learning_rate == rate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "maybe"}, "--label: one of no, yes, not 'maybe'"),
        ({"fold": 2}, "there is no fold 2"),
        ({"dataset": "none"}, "there is no dataset none"),
    ],
)
def test_mistakes_are_named(folder: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_gan.run(settings(folder, **values))


def test_a_dataset_of_another_size_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, size=48)
    with pytest.raises(UserError, match="48"):
        train_gan.run(settings(tmp_path))


def test_a_loss_that_is_not_finite_stops_with_the_steps(folder: Path) -> None:
    # An epoch is one step, the first of which throws the weights out of bounds; at 1e9 its own loss would be too.
    wild = settings(folder, run="wild", gan_learning_rate=3e8, gan_stabilizers="none", gan_batch=16)
    what = r"not finite, first in step 2 \(of 1 to \d+\): lower --gan-learning-rate"
    with pytest.raises(UserError, match=what):
        train_gan.run(wild)
    place = folder / keys.gan("wild", 0, "yes")
    assert not (place / "manifest.json").exists()
    [row] = csv.DictReader(io.StringIO((place / "losses.csv").read_text()))
    assert row["step"] == "1" and all(math.isfinite(float(value)) for value in row.values())
