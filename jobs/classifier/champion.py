"""The champion's record, champions/<name>.json, and what the models of a candidate say."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import read_manifest, read_output, seal, unseal
from jobs.common.storage import MissingKey, Storage

if TYPE_CHECKING:
    import numpy as np

    from jobs.classifier.predictions import Predictions

SCHEMA = 3


class Candidate(NamedTuple):
    """A network and a regime, and where they were carried out: dataset, run, folds and seeds.

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
        """The prefixes of the classifiers whose mean predicts, fold by fold."""
        return [self.model(fold, seed) for fold, seed in product(range(self.folds), self.seeds)]

    def model(self, fold: int, seed: int) -> str:
        """Return the prefix of the classifier that did not see the images of `fold`."""
        return keys.classifier(self.run, fold, self.network, self.regime, seed)


class Record(NamedTuple):
    """A champion's record.

    champion: who predicts;
    published: `selected` of the report of its run, None if it was promoted before reports had it;
    debt: balanced accuracy that accepted challengers lost and none has won back, at least 0;
    decisions: newest last.
    """

    champion: Candidate
    published: dict[str, Any] | None
    debt: float
    decisions: list[dict[str, Any]]

    def answered(self, question: dict[str, Any]) -> bool:
        """Return whether one of the decisions answers `question`."""
        return any(decision["question"] == question for decision in self.decisions)


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
    return parse_record(stored, name).champion


def parse_record(data: bytes, name: str) -> Record:
    """Return a record from its JSON. Raises MachineError if it is damaged."""
    try:
        # A record of schema 1 has no digest; the next promotion gives it one.
        fields = unseal(data, "schema", since=2)
        champion = dict(fields["champion"])
        if fields["schema"] < 3:
            champion["image_size"] = champion.pop("settings")["image_size"]
            del champion["models"]
            fields |= {"published": None, "debt": 0.0}
        return Record(Candidate(**champion), fields["published"], float(fields["debt"]), list(fields["decisions"]))
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
    """Return a record as JSON: `schema`, the fields of Record and `digest`."""
    return seal({"schema": SCHEMA} | record._asdict() | {"champion": record.champion._asdict()})


# ---- what a candidate says -----------------------------------------------------------------------------------------


def out_of_fold(storage: Storage, candidate: Candidate, seed: int) -> "Predictions":
    """Return a candidate's predictions on all held-out images of its dataset, the folds pooled.

    Raises UserError if some are not there.
    """
    from jobs.classifier.predictions import join_predictions, read_predictions

    parts = []
    for fold in range(candidate.folds):
        prefix = candidate.model(fold, seed)
        manifest = finished(storage, prefix)
        parts.append(read_predictions(read_output(storage, prefix, manifest, "predictions.csv")))
    return join_predictions(parts)


def finished(storage: Storage, prefix: str) -> dict[str, Any]:
    """Return the manifest of a step. Raises UserError if the step is not finished."""
    manifest = read_manifest(storage, prefix)
    if manifest is None:
        raise UserError(
            f"{storage.url.rstrip('/')}/{prefix} is not finished: run the pipeline with these settings first"
        )
    return manifest


def predict(storage: Storage, candidate: Candidate, images: "np.ndarray") -> "np.ndarray":
    """Return the mean of what a candidate's models say: float64 [n, classes] of uint8 [n, image_size, image_size].

    Raises MachineError if a model is gone or damaged.
    """
    everywhere = [range(candidate.folds)] * len(images)
    several = [predict_by_folds(storage, candidate, seed, images, everywhere) for seed in candidate.seeds]
    return sum(several[1:], several[0]) / len(several)


def predict_by_folds(
    storage: Storage, candidate: Candidate, seed: int, images: "np.ndarray", folds: "Sequence[Sequence[int]]"
) -> "np.ndarray":
    """Return for each image the mean of what the models of its `folds`, one or more, say.

    images: uint8 [n, image_size, image_size]. Returns float64 [n, classes]. Raises MachineError if a model is gone or
    damaged.
    """
    import numpy as np

    from jobs.classifier import networks

    total = np.zeros((len(images), len(candidate.labels)))
    for fold in range(candidate.folds):
        asked = np.flatnonzero([fold in several for several in folds])
        if not len(asked):
            continue
        prefix = candidate.model(fold, seed)
        manifest = read_manifest(storage, prefix)
        if manifest is None:
            raise MachineError(f"the model {prefix} is gone: run mrigan pipeline again")
        model, _ = networks.load_classifier(read_output(storage, prefix, manifest, "classifier.safetensors"))
        total[asked] += networks.predict(model, images[asked])
    return total / np.array([len(several) for several in folds])[:, None]
