"""pretrain: what it writes, that it is done once and repeats, and that classifiers start from it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs import draw_phantoms, pretrain
from jobs.classifier import networks, starting
from jobs.classifier.networks import Architecture
from jobs.common import hardware
from jobs.common.errors import UserError
from jobs.common.step import Step
from jobs.settings import DrawPhantomsSettings, ExecutionSettings, PretrainSettings


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


def settings(folder: Path, **values: object) -> PretrainSettings:
    tiny = {"image_size": 32, "phantoms": 8, "phantom_epochs": 1, "classifier_steps_per_epoch": 2}
    return PretrainSettings(**(tiny | {"classifier_batch": 8, "threads": 1, "storage": str(folder)} | values))


def draw(folder: Path) -> None:
    draw_phantoms.run(DrawPhantomsSettings.of(settings(folder)))


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Step:
    folder = tmp_path_factory.mktemp("storage")
    draw(folder)
    return pretrain.run(settings(folder))


def test_it_is_done_once_for_its_settings_and_repeats(step: Step, tmp_path: Path) -> None:
    folder = Path(step.storage.url)
    assert pretrain.run(settings(folder)).reused
    assert not pretrain.run(settings(folder, phantom_epochs=2)).reused
    draw(tmp_path)
    again = pretrain.run(settings(tmp_path))
    assert again.digest == step.digest
    assert again.read(starting.WEIGHTS) == step.read(starting.WEIGHTS)


def test_it_lies_where_its_settings_say(step: Step) -> None:
    folder = Path(step.storage.url)
    assert step.prefix == starting.place(settings(folder).result())
    others = ({"phantom_epochs": 2}, {"phantoms": 10}, {"network": "resnet152v2"}, {"image_size": 64})
    assert len({step.prefix, *(starting.place(settings(folder, **other).result()) for other in others)}) == 5
    assert starting.place(settings(folder, checkpoint_steps=3, other_arithmetic="restart").result()) == step.prefix


def test_how_a_network_learns_phantoms_is_among_what_was_asked(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = networks.NETWORKS["mobilenetv2"]
    expected = (kind.phantom_learning_rate, kind.phantom_augmentation)
    assert (step.settings["learning_rate"], step.settings["augmentation"]) == expected
    monkeypatch.setitem(networks.NETWORKS, "mobilenetv2", kind._replace(phantom_learning_rate=0.002))
    again = pretrain.run(settings(Path(step.storage.url), phantom_epochs=3))
    assert again.settings["learning_rate"] == 0.002


def test_missing_phantoms_are_asked_for_by_command(tmp_path: Path) -> None:
    command = f"mrigan draw-phantoms --storage {tmp_path} --image-size 32 --phantoms 8"
    with pytest.raises(UserError, match=f"run `{command}` first"):
        pretrain.run(settings(tmp_path))
    assert list(tmp_path.rglob("*.*")) == []


def test_a_log_of_json_holds_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    draw(tmp_path)
    given = settings(tmp_path).model_dump(include={"storage", "image_size", "phantoms", "phantom_epochs", "threads"})
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
    flags += ["--classifier-steps-per-epoch", "1", "--classifier-batch", "2", "--log-format", "json"]
    command = [sys.executable, "-m", "jobs.cli", "pretrain", *flags]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1]


def test_a_classifier_starts_from_all_but_the_head(step: Step) -> None:
    stored = step.read(starting.WEIGHTS)
    initial = networks.initial_weights(Architecture("mobilenetv2", ("a", "b", "c"), 32), "none", 1)
    started = networks.with_backbone_of(stored, initial)
    learned, _ = networks.load_classifier(stored)
    assert list(started) == list(initial)
    *backbone, kernel, bias = started.values()
    assert (kernel.shape, bias.shape) == ((1280, 3), (3,))
    np.testing.assert_array_equal(kernel, list(initial.values())[-2])
    for ours, theirs in zip(backbone, learned.variables, strict=False):
        np.testing.assert_array_equal(ours, theirs.numpy())
