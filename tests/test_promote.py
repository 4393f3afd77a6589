"""Who becomes champion, judged on stored predictions."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import promote
from jobs.classifier.champion import parse_record, read_champion
from jobs.classifier.predictions import Predictions, write_predictions
from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import Step
from jobs.common.storage import Storage, open_storage

IMAGES = 200
FOLDS = 2


def make_run(
    storage: Storage, run: str, right: float, *, dataset: str = "d1", rate: float = 0.001, regime: str = "real"
) -> None:
    """Store a dataset, a report and the predictions of a classifier that reads the share `right` of the images."""
    data = Step(
        storage, keys.dataset(dataset), job="preprocess", settings={"folds": FOLDS, "image_size": 32}, inputs={}
    )
    data.finish(labels={"no": 100, "yes": 100}, name="mri")
    number = np.arange(IMAGES)
    truth = number % 2
    predicted = np.where(number < right * IMAGES, truth, 1 - truth)
    for fold in range(FOLDS):
        mine = np.flatnonzero(number // 2 % FOLDS == fold)
        predictions = Predictions(
            ids=[f"{index:04d}" for index in mine],
            groups=[f"g{index:04d}" for index in mine],
            folds=[str(fold)] * len(mine),
            labels=["no", "yes"],
            truth=truth[mine],
            probabilities=np.where(np.eye(2)[predicted[mine]] > 0, 0.9, 0.1),
        )
        settings = {
            "classifier_learning_rate": rate,
            "network": "mobilenetv2",
            "regime": regime,
            "seed": 0,
            "fold": fold,
        }
        cell = Step(
            storage,
            keys.classifier(run, fold, "mobilenetv2", regime, 0),
            job="train-classifier",
            settings=settings,
            inputs={"dataset": data.digest},
        )
        cell.write("predictions.csv", write_predictions(predictions))
        cell.finish()
    asked = {"networks": ["mobilenetv2"], "regimes": [regime], "seeds": 1, "seed": 0}
    report = Step(storage, keys.report(run), job="evaluate", settings=asked, inputs={})
    row = {"network": "mobilenetv2", "regime": regime, "metric": "balanced_accuracy", "value": right}
    report.write("report.json", json.dumps({"results": [row]}).encode())
    report.finish()


def settings(storage: Storage, run: str, dataset: str = "d1", **more: Any) -> promote.PromoteSettings:
    return promote.PromoteSettings(storage=storage.url, run=run, dataset=dataset, name="mri", **more)


def decide(storage: Storage, run: str, dataset: str = "d1", **more: Any) -> tuple[str, dict[str, Any]]:
    """Promote a run; return the champion's run and the last decision."""
    promote.run(settings(storage, run, dataset, **more))
    record = parse_record(storage.read(keys.champion("mri")), "mri")
    return record.champion.run, record.decisions[-1]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_the_first_run_becomes_champion_with_its_folds_models(storage: Storage) -> None:
    make_run(storage, "r1", 0.8)
    assert decide(storage, "r1")[0] == "r1"
    champion = read_champion(storage, "")
    assert champion.models == [keys.classifier("r1", fold, "mobilenetv2", "real", 0) for fold in range(FOLDS)]
    assert champion.settings == {"classifier_learning_rate": 0.001, "image_size": 32}


@pytest.mark.parametrize(("right", "champion"), [(0.85, "r2"), (0.79, "r2"), (0.70, "r1")])
def test_a_challenger_wins_unless_it_is_worse_beyond_the_margin(storage: Storage, right: float, champion: str) -> None:
    make_run(storage, "r1", 0.8)
    make_run(storage, "r2", right, rate=0.01)
    decide(storage, "r1")
    name, decision = decide(storage, "r2", promote_margin=0.02)
    assert name == champion
    assert decision["difference"] == pytest.approx(right - 0.8)
    assert decision["low"] <= decision["difference"] <= decision["high"]
    assert f"{right:.3f} against 0.800" in decision["reason"]


def test_small_steps_down_do_not_add_up(storage: Storage) -> None:
    for number, right in enumerate((0.80, 0.79, 0.78, 0.77)):
        make_run(storage, f"r{number}", right, rate=0.001 * (number + 1))
    champions = [decide(storage, f"r{number}", promote_margin=0.025)[0] for number in range(4)]
    assert champions == ["r0", "r1", "r2", "r2"]


def test_a_run_is_judged_once(storage: Storage) -> None:
    make_run(storage, "r1", 0.8)
    decide(storage, "r1")
    before = storage.read(keys.champion("mri"))
    decide(storage, "r1")
    assert storage.read(keys.champion("mri")) == before


def test_the_same_recipe_on_new_data_wins(storage: Storage) -> None:
    make_run(storage, "r1", 0.9)
    make_run(storage, "r2", 0.7, dataset="d2")
    decide(storage, "r1")
    assert decide(storage, "r2", "d2")[0] == "r2"


def test_the_same_recipe_with_another_seed_is_judged_by_its_own_figures(storage: Storage) -> None:
    make_run(storage, "r1", 0.9)
    make_run(storage, "r2", 0.6)
    decide(storage, "r1")
    name, decision = decide(storage, "r2")
    assert name == "r1"
    assert (decision["best"], decision["challenger"]) == (pytest.approx(0.9), pytest.approx(0.6))


def test_on_new_data_the_best_recipe_is_judged_there_too(storage: Storage) -> None:
    make_run(storage, "r1", 0.9)
    decide(storage, "r1")
    make_run(storage, "r2", 0.7, dataset="d2", rate=0.01)
    with pytest.raises(UserError, match="never trained on dataset d2: mrigan pipeline does so"):
        decide(storage, "r2", "d2")
    make_run(storage, "r3", 0.75, dataset="d2", rate=0.001)
    name, decision = decide(storage, "r2", "d2", rival_run="r3")
    assert name == "r1"
    assert decision["best"] == pytest.approx(0.75)


def test_of_two_promotions_at_once_one_has_to_judge_anew(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(storage, "r1", 0.7)
    decide(storage, "r1")
    for run in ("r2", "r3"):
        make_run(storage, run, 0.8, rate=0.01 if run == "r2" else 0.02)
    both_judged = threading.Barrier(2)
    judge = promote._judge

    def judge_together(*arguments: Any) -> dict[str, Any]:
        decision = judge(*arguments)
        both_judged.wait()
        return decision

    monkeypatch.setattr(promote, "_judge", judge_together)
    lost: list[MachineError] = []

    def challenge(run: str) -> None:
        try:
            promote.run(settings(storage, run))
        except MachineError as error:
            lost.append(error)

    threads = [threading.Thread(target=challenge, args=(run,)) for run in ("r2", "r3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 1 and "run promote again" in str(lost[0])
    assert len(parse_record(storage.read(keys.champion("mri")), "mri").decisions) == 2


def test_mistakes_are_named(storage: Storage) -> None:
    with pytest.raises(UserError, match="run r1 has no report"):
        decide(storage, "r1")
    with pytest.raises(UserError, match="no champion: run mrigan pipeline first"):
        read_champion(storage, "")
    make_run(storage, "r1", 0.8)
    with pytest.raises(UserError, match=r"fold-all.* is not finished"):
        decide(storage, "r1", final_model="refit")
    storage.write(keys.champion("mri"), b"{")
    with pytest.raises(MachineError, match=r"champions/mri\.json is damaged"):
        decide(storage, "r1")


def test_a_record_that_was_changed_is_not_believed(storage: Storage) -> None:
    make_run(storage, "r1", 0.8)
    decide(storage, "r1")
    whole = storage.read(keys.champion("mri"))
    storage.write(keys.champion("mri"), whole.replace(b"runs/r1/fold-1", b"runs/r0/fold-1"))
    with pytest.raises(MachineError, match=r"champions/mri\.json is damaged"):
        read_champion(storage, "mri")
    fields = json.loads(whole)
    del fields["digest"]
    for schema, read in ((1, True), (2, False)):
        storage.write(keys.champion("mri"), json.dumps(fields | {"schema": schema}).encode())
        if read:
            assert read_champion(storage, "mri").run == "r1"
        else:
            with pytest.raises(MachineError, match=r"champions/mri\.json is damaged"):
                read_champion(storage, "mri")
