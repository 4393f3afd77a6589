"""The fields of settings, and the sources of their values: flags, environment, settings file.

`image_size` is `--image-size`, `MRIGAN_IMAGE_SIZE` and `image_size:` in a YAML file. A flag overrides the environment,
which overrides the file, which overrides a preset, which overrides the default.
"""

import argparse
import difflib
import inspect
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import pydantic
import yaml

from jobs.common.errors import UserError

ENVIRONMENT_PREFIX = "MRIGAN_"
# Environment variables with the prefix of settings that name sources of other settings.
SOURCES = ("settings", "preset")
# Replacements for pydantic's messages, which describe parsing.
PLAIN = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "too_short": "name at least one",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
}
SHORT = reprlib.Repr()
SHORT.maxstring, SHORT.maxlevel = 200, 2
# Variables that Kubernetes sets in every pod for each Service in the namespace. A Service called mrigan-metrics also
# sets MRIGAN_METRICS_PORT, to an address.
OF_A_SERVICE = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
SERVICES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
# Names become part of storage keys, so that they must not contain separators.
NAME = r"^\w[\w.-]*$"


def setting(
    default: Any, help: str, *, unit: str | None = None, result: bool = True, positional: bool = False, **limits: Any
) -> Any:
    """Return a field for a Settings class.

    `result=False` marks a setting that changes no result (such as a path): it is not part of digests.
    `positional` takes the positional arguments of the command line. `limits` are pydantic's (ge, le, min_length...).
    """
    extra: dict[str, Any] = {"unit": unit, "result": result, "positional": positional}
    return pydantic.Field(default, description=help, json_schema_extra=extra, **limits)


def split(value: Any) -> Any:
    """Return the parts of a value such as `a,b` without repetitions; raises ValueError for a list of lists."""
    if isinstance(value, list) and not all(isinstance(part, str) for part in value):
        raise ValueError("must be words")
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip() not in ("", "none")]
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


# A tuple setting is written `a,b` on the command line; `none` is the empty tuple.
Several = pydantic.BeforeValidator(split)


def at_home(text: str) -> str:
    """Return `text`, its leading `~/` (or only `~`) replaced by the home folder. Raises ValueError if there is none."""
    if text != "~" and not text.startswith("~/"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError("there is no home folder: use the full path") from None


class Settings(pydantic.BaseModel):
    """Settings of a job. Immutable; unknown names are rejected, and `~` is the home folder in every text."""

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


def _extra(field: Any) -> dict[str, Any]:
    return field.json_schema_extra or {"unit": None, "result": True, "positional": False}


def choices(annotation: Any) -> list[str] | None:
    """Return the valid values of a setting of this type, or of its elements; None if they are not enumerated."""
    if get_origin(annotation) is Annotated or get_origin(annotation) is tuple:
        return choices(get_args(annotation)[0])
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else None


def _help(name: str, field: Any) -> str:
    text = field.description
    unit = _extra(field)["unit"]
    if unit:
        text += f" [{unit}]"
    values = choices(field.annotation)
    if values and get_origin(field.annotation) is tuple:
        text += f" (some of {', '.join(values)}, separated by commas)"
    if field.is_required():
        text += " (needed)"
    elif field.default not in ("", None):
        text += f" (default: {spell(field.default)})"
    return text.replace("%", "%%")


def spell(value: Any) -> str:
    """Return a setting's value in the notation of the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
    """Return a value in a message: shortened, since a few lines of YAML with aliases are a list of a billion words."""
    return SHORT.repr(value if isinstance(value, list | dict) else spell(value))


def positional(kind: type[Settings]) -> str:
    """Return the name of the field that takes the positional arguments, empty if there is none."""
    return next((name for name, field in kind.model_fields.items() if _extra(field)["positional"]), "")


def metavar(name: str) -> str:
    """Return the name of a positional argument in help and errors."""
    return name.upper().removesuffix("S")


def grouped(kind: type[Settings], first: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the names of the fields of `kind` by group: `first`, then by the docstring of the class that has them."""
    groups = {"most used": [name for name in first if name in kind.model_fields]}
    for owner in kind.__mro__:
        own = [name for name in inspect.get_annotations(owner) if name in kind.model_fields and name not in first]
        title = str(owner.__doc__)
        title = "only this job" if title.startswith("Settings of ") else title
        groups[title] = groups.get(title, []) + own
    return {title: names for title, names in groups.items() if names}


def add_flags(parser: argparse.ArgumentParser, kind: type[Settings], first: Sequence[str] = ()) -> None:
    """Add to `parser` a flag for each field of `kind`, in groups; flags that are not given are not in the namespace."""
    for title, names in grouped(kind, first).items():
        group = parser.add_argument_group(title)
        for name in names:
            field = kind.model_fields[name]
            values = None if get_origin(field.annotation) is tuple else choices(field.annotation)
            common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(name, field)}
            flag = as_flag(name)
            if _extra(field)["positional"]:
                del common["dest"]
                group.add_argument(name, metavar=metavar(name), nargs="*", **common)
            elif field.annotation is bool:
                group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
            else:
                value = "{" + ",".join(values) + "}" if values else name.upper()
                group.add_argument(flag, metavar=value, **common)


def from_environment(kind: type[Settings], known: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict:
    """Return the values of `kind` that are set in the environment.

    `known` are the names of all jobs' settings: a pod's environment may contain settings of another job, but a name
    that no job has raises UserError. White space around a value is removed. An empty variable counts as not set,
    because a workflow sets every parameter, given or not. Variables that Kubernetes sets for a Service are ignored.
    """
    found = {}
    for variable, value in environment.items():
        name, value = variable.removeprefix(ENVIRONMENT_PREFIX), value.strip()
        of_a_service = OF_A_SERVICE.fullmatch(name) or SERVICES_ADDRESS.match(value)
        if variable.startswith(ENVIRONMENT_PREFIX) and value and not of_a_service:
            found[name.lower()] = value
    for name in sorted(found):
        if name not in known and name not in SOURCES:
            raise UserError(_unknown(as_variable(name), name, known, as_variable))
    return {name: value for name, value in found.items() if name in kind.model_fields}


def from_file(path: str, kind: type[Settings], known: Sequence[str]) -> dict[str, Any]:
    """Return the values of `kind` in the YAML file at `path`; settings of other jobs are ignored.

    Raises UserError if the file cannot be read, and the errors of `from_yaml`.
    """
    try:
        text = Path(at_home(path)).read_text()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the settings file {path}: {' '.join(str(error).split())}") from error
    return from_yaml(f"the settings file {path}", text, kind, known)


def from_yaml(where: str, text: str, kind: type[Settings], known: Sequence[str]) -> dict[str, Any]:
    """Return the values of `kind` in a YAML text; settings of other jobs are ignored. `where` names it in messages.

    Raises UserError if the text is not a mapping, or contains a name that no job has.
    """
    try:
        # All scalars stay text, as on the command line: YAML 1.1 would read a class called no as false.
        values = yaml.load(text, yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        raise UserError(f"cannot read {where}: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise UserError(f"cannot read {where}: it is nested too deeply") from None
    if not isinstance(values, dict):
        raise UserError(f"{where} must contain lines such as `folds: 5`")
    for name in values:
        if name == "preset":
            preset = values[name] if isinstance(values[name], str) else "NAME"
            raise UserError(f"{where}: a preset is not a setting: use --preset {preset}")
        if name not in known:
            raise UserError(f"{where}: {_unknown(str(name), str(name), known, str)}")
    return {name: value for name, value in values.items() if name in kind.model_fields}


def as_flag(name: str) -> str:
    """Return the flag of the setting `name`."""
    return "--" + name.replace("_", "-")


def as_variable(name: str) -> str:
    """Return the environment variable of the setting `name`."""
    return ENVIRONMENT_PREFIX + name.upper()


def _unknown(spelled: str, name: str, known: Sequence[str], spelling: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {spelling(near[0])}?" if near else "see --help for the names"
    return f"unknown setting {spelled}: {hint}"


def unknown_flag(flag: str, kind: type[Settings]) -> str:
    """Return the message for a flag that `kind` does not have."""
    name = flag.lstrip("-").split("=")[0].replace("-", "_")
    return _unknown(flag, name, tuple(kind.model_fields), as_flag)


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return `values` as settings. Raises UserError for the first invalid value, which is named as a flag."""
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        flag = as_flag(str(first["loc"][0])) if first["loc"] else "settings"
        if first["type"] == "missing":
            bare = _extra(kind.model_fields[str(first["loc"][0])])["positional"]
            raise UserError(f"{metavar(flag[2:]) if bare else flag} is needed: see --help") from error
        if first["type"] == "string_pattern_mismatch":
            raise UserError(f"{flag}: only letters, digits, '.', '_' and '-', not {_shown(first['input'])}") from error
        message = PLAIN.get(first["type"], first["msg"].removeprefix("Value error, "))
        message = message[0].lower() + message[1:]
        raise UserError(f"{flag}: {message}, not {_shown(first['input'])}") from error
