"""The record of a champion, champions/<name>.json, and the candidate that challenges it."""

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from jobs.common import keys, shapes
from jobs.common.errors import MachineError, UserError
from jobs.common.step import digest, manifest_digest, read_manifest, read_output, seal, unseal
from jobs.common.storage import MissingKey, Storage

log = logging.getLogger("mrigan.champion")

RECORD_SCHEMA = 3


class Candidate(NamedTuple):
    """A network and a regime, with the dataset, run, folds and seeds of its classifiers.

    `labels` are the classes in order, `image_size` is in pixels.
    """

    network: str
    regime: str
    labels: list[str]
    image_size: int
    dataset: str
    run: str
    folds: int
    seeds: list[int]

    @property
    def models(self) -> list[str]:
        """The prefixes of the classifiers of the ensemble, fold by fold."""
        return [self.model(fold, seed) for fold, seed in product(range(self.folds), self.seeds)]

    def model(self, fold: int, seed: int) -> str:
        """Return the prefix of the classifier for which `fold` was held out."""
        return keys.classifier(self.run, fold, self.network, self.regime, seed)


class Record(NamedTuple):
    """A champion's record.

    champion: the current champion;
    published: `selected` of the report of its run;
    debt: accumulated loss of balanced accuracy through accepted challengers, less later gains, at least 0;
    decisions: newest last.
    """

    champion: Candidate
    published: dict[str, Any]
    debt: float
    decisions: list[dict[str, Any]]


# ---- the record ----------------------------------------------------------------------------------------------------


def read_champion(storage: Storage, name: str) -> Candidate:
    """Return the champion called `name`, or the only one if `name` is empty.

    Raises UserError if there is none or, without a name, more than one.
    """
    if not name:
        names = [key.removeprefix("champions/").removesuffix(".json") for key in storage.list("champions")]
        if len(names) != 1:
            found = f"several champions: choose --name from {', '.join(names)}" if names else "no champion"
            raise UserError(f"{storage.url} has {found}{'' if names else ': run mrigan pipeline first'}")
        name = names[0]
    stored = stored_record(storage, name)
    if stored is None:
        raise UserError(f"{storage.url} has no champion {name}: run mrigan pipeline first")
    record = parse_record(stored, name)
    warn_of_chance(record, name)
    return record.champion


def warn_of_chance(record: Record, name: str) -> None:
    """Log a warning if the champion may be no better than chance on the held-out images of its run."""
    value, low = (record.published.get(figure) for figure in ("corrected", "low"))
    chance = 1 / len(record.champion.labels)
    if value is not None and low is not None and low <= chance:
        log.warning(
            "champion %s may be no better than chance: its balanced accuracy on held-out images is %.1f %%, with a "
            "95 %% interval from %.1f %%, and chance is %.1f %%",
            *(name, 100 * value, 100 * low, 100 * chance),
        )


def parse_record(data: bytes, name: str) -> Record:
    """Return a record from its JSON. Raises MachineError if it is damaged, UserError if it has an older schema."""
    key = keys.champion(name)
    try:
        # A record of schema 1 has no digest.
        fields = unseal(data, "schema", since=2)
        if fields["schema"] != RECORD_SCHEMA:
            raise UserError(
                f"{key} is from another version of mrigan: delete it, and the next promotion starts a new history"
            )
        fields = shapes.checked(shapes.Record, fields)
        return Record(Candidate(**fields["champion"]), fields["published"], fields["debt"], fields["decisions"])
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError(
            f"{key} is damaged ({error}): restore it, or delete it, and the next promotion starts a new history"
        ) from error


def stored_record(storage: Storage, name: str) -> bytes | None:
    """Return the record's bytes, which a conditional write expects; None before the first promotion."""
    try:
        return storage.read(keys.champion(name))
    except MissingKey:
        return None


def to_json(record: Record) -> bytes:
    """Return a record as JSON: `schema`, the fields of Record and `digest`."""
    return seal({"schema": RECORD_SCHEMA} | record._asdict() | {"champion": record.champion._asdict()})


def check_labels(storage: Storage, name: str, labels: Sequence[str]) -> None:
    """Raise UserError if the champion called `name` has other classes than `labels`, so that a run fails early."""
    stored = stored_record(storage, name)
    known = parse_record(stored, name).champion.labels if stored else list(labels)
    if known != list(labels):
        raise UserError(
            f"champion {name} has the classes {', '.join(known)}, this dataset has {', '.join(labels)}: "
            "use another --name for this dataset"
        )


# ---- the challenger ------------------------------------------------------------------------------------------------


class Challenge(NamedTuple):
    """A run's best classifier beside the record of the champion that it challenges.

    selected: `selected` of the run's report; question: what a decision answers, as JSON values;
    stored: the record's bytes, which a conditional write expects; record: None before the first promotion.
    """

    challenger: Candidate
    selected: dict[str, Any]
    question: dict[str, Any]
    stored: bytes | None
    record: Record | None

    @property
    def is_decided(self) -> bool:
        """Whether one of the decisions answers the question."""
        return self.record is not None and any(one["question"] == self.question for one in self.record.decisions)


def challenge(storage: Storage, dataset: str, run: str, name: str, rules: Mapping[str, Any]) -> Challenge:
    """Return the challenge of a run on `dataset` to the champion called `name`.

    `rules` are the settings of promote that change results, and the digest of the test images, if any. Raises UserError
    if the run has no report of this schema, a report on another dataset or a classifier that is missing; MachineError
    if the record is damaged.
    """
    manifest = read_manifest(storage, keys.report(run))
    if manifest is None:
        raise UserError(f"run {run} has no report: run mrigan evaluate first")
    report = json.loads(read_output(storage, keys.report(run), manifest, "report.json"))
    if "selected" not in report:
        raise UserError(f"the report of run {run} has an older schema: run mrigan evaluate again")
    data = finished(storage, keys.dataset(dataset))
    if manifest["inputs"].get("dataset") != manifest_digest(data):
        raise UserError(f"the report of run {run} is for another dataset than {dataset}: use that dataset")
    settings, selected = manifest["settings"], report["selected"]
    challenger = Candidate(
        network=selected["network"],
        regime=selected["regime"],
        labels=sorted(data["facts"]["labels"]),
        image_size=data["settings"]["image_size"],
        dataset=dataset,
        run=run,
        folds=data["settings"]["folds"],
        seeds=[settings["seed"] + number for number in range(settings["seeds"])],
    )
    question = {
        **rules,
        "challenger": [run, challenger.network, challenger.regime],
        "seeds": challenger.seeds,
        # The name of a run does not change if its classifiers are trained again.
        "classifiers": digest([manifest_digest(finished(storage, prefix)) for prefix in challenger.models]),
    }
    stored = stored_record(storage, name)
    record = parse_record(stored, name) if stored else None
    return Challenge(challenger, selected, json.loads(json.dumps(question)), stored, record)


def finished(storage: Storage, prefix: str) -> dict[str, Any]:
    """Return the manifest of a step. Raises UserError if the step is not finished."""
    manifest = read_manifest(storage, prefix)
    if manifest is None:
        raise UserError(
            f"{storage.url.rstrip('/')}/{prefix} is not finished: run the pipeline with these settings first"
        )
    return manifest
