"""Settings: one typed field with unit and meaning, spelled alike as flag, as variable and in the settings file.

`image_size` is `--image-size`, `MRIGAN_IMAGE_SIZE` and `image_size:` in a YAML file. A flag beats the environment,
which beats the file, which beats a preset, which beats the default.
"""

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import pydantic
import yaml

from jobs.common.errors import UserError

ENVIRONMENT_PREFIX = "MRIGAN_"
# Spelled like settings in the environment, but they say where other settings come from.
SOURCES = ("settings", "preset")
# Pydantic's words for these speak of parsing.
PLAIN = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "too_short": "name at least one",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
}
# What Kubernetes gives every pod of each Service in its namespace: one called mrigan-metrics spells METRICS_PORT too,
# whose value is an address.
OF_A_SERVICE = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
SERVICES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
# What becomes part of a key in storage must stay inside it.
NAME = r"^\w[\w.-]*$"


def setting(
    default: Any, help: str, *, unit: str | None = None, result: bool = True, positional: bool = False, **limits: Any
) -> Any:
    """Return a field for a Settings class.

    `result=False` marks a setting that changes no result (a path, how often to save): it stays out of digests.
    `positional` takes the command line's bare words. `limits` are pydantic's (ge, le, min_length...).
    """
    extra: dict[str, Any] = {"unit": unit, "result": result, "positional": positional}
    return pydantic.Field(default, description=help, json_schema_extra=extra, **limits)


def split(value: Any) -> Any:
    """Return the parts of a value such as a,b without repetitions."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip() not in ("", "none")]
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


# A tuple setting is spelled a,b on the command line; `none` is the empty one.
Several = pydantic.BeforeValidator(split)


def at_home(text: str) -> str:
    """Return `text`, with the path of the home folder where it begins with `~/` or is `~`.

    Raises ValueError if there is no home folder.
    """
    if text != "~" and not text.startswith("~/"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError("there is no home folder: write the whole path") from None


class Settings(pydantic.BaseModel):
    """What a job can be told. Immutable; unknown names are refused, and `~` is the home folder in every text."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    @pydantic.field_validator("*", mode="after")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cls._at_home, value))
        return at_home(value) if isinstance(value, str) else value

    def result(self) -> dict[str, Any]:
        """Return the settings that change results, as JSON values."""
        kept = {name for name, field in type(self).model_fields.items() if _extra(field)["result"]}
        return self.model_dump(mode="json", include=kept)

    @classmethod
    def of(cls, other: "Settings", **more: Any) -> Self:
        """Return settings of this class with the values that `other` has under the same names, and `more`."""
        shared = {name: getattr(other, name) for name in cls.model_fields if name in type(other).model_fields}
        return cls(**(shared | more))


T = TypeVar("T", bound=Settings)


class StorageSettings(Settings):
    """Where outputs lie."""

    storage: str = setting("out", "folder or s3://bucket/prefix that holds every output", result=False, min_length=1)


class ReadingSettings(Settings):
    """How files of images are read."""

    volume: int = setting(0, "volume to take of a NIfTI file with a fourth dimension, counted from 0", ge=0)


class ExecutionSettings(Settings):
    """How the arithmetic is done; decided by jobs.common.hardware where a value is `auto`."""

    threads: int = setting(0, "processor threads; another number is another run, to the last bit; 0: all cores", ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "number format of the networks' arithmetic")
    xla: Literal["auto", "on", "off"] = setting("auto", "compile training steps with XLA")


class CheckpointSettings(Settings):
    """How often a training can be gone on with."""

    checkpoint_steps: int = setting(1000, "most steps between two checkpoints", unit="steps", ge=1, result=False)
    checkpoint_seconds: float = setting(300, "most time between two checkpoints", unit="s", gt=0, result=False)


def _extra(field: Any) -> dict[str, Any]:
    return field.json_schema_extra or {"unit": None, "result": True, "positional": False}


def _choices(annotation: Any) -> list[str] | None:
    if get_origin(annotation) is Annotated or get_origin(annotation) is tuple:
        return _choices(get_args(annotation)[0])
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else None


def _help(name: str, field: Any) -> str:
    text = field.description
    unit = _extra(field)["unit"]
    if unit:
        text += f" [{unit}]"
    choices = _choices(field.annotation)
    if choices and get_origin(field.annotation) is tuple:
        text += f" (some of {', '.join(choices)}, separated by commas)"
    if field.is_required():
        text += " (needed)"
    elif field.default not in ("", None):
        text += f" (default: {spell(field.default)})"
    return text.replace("%", "%%")


def spell(value: Any) -> str:
    """Return a setting's value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def positional(kind: type[Settings]) -> str:
    """Return how the bare words of `kind` stand in a usage line: empty if it takes none."""
    names = [name for name, field in kind.model_fields.items() if _extra(field)["positional"]]
    return "".join(f" {_metavar(name)}..." for name in names)


def _metavar(name: str) -> str:
    return name.upper().removesuffix("S")


def add_flags(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Add to `parser` a flag for each field of `kind`; what is not given stays out of the namespace."""
    for name, field in kind.model_fields.items():
        choices = None if get_origin(field.annotation) is tuple else _choices(field.annotation)
        common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(name, field)}
        flag = "--" + name.replace("_", "-")
        if _extra(field)["positional"]:
            parser.add_argument(name, metavar=_metavar(name), nargs="*", default=argparse.SUPPRESS, help=common["help"])
        elif field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            metavar = "{" + ",".join(choices) + "}" if choices else name.upper()
            parser.add_argument(flag, metavar=metavar, **common)


def from_environment(kind: type[Settings], known: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict:
    """Return the values of `kind` that the environment spells.

    `known` are the names of all jobs' settings: a pod's environment may hold those of another job, but a name that
    no job has is a mistake. Raises UserError for it. White space around a value is none of it. An empty variable counts
    as not set: a workflow passes every parameter on, given or not. What Kubernetes says of a Service is no setting.
    """
    spelled = {
        name.removeprefix(ENVIRONMENT_PREFIX): value.strip()
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    found = {
        name.lower(): value
        for name, value in spelled.items()
        if value and not OF_A_SERVICE.fullmatch(name) and not SERVICES_ADDRESS.match(value)
    }
    for name in sorted(found):
        if name not in known and name not in SOURCES:
            raise UserError(_unknown(ENVIRONMENT_PREFIX + name.upper(), name, known, _as_variable))
    return {name: value for name, value in found.items() if name in kind.model_fields}


def from_file(path: str, kind: type[Settings], known: Sequence[str]) -> dict[str, Any]:
    """Return the values of `kind` in the YAML file at `path`; names of other jobs' settings may stand there too.

    Raises UserError if the file cannot be read, is no mapping, or holds a name that no job has.
    """
    try:
        path = at_home(path)
        # All words stay words, as on the command line: YAML 1.1 would take a class called no for false.
        values = yaml.load(Path(path).read_text(), yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read the settings file {path}: {reason}") from error
    if not isinstance(values, dict):
        raise UserError(f"the settings file {path} must hold lines such as `folds: 5`")
    for name in values:
        if name == "preset":
            raise UserError(f"{path}: a preset is no setting: give --preset {spell(values[name])}")
        if name not in known:
            raise UserError(f"{path}: {_unknown(str(name), str(name), known, str)}")
    return {name: value for name, value in values.items() if name in kind.model_fields}


def _as_variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _unknown(spelled: str, name: str, known: Sequence[str], spelling: Any) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {spelling(near[0])}?" if near else "see --help for the names"
    return f"unknown setting {spelled}: {hint}"


def unknown_flag(flag: str, kind: type[Settings]) -> str:
    """Return the message for a flag that `kind` has not."""
    name = flag.lstrip("-").split("=")[0].replace("-", "_")
    return _unknown(flag, name, tuple(kind.model_fields), lambda near: "--" + near.replace("_", "-"))


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return `values` as settings. Raises UserError naming the first value that is wrong, as a flag."""
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
        if first["type"] == "missing":
            bare = _extra(kind.model_fields[str(first["loc"][0])])["positional"]
            raise UserError(f"{_metavar(flag[2:]) if bare else flag} is needed: see --help") from error
        if first["type"] == "string_pattern_mismatch":
            raise UserError(
                f"{flag}: letters, digits, '.', '_' and '-' alone, not {spell(first['input'])!r}"
            ) from error
        message = PLAIN.get(first["type"], first["msg"].removeprefix("Value error, "))
        message = message[0].lower() + message[1:]
        raise UserError(f"{flag}: {message}, not {spell(first['input'])!r}") from error
