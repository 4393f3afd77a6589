"""The types of the JSON files in storage, and the one function that checks what was read against its type.

A file may have more fields than its type. Fields that other code needs are required here.
"""

import functools
from typing import Annotated, Any, NotRequired

import pydantic
from typing_extensions import TypedDict

from jobs.common.errors import one_line


def _key(text: str) -> str:
    parts = text.split("/")
    if not text.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise ValueError("is no key of an object in storage")
    return text


def _part(text: str) -> str:
    if "/" in _key(text):
        raise ValueError("is no part of a key")
    return text


# No place outside of the storage can be reached with these.
Key = Annotated[str, pydantic.AfterValidator(_key)]
Part = Annotated[str, pydantic.AfterValidator(_part)]
Sha256 = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ImageSize = Annotated[int, pydantic.Field(ge=1, le=4096)]
Folds = Annotated[int, pydantic.Field(ge=2, le=1000)]
Json = dict[str, Any]
MORE = pydantic.ConfigDict(extra="allow", strict=True)


class Listing(TypedDict):
    """A folder of outputs in a manifest."""

    files: int
    digest: Sha256


class Manifest(TypedDict):
    """manifest.json of any job."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    job: str
    results_version: int
    settings: Json
    inputs: dict[str, str]
    outputs: dict[str, Sha256 | Listing]
    facts: Json
    seconds: NotRequired[float]
    arithmetic: NotRequired[Json]
    hardware: NotRequired[Json]
    versions: NotRequired[dict[str, str]]


class DatasetSettings(TypedDict):
    """Settings of preprocess."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    image_size: ImageSize
    folds: Folds


class DatasetFacts(TypedDict):
    """Facts of preprocess: images of each class, and why files were left out."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    labels: dict[str, int]
    images: NotRequired[int]
    quarantine: NotRequired[dict[str, int]]


class DatasetManifest(Manifest):
    """manifest.json of a dataset."""

    settings: DatasetSettings  # type: ignore[misc]
    facts: DatasetFacts  # type: ignore[misc]


class ReportSettings(TypedDict):
    """Settings of evaluate."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    seed: int
    seeds: Annotated[int, pydantic.Field(ge=1, le=10_000)]


class ReportFacts(TypedDict):
    """Facts of evaluate: the sentences at the top of the report."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    headline: NotRequired[list[str]]


class ReportManifest(Manifest):
    """manifest.json of a report."""

    settings: ReportSettings  # type: ignore[misc]
    facts: ReportFacts  # type: ignore[misc]


class TrainingFacts(TypedDict):
    """Facts of train-gan and train-classifier."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    training_seconds: NotRequired[float]
    pretraining_seconds: NotRequired[float]
    learned: NotRequired[float]
    selection: NotRequired[str]


class TrainingManifest(Manifest):
    """manifest.json of a generator or a classifier."""

    facts: TrainingFacts  # type: ignore[misc]


MANIFESTS: dict[str, Any] = {
    "preprocess": DatasetManifest,
    "inner-split": DatasetManifest,
    "evaluate": ReportManifest,
    "train-gan": TrainingManifest,
    "train-classifier": TrainingManifest,
}


class Generator(TypedDict):
    """The configuration in the metadata of generator.safetensors."""

    image_size: ImageSize
    width: Annotated[int, pydantic.Field(ge=1, le=4096)]
    latent: Annotated[int, pydantic.Field(ge=1, le=65536)]
    labels: Annotated[list[str], pydantic.Field(min_length=1)]
    anchors: Annotated[int, pydantic.Field(ge=0)]


class Classifier(TypedDict):
    """The architecture in the metadata of classifier.safetensors."""

    network: str
    labels: Annotated[list[str], pydantic.Field(min_length=1)]
    image_size: ImageSize


class Pointer(TypedDict):
    """checkpoint.json. Checkpoints of version 0.2 do not have `seconds`."""

    file: Annotated[str, pydantic.StringConstraints(pattern=r"^checkpoint-[0-9]+\.safetensors$")]
    sha256: Sha256
    asked: str
    arithmetic: Json
    seconds: NotRequired[float]


class Candidate(TypedDict):
    """The classifiers in a champion's record."""

    network: Part
    regime: Part
    labels: Annotated[list[str], pydantic.Field(min_length=2)]
    image_size: ImageSize
    dataset: Part
    run: Part
    folds: Folds
    seeds: Annotated[list[int], pydantic.Field(min_length=1)]


class Question(TypedDict):
    """What a decision answers; the challenger is run, network and regime."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    challenger: Annotated[list[str], pydantic.Field(min_length=3, max_length=3)]


class Decision(TypedDict):
    """A decision in a champion's record."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    question: Question
    won: bool
    reason: NotRequired[str]


class Record(TypedDict):
    """champions/NAME.json."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    champion: Candidate
    published: Json
    debt: float
    decisions: list[Decision]


class Task(TypedDict):
    """A task in a plan."""

    __pydantic_config__ = MORE  # type: ignore[misc]
    job: str
    item: str
    settings: Json
    place: Key
    needs: list[Key]


class Plan(TypedDict):
    """plans/ID.json."""

    dataset: Part
    run: Part
    name: Part
    settings: Json
    tasks: list[Task]


class Remembered(TypedDict):
    """sources/ID.json: of each file that was read, its size in bytes, its tag in storage and its SHA-256."""

    url: str
    files: dict[str, Annotated[list[int | str], pydantic.Field(min_length=3, max_length=3)]]


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def checked(kind: Any, value: Any) -> Any:
    """Return `value`, JSON values, if it has the type `kind`; raises ValueError with one line that names the field."""
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = one_line(".".join(str(part) for part in first["loc"]))
        text = first["msg"][:1].lower() + first["msg"][1:]
        raise ValueError(f"{where}: {text}" if where else text) from None


def manifest(fields: Json) -> Json:
    """Return `fields` if they are the content of a manifest.json; raises ValueError if they are not."""
    return checked(MANIFESTS.get(str(fields.get("job")), Manifest), fields)
