"""The champion's record, champions/<name>.json: who predicts, the best there ever was, and every decision."""

from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import read_manifest, read_output, seal, unseal
from jobs.common.storage import MissingKey, Storage

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 2


class Candidate(NamedTuple):
    """A recipe (network, regime, settings), where it was carried out (dataset, run, folds, seeds), and its models.

    `labels` are the classes in order; `models` the prefixes of the classifiers whose mean predicts.
    """

    network: str
    regime: str
    settings: dict[str, Any]
    labels: list[str]
    dataset: str
    run: str
    folds: int
    seeds: list[int]
    models: list[str]

    @property
    def recipe(self) -> tuple[str, str, dict[str, Any]]:
        """What makes two candidates alike, on whatever data."""
        return self.network, self.regime, self.settings


class Record(NamedTuple):
    """A champion's record: who predicts, the best there ever was, and the decisions, newest last."""

    champion: Candidate
    best: Candidate
    decisions: list[dict[str, Any]]

    def answered(self, question: dict[str, Any]) -> bool:
        """Return whether one of the decisions answers `question`."""
        return any(decision["question"] == question for decision in self.decisions)


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
    return parse_record(stored, name).champion


def parse_record(data: bytes, name: str) -> Record:
    """Return a record from its JSON. Raises MachineError if it is damaged."""
    try:
        # A record of schema 1 has no digest; the next promotion gives it one.
        fields = unseal(data, "schema", since=2)
        return Record(Candidate(**fields["champion"]), Candidate(**fields["best"]), list(fields["decisions"]))
    except (ValueError, KeyError, TypeError) as error:
        key = keys.champion(name)
        raise MachineError(
            f"{key} is damaged: restore it, or delete it, and the next promotion begins a new history"
        ) from error


def stored_record(storage: Storage, name: str) -> bytes | None:
    """Return the record's bytes, which a conditional write expects; None before the first promotion."""
    try:
        return storage.read(keys.champion(name))
    except MissingKey:
        return None


def to_json(record: Record) -> bytes:
    """Return a record as JSON: `schema`, `champion`, `best` (the fields of Candidate), `decisions` and `digest`."""
    fields = {
        "schema": SCHEMA,
        "champion": record.champion._asdict(),
        "best": record.best._asdict(),
        "decisions": record.decisions,
    }
    return seal(fields)


def predict(storage: Storage, candidate: Candidate, images: "np.ndarray") -> "np.ndarray":
    """Return the mean of what a candidate's models say: float64 [n, classes] of uint8 [n, image_size, image_size].

    Raises MachineError if a model is gone or damaged.
    """
    from jobs.classifier import networks

    probabilities = []
    for prefix in candidate.models:
        manifest = read_manifest(storage, prefix)
        if manifest is None:
            raise MachineError(f"the model {prefix} is gone: run mrigan pipeline again")
        model, _ = networks.load_classifier(read_output(storage, prefix, manifest, "classifier.safetensors"))
        probabilities.append(networks.predict(model, images))
    return sum(probabilities[1:], probabilities[0]) / len(probabilities)
