"""The packaged weights: that the files belong together, and that they read drawn heads that they have not seen."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from jobs.classifier import networks, starting
from jobs.common import hardware
from jobs.common.errors import MachineError
from jobs.mri.crop import crop_to_head
from jobs.phantoms import learning
from jobs.settings import ExecutionSettings, PretrainSettings

CARDS = sorted(starting.PACKAGED.glob("*.json"))
SEEN = 8000  # phantoms of the training


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


def test_the_recipe_starts_from_them() -> None:
    assert starting.are_packaged(PretrainSettings().result())
    assert not starting.are_packaged(PretrainSettings(phantom_epochs=1).result())
    assert not starting.are_packaged(PretrainSettings(image_size=128).result())


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_they_are_small_and_have_the_digest_of_their_card(card: Path) -> None:
    network, _, image_size = card.stem.rpartition("-")
    found = starting.packaged(network, int(image_size))
    assert len(found.data) < 6e6
    assert found.digest == hashlib.sha256(card.with_suffix(".safetensors").read_bytes()).hexdigest()
    _, architecture = networks.load_classifier(found.data)
    assert architecture == networks.Architecture(network, starting.LABELS, int(image_size))


def test_they_read_phantoms_that_were_not_in_the_training() -> None:
    model, _ = networks.load_classifier(starting.packaged("mobilenetv2", 64).data)
    numbers = range(SEEN, SEEN + 60)
    images = np.stack([crop_to_head(head, 64) for head in learning.heads(numbers)])
    right = networks.predict(model, images).argmax(axis=1) == [learning.has_lesion(number) for number in numbers]
    assert right.mean() > 0.6  # many lesions are hardly visible


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in starting.PACKAGED.glob("mobilenetv2-64.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(starting, "PACKAGED", tmp_path)
    weights = tmp_path / "mobilenetv2-64.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(MachineError, match="missing or damaged: install mrigan again"):
        starting.packaged("mobilenetv2", 64)
    weights.unlink()
    with pytest.raises(MachineError, match="missing or damaged"):
        starting.packaged("mobilenetv2", 64)


def test_the_model_card_says_how_well_they_read_real_images() -> None:
    card = " ".join((starting.PACKAGED / "README.md").read_text().split())
    assert starting.in_words(starting.card("mobilenetv2", 64)) in card
