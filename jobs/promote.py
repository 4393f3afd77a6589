"""Decide whether a run's best classifier replaces the champion.

The challenger is the network and regime that the run's report selected. Challenger and champion are compared on the
images of the challenger's dataset, with predictions that are fair for both (jobs.classifier.fair), or with --test on a
folder of images that neither was trained on. The challenger wins unless it is worse by more than the margin. Accepted
losses are added up, and later gains are subtracted: the sum must stay within the margin. champions/<name>.json contains
the champion, its published metric, this sum, and every decision with its reason.
"""

import datetime
import logging
from typing import Any

import numpy as np

from jobs.classifier import fair, metrics
from jobs.classifier.champion import Candidate, Record, challenge, check_labels, to_json, warn_of_chance
from jobs.classifier.selection import METRIC
from jobs.common import activity, keys
from jobs.common.errors import MachineError, UserError
from jobs.common.hardware import configure
from jobs.common.step import read_manifest
from jobs.common.storage import Storage, open_storage
from jobs.mri import overlap, testset
from jobs.mri.dataset import open_dataset
from jobs.settings import PromoteSettings

log = logging.getLogger("mrigan.promote")

RESAMPLES = 2000
DIGITS = 9  # decimals of sums that are compared with the margin, so that 0.01 + 0.02 equals 0.03
LISTED_SINCE = 5  # the results version from which a dataset lists its images

Json = dict[str, Any]


def run(settings: PromoteSettings) -> None:
    """Decide, store the decision with its reason, and log it.

    An existing decision is not repeated. Raises UserError if the inputs of the decision are missing, MachineError if
    another promotion changed the record at the same time (run the command again).
    """
    storage = open_storage(settings.storage)
    rules = settings.result() | testset.identity(settings.test, settings.follow_links)
    asked = challenge(storage, settings.dataset, settings.run, settings.name, rules)
    challenger, record = asked.challenger, asked.record
    if asked.is_decided:
        log.info("champion %s: there is already a decision about this run: nothing to do", settings.name)
        activity.note(storage, settings.name, "succeeded")
        return
    check_labels(storage, settings.name, challenger.labels)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    decision: Json = {"question": asked.question, "time": now}
    if record is None:
        reason = f"{_called(challenger)} is the first champion"
        decision |= {"won": True, "difference": 0.0, "debt": 0.0, "reason": reason}
        record = Record(challenger, asked.selected, 0.0, [])
    else:
        decision |= _judge(storage, settings, challenger, record)
    if decision["won"]:
        record = record._replace(champion=challenger, published=asked.selected, debt=decision["debt"])
    record = record._replace(decisions=[*record.decisions, decision])
    if not storage.write_if(keys.champion(settings.name), to_json(record), asked.stored):
        raise MachineError(f"another promotion changed champion {settings.name} at the same time: run promote again")
    log.info("champion %s: %s", settings.name, decision["reason"])
    warn_of_chance(record, settings.name)
    activity.note(storage, settings.name, "succeeded")


def _judge(storage: Storage, settings: PromoteSettings, challenger: Candidate, record: Record) -> Json:
    """Return the decision: the outcome, the reason, and the underlying metrics."""
    champion = record.champion
    _check_champion(storage, settings.name, champion)
    compare = _on_test_set if settings.test else _on_dataset
    mine, theirs, images = compare(storage, settings, challenger, champion)
    difference, low, high = metrics.paired_difference(mine, theirs, METRIC, RESAMPLES, settings.seed)
    scores = [sum(metrics.score(one, METRIC) for one in several) / len(several) for several in (mine, theirs)]
    owed = round(record.debt - difference, DIGITS)
    won = owed <= settings.promote_margin
    reason = (
        f"{_called(challenger)} of run {challenger.run} {'wins' if won else 'loses'}: balanced accuracy "
        f"{scores[0]:.3f} against {scores[1]:.3f} of the champion, {_called(champion)} of run {champion.run}, on "
        f"{_where(images, settings.test, challenger, champion)}; difference {difference:+.3f} "
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
        "images": images,
    }


def _on_dataset(
    storage: Storage, settings: PromoteSettings, challenger: Candidate, champion: Candidate
) -> fair.Comparison:
    dataset = open_dataset(storage, challenger.dataset)
    rows = {row.id: row for row in dataset.rows}

    def pixels(ids: list[str]) -> np.ndarray:
        configure(settings)
        return overlap.resized(dataset.pixels([rows[id] for id in ids]), champion.image_size)

    kin = overlap.folds_of_kin(dataset, open_dataset(storage, champion.dataset))
    return fair.on_dataset(storage, challenger, champion, kin, pixels)


def _on_test_set(
    storage: Storage, settings: PromoteSettings, challenger: Candidate, champion: Candidate
) -> fair.Comparison:
    reading = settings.volume, settings.slice_step, settings.follow_links
    test = testset.read_test_set(settings.test, challenger.labels, *reading)
    datasets = [open_dataset(storage, id) for id in sorted({challenger.dataset, champion.dataset})]
    left = testset.unseen(test, datasets)
    configure(settings)
    left_out = len(test.sources) - len(left.sources)
    return fair.on_test_set(storage, challenger, champion, left.sources, left.labels, left.pixels, left_out)


def _check_champion(storage: Storage, name: str, champion: Candidate) -> None:
    """Raise UserError if the champion's dataset or models no longer exist, so that no comparison is possible."""
    remedy = (
        f"restore it from a backup, or delete {keys.champion(name)}: the next promotion then starts a new history "
        "without a comparison"
    )
    data = read_manifest(storage, keys.dataset(champion.dataset))
    if data is None:
        raise UserError(f"dataset {champion.dataset} of champion {name} is missing in storage: {remedy}")
    if data["results_version"] < LISTED_SINCE:
        raise UserError(
            f"dataset {champion.dataset} of champion {name} was prepared by an older mrigan (results version "
            f"{data['results_version']}), and its images can no longer be read: {remedy.partition(', or ')[2]}"
        )
    for prefix in champion.models:
        if read_manifest(storage, prefix) is None:
            raise UserError(f"{prefix} of champion {name} is missing in storage: {remedy}")


def _called(candidate: Candidate) -> str:
    return f"{candidate.network} {candidate.regime}"


def _where(images: dict[str, int], test: str, challenger: Candidate, champion: Candidate) -> str:
    """Return a text: how many images were compared, and which models made the champion's predictions."""
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
