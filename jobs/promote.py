"""Report and champion -> the champion stays or changes.

The network and regime that the run's report selected challenge the champion. Both are judged on the images of the
challenger's dataset by predictions that are fair for each (jobs.classifier.fair), or with --test on a folder that
neither has seen. The challenger wins unless it is worse by more than the margin. Losses that were accepted add up until
a gain makes them good, and it is their sum that must stay within the margin. champions/<name>.json holds the champion,
the figure it was published with, that sum, and every decision with its reason.
"""

import datetime
import json
import logging
from collections.abc import Sequence
from typing import Any

from jobs.classifier.champion import Candidate, Record, finished, parse_record, stored_record, to_json
from jobs.common import activity, keys
from jobs.common.errors import MachineError, UserError
from jobs.common.settings import NAME, ExecutionSettings, ReadingSettings, StorageSettings, setting
from jobs.common.step import digest, manifest_digest, read_manifest, read_output
from jobs.common.storage import Storage, open_storage

log = logging.getLogger("mrigan.promote")

METRIC = "balanced_accuracy"
RESAMPLES = 2000
DIGITS = 9  # of sums that are compared with the margin: 0.01 and 0.02 are 0.03
LISTED_SINCE = 5  # the results version from which a dataset lists its images

Json = dict[str, Any]


class PromotionSettings(ReadingSettings):
    """The rules of promotion."""

    promote_margin: float = setting(0.02, "balanced accuracy up to which accepted losses may add up", ge=0, le=1)
    test: str = setting("", "folder of class folders to judge on, instead of the held-out folds", result=False)


class PromoteSettings(PromotionSettings, StorageSettings, ExecutionSettings):
    """What promote can be told."""

    dataset: str = setting(..., "dataset's id", result=False, pattern=NAME)
    run: str = setting(..., "run whose best classifier is the challenger", result=False, pattern=NAME)
    name: str = setting(..., "dataset's name: the record is champions/NAME.json", result=False, pattern=NAME)
    seed: int = setting(0, "seed of the interval's resamples", ge=0)


def run(settings: PromoteSettings) -> None:
    """Decide, store the decision with its reason, and say it.

    A decision that was made before is not made again. Raises UserError if there is nothing to judge by, MachineError
    if another promotion wrote the record meanwhile (then the same command judges anew).
    """
    storage = open_storage(settings.storage)
    challenger, selected = find_challenger(storage, settings.dataset, settings.run)
    stored = stored_record(storage, settings.name)
    record = parse_record(stored, settings.name) if stored else None
    question = _question(storage, settings, challenger)
    if record and record.answered(question):
        log.info("champion %s: this run was judged before, nothing changes", settings.name)
        activity.note(storage, settings.name, "succeeded")
        return
    check(storage, settings.name, challenger.labels, settings.test)
    decision: Json = {
        "question": question,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if record is None:
        reason = f"{_called(challenger)} is the first champion"
        decision |= {"won": True, "difference": 0.0, "debt": 0.0, "reason": reason}
        record = Record(challenger, selected, 0.0, [])
    else:
        decision |= _judge(storage, settings, challenger, record)
    if decision["won"]:
        record = record._replace(champion=challenger, published=selected, debt=decision["debt"])
    record = record._replace(decisions=[*record.decisions, decision])
    if not storage.write_if(keys.champion(settings.name), to_json(record), stored):
        raise MachineError(f"another promotion changed champion {settings.name} meanwhile: run promote again")
    log.info("champion %s: %s", settings.name, decision["reason"])
    activity.note(storage, settings.name, "succeeded")


def judged(settings: PromoteSettings) -> bool:
    """Return whether this very promotion was decided before. Raises UserError if the run has no report."""
    storage = open_storage(settings.storage)
    stored = stored_record(storage, settings.name)
    if stored is None:
        return False
    challenger, _ = find_challenger(storage, settings.dataset, settings.run)
    return parse_record(stored, settings.name).answered(_question(storage, settings, challenger))


def find_challenger(storage: Storage, dataset: str, run: str) -> tuple[Candidate, Json]:
    """Return the network and regime that a run's report selected, and what it says of them.

    Raises UserError if the run has no report of this form, or not one on this dataset.
    """
    manifest = read_manifest(storage, keys.report(run))
    if manifest is None:
        raise UserError(f"run {run} has no report: run mrigan evaluate first")
    report = json.loads(read_output(storage, keys.report(run), manifest, "report.json"))
    if "selected" not in report:
        raise UserError(f"the report of run {run} is of an older form: run mrigan evaluate again")
    data = finished(storage, keys.dataset(dataset))
    if manifest["inputs"].get("dataset") != manifest_digest(data):
        raise UserError(f"the report of run {run} is about another dataset than {dataset}: name that one")
    asked, selected = manifest["settings"], report["selected"]
    challenger = Candidate(
        network=selected["network"],
        regime=selected["regime"],
        labels=sorted(data["facts"]["labels"]),
        image_size=data["settings"]["image_size"],
        dataset=dataset,
        run=run,
        folds=data["settings"]["folds"],
        seeds=[asked["seed"] + number for number in range(asked["seeds"])],
    )
    return challenger, selected


def check(storage: Storage, name: str, labels: Sequence[str], test: str) -> None:
    """Raise UserError if promoting a classifier of `labels` is bound to fail: better known before training."""
    stored = stored_record(storage, name)
    known = parse_record(stored, name).champion.labels if stored else list(labels)
    if known != list(labels):
        raise UserError(
            f"champion {name} tells {', '.join(known)} apart, this dataset {', '.join(labels)}: "
            "give this dataset another --name"
        )
    if test:
        from jobs.mri.testset import read_test_set

        read_test_set(test, labels)


def _question(storage: Storage, settings: PromoteSettings, challenger: Candidate) -> Json:
    """Return what a decision answers: asked again, it is not decided again."""
    question = settings.result() | {
        "challenger": [challenger.run, challenger.network, challenger.regime],
        "seeds": challenger.seeds,
        # A run's name does not tell that its classifiers were trained anew.
        "classifiers": digest([manifest_digest(finished(storage, prefix)) for prefix in challenger.models]),
    }
    if settings.test:
        from jobs.mri.testset import fingerprint

        question["test"] = fingerprint(settings.test)
    return json.loads(json.dumps(question))


def _judge(storage: Storage, settings: PromoteSettings, challenger: Candidate, record: Record) -> Json:
    """Return the decision: won or not, why, and the figures behind it."""
    from jobs.classifier import fair, metrics
    from jobs.common.hardware import configure

    champion = record.champion
    _check_champion(storage, settings.name, champion)
    if settings.test:
        from jobs.mri.testset import read_test_set

        test = read_test_set(settings.test, challenger.labels, settings.volume)
        sides = fair.on_test_set(storage, challenger, champion, test, lambda: configure(settings))
    else:
        sides = fair.on_dataset(storage, challenger, champion, lambda: configure(settings))
    difference, low, high = metrics.compare(sides.challenger, sides.champion, METRIC, RESAMPLES, settings.seed)
    scores = [
        sum(metrics.score(one, METRIC) for one in several) / len(several)
        for several in (sides.challenger, sides.champion)
    ]
    owed = round(record.debt - difference, DIGITS)
    won = owed <= settings.promote_margin
    reason = (
        f"{_called(challenger)} of run {challenger.run} {'wins' if won else 'loses'}: balanced accuracy "
        f"{scores[0]:.3f} against {scores[1]:.3f} of the champion, {_called(champion)} of run {champion.run}, on "
        f"{_where(sides.images, settings.test, challenger, champion)}; difference {difference:+.3f} "
        f"[{low:+.3f}, {high:+.3f}]; accepted losses before: {record.debt:.3f}, with this: {max(0.0, owed):.3f}, "
        f"allowed: {settings.promote_margin}"
    )
    return {
        "won": won,
        "reason": reason,
        "difference": difference,
        "low": low,
        "high": high,
        "challenger": scores[0],
        "champion": scores[1],
        "debt": max(0.0, owed) if won else record.debt,
        "images": sides.images,
    }


def _check_champion(storage: Storage, name: str, champion: Candidate) -> None:
    """Raise UserError if what the champion was trained on, or its models, are no longer there to be compared with."""
    remedy = (
        f"restore it from a backup, or delete {keys.champion(name)}: the next promotion then begins a new history "
        "without a comparison"
    )
    data = read_manifest(storage, keys.dataset(champion.dataset))
    if data is None:
        raise UserError(f"dataset {champion.dataset} of champion {name} is gone from storage: {remedy}")
    if data["results_version"] < LISTED_SINCE:
        raise UserError(
            f"dataset {champion.dataset} of champion {name} was prepared by an older mrigan (results version "
            f"{data['results_version']}), and its images can no longer be read: {remedy.partition(', or ')[2]}"
        )
    for prefix in champion.models:
        if read_manifest(storage, prefix) is None:
            raise UserError(f"{prefix} of champion {name} is gone from storage: {remedy}")


def _called(candidate: Candidate) -> str:
    return f"{candidate.network} {candidate.regime}"


def _where(images: dict[str, int], test: str, challenger: Candidate, champion: Candidate) -> str:
    """Return in words on how many images two candidates were compared, and whose predictions the champion's are."""
    if test:
        return f"{images['compared']} test images ({images['left_out']} left out as near-duplicates of training images)"
    kinds = {
        "own_out_of_fold": "its own out of fold",
        "fold_models": "of the models of one fold",
        "ensemble": "of its ensemble",
    }
    words = ", ".join(f"{images[kind]} {text}" for kind, text in kinds.items() if images[kind])
    if images["compared"] > images["own_out_of_fold"] and champion.image_size != challenger.image_size:
        words += f", for which images were resized from {challenger.image_size} to {champion.image_size} pixels"
    if images["left_out"]:
        words += f"; {images['left_out']} images left out, for which it has no fair model"
    return f"{images['compared']} images of dataset {challenger.dataset} (the champion's predictions: {words})"
