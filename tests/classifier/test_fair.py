"""Whose predictions a challenger is compared with, image by image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.classifier import networks
from jobs.common.errors import UserError
from jobs.common.storage import Storage, open_storage
from tests.made_runs import FEW, FOLDS, LABELS, decide, digest, head, image, make_dataset, make_run, record, remembering


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "storage"))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let stored models answer as make_run has it; return the shapes of what they are asked, one for each model."""
    asked: list[tuple[int, ...]] = []

    def predict(model: dict[str, Any], images: np.ndarray) -> np.ndarray:
        asked.append(images.shape)
        known = [model["knows"].get(digest(picture)) for picture in images]
        return np.array([model["otherwise"] if x is None else np.eye(2)[LABELS.index(x)] for x in known])

    monkeypatch.setattr(networks, "load_classifier", lambda data: (json.loads(data), None))
    monkeypatch.setattr(networks, "predict", predict)
    return asked


def test_images_that_are_new_to_the_champion_are_judged_by_its_ensemble(
    storage: Storage, planted: list[tuple[int, ...]]
) -> None:
    """Where its models disagree the surer one decides: all is read as yes."""
    new = [image(100 + number) for number in range(6)]
    make_dataset(storage, "old", FEW, [head(number) for number in range(8)])
    make_dataset(storage, "new", FEW + new, [head(row) for row in [*range(8), *range(100, 106)]])
    make_run(storage, "r1", FEW, 1.0, dataset="old", seeds=2, otherwise=([0.6, 0.4], [0.1, 0.9]))
    make_run(storage, "r2", FEW + new, 1.0, dataset="new")
    decide(storage, "r1", "old")
    _, decision = decide(storage, "r2", "new")
    assert decision["images"] == {
        "compared": 14, "own_out_of_fold": 8, "fold_models": 0, "ensemble": 6, "left_out": 0
    }  # fmt: skip
    assert planted == [(6, 64, 64)] * 4
    # Of class yes all 7 are right, of class no the 4 old ones.
    assert decision["champion"] == pytest.approx((4 / 7 + 1) / 2)
    assert "8 its own out of fold, 6 of its ensemble" in decision["reason"]


def test_what_the_champion_learned_by_heart_gains_it_nothing(storage: Storage, planted: list[tuple[int, ...]]) -> None:
    """Old images: the same, in other folds. Copies: turned. Mates: other heads in a group with an old image."""
    pictures = make_dataset(storage, "old", FEW, [head(number) for number in range(8)])
    copies = [image(number, fold=0, id=f"copy-{number}") for number in range(4)]
    old = [image(number, fold=number % FOLDS) for number in range(4, 8)]
    mates = [image(number, fold=number % FOLDS, id=f"mate-{number}", group=f"{number:04d}") for number in range(4, 8)]
    heads = [head(number, 30) for number in range(4)] + [head(number) for number in [*range(4, 8), *range(50, 54)]]
    challenging = make_dataset(storage, "new", copies + old + mates, heads)

    knows = remembering(FEW, pictures)
    fold_of = {row.source: row.fold for row in FEW}
    for row in copies + mates:
        number = int(row.id.rpartition("-")[2])
        for fold in range(FOLDS):
            if fold != fold_of[image(number).source]:
                knows[fold][digest(challenging[row.id])] = row.label
    # Of what they have not learned the models know nothing: all is no.
    make_run(storage, "r1", FEW, [row.id for row in FEW if row.label == "no"], dataset="old", knows=knows)
    make_run(storage, "r2", copies + old + mates, 1.0, dataset="new")
    decide(storage, "r1", "old")
    name, decision = decide(storage, "r2", "new")
    assert (name, decision["champion"]) == ("r2", 0.5)
    assert decision["images"] == {
        "compared": 12, "own_out_of_fold": 4, "fold_models": 8, "ensemble": 0, "left_out": 0
    }  # fmt: skip
    assert sum(shape[0] for shape in planted) == 8


def test_an_image_whose_group_was_spread_over_folds_is_left_out_for_both(
    storage: Storage, planted: list[tuple[int, ...]]
) -> None:
    rows = [image(number, group="one" if number in (0, 2) else "") for number in range(6)]
    bridge = image(100, group="one", fold=0)
    assert {rows[0].fold, rows[2].fold} == {0, 1}
    rows[2] = image(2, group="one", fold=0)
    make_dataset(storage, "old", FEW, [head(number) for number in range(8)])
    make_dataset(storage, "new", [*rows, bridge], [head(number) for number in [*range(6), 100]])
    make_run(storage, "r1", FEW, 1.0, dataset="old")
    make_run(storage, "r2", [*rows, bridge], ["0001", "0003", "0004", "0005"], dataset="new")
    decide(storage, "r1", "old")
    name, decision = decide(storage, "r2", "new")
    assert (name, decision["challenger"], decision["champion"]) == ("r2", 1.0, 1.0)
    assert (decision["images"]["compared"], decision["images"]["left_out"]) == (4, 3)
    assert planted == []
    assert "3 images left out, for which it has no fair model" in decision["reason"]


def test_a_champion_of_another_image_size_gets_images_of_its_own(
    storage: Storage, planted: list[tuple[int, ...]]
) -> None:
    new = [image(100 + number) for number in range(4)]
    make_dataset(storage, "old", FEW, [head(number) for number in range(8)], size=32)
    make_dataset(storage, "new", FEW + new, [head(row) for row in [*range(8), *range(100, 104)]])
    make_run(storage, "r1", FEW, 1.0, dataset="old")
    make_run(storage, "r2", FEW + new, 1.0, dataset="new")
    decide(storage, "r1", "old")
    _, decision = decide(storage, "r2", "new")
    assert planted == [(4, 32, 32)] * 2
    assert "for which images were resized from 64 to 32 pixels" in decision["reason"]


def test_on_a_test_set_both_ensembles_read_what_neither_has_seen(
    storage: Storage, planted: list[tuple[int, ...]], tmp_path: Path
) -> None:
    heads = [head(number) for number in range(8)]
    for id in ("d3", "d4"):
        make_dataset(storage, id, FEW, heads)
    make_run(storage, "r1", FEW, 1.0, dataset="d3", otherwise=([0.9, 0.1], [0.8, 0.2]))
    for number in [0, *range(200, 206)]:
        path = tmp_path / "test" / LABELS[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(head(number, 40 if number == 0 else 0)).save(path)
    decide(storage, "r1", "d3")
    make_run(storage, "r2", FEW, 0.0, dataset="d4", otherwise=([0.1, 0.9], [0.2, 0.8]))
    name, decision = decide(storage, "r2", "d4", test=str(tmp_path / "test"))
    assert (name, decision["difference"]) == ("r2", 0.0)
    assert decision["images"] == {"compared": 6, "own_out_of_fold": 0, "fold_models": 0, "ensemble": 6, "left_out": 1}
    assert [shape[0] for shape in planted] == [6] * 4
    assert "6 test images (1 left out as near-duplicates of training images)" in decision["reason"]


def test_nothing_is_decided_if_no_image_is_fair_to_compare_on(storage: Storage) -> None:
    """All images of a class are of one person now, whom the champion knows from both sides of its split."""
    rows = [image(number, group=LABELS[number % 2]) for number in range(8)]
    make_dataset(storage, "d2", rows)
    make_dataset(storage, "d1", FEW)
    make_run(storage, "r1", FEW, 0.8)
    make_run(storage, "r2", rows, 0.8, dataset="d2")
    decide(storage, "r1")
    with pytest.raises(
        UserError, match="for 8 of the 8 images of dataset d2, all models of the champion were trained on"
    ):
        decide(storage, "r2", "d2")
    assert len(record(storage).decisions) == 1
