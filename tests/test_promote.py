"""Who becomes champion, by predictions that are stored."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from jobs import promote
from jobs.classifier.champion import read_champion, to_json
from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import seal
from jobs.common.storage import Storage, open_storage
from tests import fake_run
from tests.made_runs import FEW, FOLDS, LABELS, decide, head, image, make_dataset, make_run, record, settings

MANY = [image(number) for number in range(200)]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = open_storage(str(tmp_path / "storage"))
    make_dataset(made, "d1", MANY)
    return made


def test_the_first_run_becomes_champion_with_its_folds_models(storage: Storage) -> None:
    make_run(storage, "r1", MANY, 0.8, seeds=2)
    assert decide(storage, "r1")[0] == "r1"
    champion = read_champion(storage, "")
    expected = [keys.classifier("r1", fold, "mobilenetv2", "real", seed) for fold in range(FOLDS) for seed in (0, 1)]
    assert champion.models == expected
    assert (champion.image_size, champion.labels) == (64, LABELS)
    assert record(storage).published == {"network": "mobilenetv2", "regime": "real", "value": 0.8, "corrected": 0.78}


@pytest.mark.parametrize(("low", "warned"), [(0.5, True), (0.51, False)])
def test_a_champion_at_chance_is_told_when_it_is_used(
    storage: Storage, low: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(storage, "r1", MANY, 0.8)
    decide(storage, "r1")
    known = record(storage)
    storage.write(keys.champion("mri"), to_json(known._replace(published=known.published | {"low": low})))
    read_champion(storage, "")
    assert ("champion mri may be no better than chance" in caplog.text) == warned


@pytest.mark.parametrize(("right", "champion"), [(0.85, "r2"), (0.79, "r2"), (0.78, "r2"), (0.70, "r1")])
def test_a_challenger_wins_unless_it_is_worse_beyond_the_margin(storage: Storage, right: float, champion: str) -> None:
    make_run(storage, "r1", MANY, 0.8)
    make_run(storage, "r2", MANY, right)
    decide(storage, "r1")
    name, decision = decide(storage, "r2", promote_margin=0.02)
    assert name == champion
    assert decision["difference"] == pytest.approx(right - 0.8)
    assert decision["low"] <= decision["difference"] <= decision["high"]
    assert (decision["challenger"], decision["champion"]) == (pytest.approx(right), pytest.approx(0.8))
    assert f"{right:.3f} against 0.800" in decision["reason"]
    assert "on 200 images of dataset d1 (the champion's predictions: 200 its own out of fold)" in decision["reason"]
    assert decision["images"] == {
        "compared": 200, "own_out_of_fold": 200, "fold_models": 0, "ensemble": 0, "left_out": 0
    }  # fmt: skip


def test_small_losses_add_up_to_a_refusal(storage: Storage) -> None:
    for number, right in enumerate((0.80, 0.79, 0.78, 0.77)):
        make_run(storage, f"r{number}", MANY, right)
    champions = [decide(storage, f"r{number}", promote_margin=0.025)[0] for number in range(4)]
    assert champions == ["r0", "r1", "r2", "r2"]
    assert record(storage).debt == pytest.approx(0.02)
    assert "accepted losses before: 0.020, with this: 0.030, allowed: 0.025" in record(storage).decisions[-1]["reason"]


@pytest.mark.parametrize(
    ("gain", "last", "champion", "debt"),
    [(0.80, 0.78, "r3", 0.02), (0.785, 0.775, "r2", 0.015), (0.9, 0.78, "r2", 0.0)],
)
def test_a_gain_makes_losses_good_and_no_more(
    storage: Storage, gain: float, last: float, champion: str, debt: float
) -> None:
    """What lies beyond the loss before is no credit for a later one."""
    for number, right in enumerate((0.80, 0.78, gain, last)):
        make_run(storage, f"r{number}", MANY, right)
    champions = [decide(storage, f"r{number}", promote_margin=0.02)[0] for number in range(4)]
    assert champions == ["r0", "r1", "r2", champion]
    assert record(storage).debt == pytest.approx(debt)


def test_the_same_recipe_trained_anew_is_compared_too(storage: Storage) -> None:
    make_dataset(storage, "d2", [image(number, fold=number // 4 % FOLDS) for number in range(200)])
    make_run(storage, "r1", MANY, 0.9)
    make_run(storage, "r2", [image(number, fold=number // 4 % FOLDS) for number in range(200)], 0.7, dataset="d2")
    decide(storage, "r1")
    name, decision = decide(storage, "r2", "d2")
    assert name == "r1" and not decision["won"]
    assert decision["images"]["own_out_of_fold"] == 200
    assert (decision["champion"], decision["challenger"]) == (pytest.approx(0.9), pytest.approx(0.7))


def test_a_run_is_judged_once(storage: Storage) -> None:
    make_run(storage, "r1", MANY, 0.8)
    decide(storage, "r1")
    before = storage.read(keys.champion("mri"))
    decide(storage, "r1")
    assert storage.read(keys.champion("mri")) == before
    assert len(record(storage).decisions) == 1


def test_of_two_promotions_at_once_one_has_to_judge_anew(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(storage, "r1", MANY, 0.7)
    decide(storage, "r1")
    for run in ("r2", "r3"):
        make_run(storage, run, MANY, 0.8)
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
    assert len(record(storage).decisions) == 2


def test_mistakes_are_named(storage: Storage) -> None:
    with pytest.raises(UserError, match="run r1 has no report"):
        decide(storage, "r1")
    with pytest.raises(UserError, match="no champion: run mrigan pipeline first"):
        read_champion(storage, "")
    make_run(storage, "r1", MANY, 0.8)
    make_dataset(storage, "d2", FEW)
    with pytest.raises(UserError, match="the report of run r1 is for another dataset than d2"):
        decide(storage, "r1", "d2")
    fake_run.replace_output(storage, keys.report("r1"), "report.json", b"{}")
    with pytest.raises(UserError, match="report of run r1 has an older schema: run mrigan evaluate again"):
        decide(storage, "r1")
    make_run(storage, "r1", MANY, 0.8)
    storage.delete(f"{keys.classifier('r1', 1, 'mobilenetv2', 'real', 0)}/manifest.json")
    with pytest.raises(UserError, match=r"fold-1.* is not finished"):
        decide(storage, "r1")
    make_run(storage, "r1", MANY, 0.8)
    storage.write(keys.champion("mri"), b"{")
    with pytest.raises(MachineError, match=r"champions/mri\.json is damaged"):
        decide(storage, "r1")


def test_a_champion_that_cannot_be_compared_with_is_named_with_a_way_out(storage: Storage) -> None:
    make_dataset(storage, "d2", FEW, [head(number) for number in range(8)])
    make_run(storage, "r1", MANY, 0.8)
    make_run(storage, "r2", FEW, 0.8, dataset="d2")
    decide(storage, "r1")
    model = keys.classifier("r1", 1, "mobilenetv2", "real", 0)
    manifests = {name: storage.read(f"{name}/manifest.json") for name in (model, keys.dataset("d1"))}
    new_history = r"delete champions/mri\.json: the next promotion then starts a new history"
    storage.delete(f"{model}/manifest.json")
    with pytest.raises(UserError, match=f"{model} of champion mri is missing in storage: restore .* or {new_history}"):
        decide(storage, "r2", "d2")
    storage.write(f"{model}/manifest.json", manifests[model])
    storage.delete(f"{keys.dataset('d1')}/manifest.json")
    with pytest.raises(
        UserError, match=f"dataset d1 of champion mri is missing in storage: restore .* or {new_history}"
    ):
        decide(storage, "r2", "d2")
    storage.write(f"{keys.dataset('d1')}/manifest.json", manifests[keys.dataset("d1")])
    fake_run.replace_manifest(storage, keys.dataset("d1"), results_version=4)
    with pytest.raises(UserError, match=f"prepared by an older mrigan .results version 4.*: {new_history}"):
        decide(storage, "r2", "d2")


def test_a_record_that_was_changed_is_not_believed(storage: Storage) -> None:
    make_run(storage, "r1", MANY, 0.8)
    decide(storage, "r1")
    whole = storage.read(keys.champion("mri"))
    storage.write(keys.champion("mri"), whole.replace(b'"run": "r1"', b'"run": "r0"'))
    with pytest.raises(MachineError, match=r"champions/mri\.json is damaged"):
        read_champion(storage, "mri")


def test_a_record_of_another_form_is_named(storage: Storage) -> None:
    make_run(storage, "r1", MANY, 0.8)
    for fields in ({"schema": 1}, {"schema": 2}):
        data = seal(fields) if fields["schema"] > 1 else json.dumps(fields).encode()
        storage.write(keys.champion("mri"), data)
        with pytest.raises(UserError, match=r"champions/mri\.json is from another version of mrigan: delete it"):
            decide(storage, "r1")
    storage.write(keys.champion("mri"), json.dumps({"schema": 2}).encode())
    with pytest.raises(MachineError, match=r"champions/mri\.json is damaged"):
        read_champion(storage, "mri")
