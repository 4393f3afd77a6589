"""Any JSON value in a stored file is accepted as one of its type, or is an error of one line."""

import inspect
import json
import types
from collections.abc import Callable
from typing import Annotated, Any, NotRequired, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict, is_typeddict

from jobs import plan
from jobs.classifier import champion
from jobs.common import activity, keys, shapes
from jobs.common.errors import MachineError, UserError
from jobs.common.step import digest, read_manifest, seal, unseal
from jobs.common.storage import Storage, Version, open_storage
from jobs.mri import sources
from tests.mri.heads import examples

TYPES = [found for _, found in inspect.getmembers(shapes, is_typeddict)]
# A JSON file may hold any text, even half of a pair of surrogates.
WORDS = st.sampled_from(["", "a", "../a", "a/b", "a\nb", "\x00", "\ud800", "checkpoint-1.safetensors", 64 * "0"])
NUMBERS = st.sampled_from([-1, 0, 1, 2, 32, 10**30, 0.5, 1e308])
TEXT = WORDS | st.text('a\u2028é\x7f"', max_size=2)
ATOMS = st.none() | st.booleans() | NUMBERS | TEXT
JSON = ATOMS | st.lists(ATOMS, max_size=2) | st.dictionaries(TEXT, ATOMS | st.lists(ATOMS, max_size=1), max_size=2)


def alike(kind: Any) -> st.SearchStrategy[Any]:
    """Return JSON values that look like those of the type `kind`; one in a few is another one."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Annotated, NotRequired):
        return alike(inner[0])
    if is_typeddict(kind):
        fields = {name: alike(one) for name, one in get_type_hints(kind, include_extras=True).items()}
        fields.pop("__pydantic_config__", None)
        if "job" in fields:
            fields["job"] = st.sampled_from([*shapes.MANIFESTS, "x"]) | JSON
        return st.fixed_dictionaries(fields) | JSON
    if origin is types.UnionType:
        return st.one_of(map(alike, inner))
    if origin is list:
        return st.lists(alike(inner[0]), min_size=1, max_size=3) | JSON
    if origin is dict and inner[1] is not Any:
        return st.dictionaries(TEXT, alike(inner[1]), max_size=3) | JSON
    return {str: TEXT, int: NUMBERS, float: NUMBERS, bool: st.booleans()}.get(kind, JSON) | JSON


def ends(read: Callable[[], object]) -> None:
    """Assert that `read` ends, or raises the error of a damaged file in one line."""
    try:
        read()
    except (MachineError, UserError, ValueError, TypeError) as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_any_value_is_accepted_or_named_in_one_line(kind: Any) -> None:
    @examples(60)
    @given(alike(kind))
    def check(value: Any) -> None:
        try:
            assert shapes.checked(kind, value) == value
        except ValueError as error:
            assert str(error).isprintable()

    check()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return open_storage(str(tmp_path_factory.mktemp("storage")))


HEADS = digest("heads")[:12]  # names the record of what was read


class Activity(TypedDict):
    """Times at which runs began and succeeded."""

    began: NotRequired[str]
    succeeded: NotRequired[str]


# What reads a file of storage, by the key of the file, and what the file looks like.
READS: dict[str, tuple[Any, Callable[[Storage], object]]] = {
    "place/manifest.json": (shapes.Manifest, lambda storage: read_manifest(storage, "place")),
    keys.champion("mri"): (
        shapes.Record,
        lambda storage: champion.parse_record(storage.read(keys.champion("mri")), "mri"),
    ),
    keys.plan("0"): (shapes.Plan, lambda storage: plan.read(storage, "0")),
    keys.activity("mri"): (Activity, lambda storage: activity.read(storage, "mri")),
    keys.source(HEADS): (
        shapes.Remembered,
        lambda storage: sources.remembered(storage, "heads", {"a.png": Version(1, "tag")}),
    ),
}


@pytest.mark.parametrize("key", READS)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_file_with_any_value_is_read_or_ends_in_one_line(key: str, sealed: bool, storage: Storage) -> None:
    kind, read = READS[key]

    @examples(40)
    @given(alike(kind))
    def check(value: Any) -> None:
        storage.write(
            key,
            seal({"schema": champion.RECORD_SCHEMA} | value)
            if sealed and isinstance(value, dict)
            else json.dumps(value).encode(),
        )
        ends(lambda: read(storage))

    check()


@examples(200)
@given(st.binary(max_size=30) | st.text(alphabet='{}[]":,0e\\u+-.ndNaI', max_size=30).map(str.encode))
def test_any_bytes_are_read_or_are_damage(data: bytes) -> None:
    ends(lambda: unseal(data))
