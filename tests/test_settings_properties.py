"""Any value of any setting is accepted or refused in one line, by flag, variable or file; so is any groups file."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import cli
from jobs.common import fields
from jobs.common.errors import UserError
from jobs.mri import sources
from jobs.settings import ProcessSettings
from tests.mri.heads import examples

# No argument of a process has a NUL; a lone surrogate in one stands for a byte that is no UTF-8.
ODD = [
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "9" * 5000,
    "a,,b",
    "~",
    "~x",
    "~/",
    "../..",
    "\n",
    "a\rb",
    "\x1b[2J",
    "\udcff",
]
ODD += [
    "-",
    "--",
    "--help=1",
    "=",
    "\u2028",
    "\u202e",
    "٣",
    "none",
    "all",
    "s3://",
    "{{x}}",
    "%s",
    "&a",
    "*a",
    "!!x",
    "[" * 900,
]
WORDS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMES = sorted(
    {name for job in cli.JOBS.values() for name in job.settings.model_fields} | {*ProcessSettings.model_fields}
)
# One setting of each type.
MANY = ("folds", "networks", "precision", "name", "follow_links", "preset")
JOBS = sorted(set(cli.JOBS) - {"help"})


def check(job: str, *words: str) -> None:
    """Assert that the settings of `job` are read from `words`, or refused in one line."""
    try:
        cli.read_settings(job, words)
    except UserError as error:
        assert str(error) and str(error).isprintable()
    except SystemExit as end:
        assert end.code == 0 and {"-h", "--help"} & {*words}


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, ...]:
    """A job and two flags, mostly of this job, with any values."""
    job = draw(st.sampled_from(JOBS))
    own = sorted(cli.JOBS[job].settings.model_fields)
    names = st.sampled_from(own) if own else WORDS
    flags = [f"{fields.as_flag(draw(names | WORDS))}={draw(WORDS)}" for _ in range(2)]
    return job, *flags, *draw(st.lists(WORDS, max_size=2))


@examples(100)
@given(command_lines())
def test_any_flag_is_accepted_or_refused_in_one_line(words: tuple[str, ...]) -> None:
    check(*words)


@examples(60)
@given(st.sampled_from(JOBS), st.sampled_from([*NAMES, "settings", "preset", "x"]), WORDS)
def test_any_variable_is_accepted_or_refused_in_one_line(job: str, name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, fields.as_variable(name), value)
        check(job)


VALUES = WORDS | st.sampled_from(["[a, {b: c}]", "[[a], [a]]", "{}", "'", '"\\x"', "|", "? a", "a: b"])


@st.composite
def settings_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A job and a settings file, mostly with names of this job."""
    job = draw(st.sampled_from(JOBS))
    names = st.sampled_from([*cli.JOBS[job].settings.model_fields] or NAMES)
    lines = draw(st.lists(st.tuples(names | WORDS, VALUES), max_size=2))
    text = "\n".join(f"{name}: {value}" for name, value in lines)
    return job, draw(st.just(text.encode(errors="surrogateescape")) | st.binary(max_size=9))


@examples(100)
@given(settings_files())
def test_any_settings_file_is_accepted_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[str, bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(case[1])
    check(case[0], f"--settings={path}")


LAUGHS = "\n".join(f"- &a{n} [{','.join(['a'] if not n else [f'*a{n - 1}'] * 10)}]" for n in range(30))


@pytest.mark.parametrize("text", ["[", "{a: ", "- ", "a: &a [*a, ", *(f"{name}:\n{LAUGHS}" for name in MANY)])
def test_a_settings_file_that_unfolds_without_end_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(text if LAUGHS in text else text * 1000)
    with pytest.raises(UserError) as refused:
        cli.read_settings("pipeline", ["--settings", str(path), "--data", "x"])
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


FOUND = ("no/1.png", "yes/a,b.png", "yes/ü.png")
CELLS = st.sampled_from(
    [*FOUND, *map(json.dumps, FOUND), '"', '""', ",", "\n", "\r", "\0", "\ufeff", " ", "\\", "/", "./"]
)


@examples(250)
@given(st.lists(CELLS, max_size=8).map(lambda cells: "".join(cells).encode()) | st.binary(max_size=12))
def test_any_groups_file_lists_files_or_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "groups.csv"
    path.write_bytes(data)
    try:
        read, lines_of = sources.read_groups(str(path), FOUND)
        assert read == data and lines_of.keys() <= set(FOUND)
    except UserError as error:
        assert str(error).startswith("--groups: ") and str(error).isprintable()


def test_a_groups_file_of_one_endless_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes(b"no/" + b"1" * 2**20)
    with pytest.raises(UserError, match=r"--groups: .* is not a CSV file"):
        sources.read_groups(str(tmp_path / "groups.csv"), FOUND)
