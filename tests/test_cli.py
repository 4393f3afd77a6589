"""The command line as a stranger meets it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import create_model

from jobs import cli
from jobs.common.errors import UserError
from jobs.common.fields import Settings, setting, spell, validate
from jobs.settings import MAIN, PRESET_COSTS, PRESETS, Job, PipelineSettings, PreprocessSettings, ProcessSettings

HEAVY = {"tensorflow", "keras", "numpy", "boto3", "matplotlib", "sklearn", "PIL", "scipy"}


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[str, set[str]]]:
    """Return the help of each job, and the packages that are loaded once it was shown; in one process, for speed."""
    code = (
        "import sys, jobs.cli\n"
        "for job in sys.argv[1:]:\n"
        "    try: jobs.cli.main([job, '--help'])\n"
        "    except SystemExit: pass\n"
        "    print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "    print('NEXT')"
    )
    shown = subprocess.run([sys.executable, "-c", code, *cli.JOBS], capture_output=True, text=True, check=True)
    parts = [text.partition("LOADED ") for text in shown.stdout.split("\nNEXT\n")[:-1]]
    return {job: (text, set(loaded.split())) for job, (text, _, loaded) in zip(cli.JOBS, parts, strict=True)}


@pytest.mark.parametrize("job", cli.JOBS)
def test_help_explains_each_job_and_loads_nothing_heavy(job: str, helps: dict[str, tuple[str, set[str]]]) -> None:
    text, loaded = helps[job]
    assert f"usage: mrigan {job}" in text
    assert "exit codes:" in text
    assert "argparse" in loaded and not HEAVY & loaded


def test_every_setting_has_one_meaning_in_all_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    meanings: dict[str, set[str]] = {}
    for name, job in cli.JOBS.items():
        for name_of_setting, field in job.settings.model_fields.items():
            assert field.description, f"{name}: {name_of_setting} has no help"
            meanings.setdefault(name_of_setting, set()).add(str(field.annotation))
    assert {one: kinds for one, kinds in meanings.items() if len(kinds) > 1} == {}


def groups(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Return the settings that the help of a job shows, by group and in its order."""
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.partition("sources of settings:")[2].splitlines():
        if line.endswith(":") and not line.startswith(" "):
            assert line[:-1] not in found, f"two groups called {line}"
            found[line[:-1]] = []
        elif line.startswith("  --") and found:
            found[list(found)[-1]].append(line.split()[0].strip(",")[2:].replace("-", "_"))
    return found


def test_help_shows_settings_in_groups_and_the_most_used_first(capsys: pytest.CaptureFixture[str]) -> None:
    found = groups("pipeline", capsys=capsys)
    assert next(iter(found)) == "most used"
    assert found["most used"] == list(MAIN)
    assert {"GAN", "classifiers", "evaluation", "arithmetic", "process"} < found.keys()
    shown = [name for names in found.values() for name in names]
    assert sorted(shown) == sorted([*PipelineSettings.model_fields, *ProcessSettings.model_fields])


@pytest.mark.parametrize("job", ["preprocess", "train-gan", "draw-phantoms"])
def test_help_of_a_job_shows_what_it_shares_with_others_by_the_same_groups(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of_all, own = groups("pipeline", capsys=capsys), groups(job, capsys=capsys)
    kind = cli.JOBS[job].settings
    assert sorted(name for names in own.values() for name in names) == sorted(
        [*kind.model_fields, *ProcessSettings.model_fields]
    )
    for title in own.keys() & of_all.keys() - {"only this job"}:
        assert set(own[title]) <= {*of_all[title], *MAIN}


def defaults(job: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the default of each flag in the help of a job."""
    with pytest.raises(SystemExit):
        cli.main([job, "--help"])
    found = {}
    for part in capsys.readouterr().out.partition("sources of settings:")[2].split("\n  --")[1:]:
        default = re.search(r"\(default: ([^)]*)\)", " ".join(part.split()))
        if default:
            found[re.split(r"[ ,]", part, maxsplit=1)[0]] = default[1]
    return found


@pytest.mark.parametrize("job", ["train-gan", "generate", "pretrain", "train-classifier", "evaluate"])
def test_the_defaults_of_a_job_are_those_of_the_pipeline(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    own, of_pipeline = defaults(job, capsys), defaults("pipeline", capsys)
    shared = own.keys() & of_pipeline.keys()
    assert {flag: own[flag] for flag in shared} == {flag: of_pipeline[flag] for flag in shared}
    expected = {"train-gan": "gan-epochs", "generate": "synthetic-count", "evaluate": "resamples"}
    assert expected.get(job, "classifier-batch") in shared
    # What a job has under a name of its own: one network, and no label for one GAN of all classes.
    assert of_pipeline["networks"] == own.get("network", of_pipeline["networks"])
    assert "label" not in own and of_pipeline["gan-conditional"] == "true"


class WithOneMore(PreprocessSettings):
    """Settings of preprocess."""

    sharpness: int = setting(3, "how sharp an image must be", unit="lines", ge=1)


def test_a_setting_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.JOBS, "preprocess", Job(WithOneMore, "a job with one setting more"))
    monkeypatch.setattr(cli, "NAMES", [*cli.NAMES, "sharpness"])
    assert groups("preprocess", capsys=capsys)["only this job"] == ["sharpness"]

    def read(*words: str) -> int:
        return cli.read_settings("preprocess", ["--data", "x", *words]).sharpness

    assert read() == 3
    file = tmp_path / "settings.yaml"
    file.write_text("sharpness: 4\n")
    assert read("--settings", str(file)) == 4
    monkeypatch.setenv("MRIGAN_SHARPNESS", "5")
    assert read("--settings", str(file)) == 5
    assert read("--settings", str(file), "--sharpness", "6") == 6
    with pytest.raises(UserError, match="--sharpness: input should be greater than or equal to 1, not '0'"):
        read("--sharpness", "0")
    # Another job has no use for it, and does not take it for a mistake.
    cli.read_settings("check", [])


def test_the_names_of_all_jobs_settings_are_known() -> None:
    assert {name for job in cli.JOBS.values() for name in job.settings.model_fields} <= set(cli.NAMES)
    assert set(ProcessSettings.model_fields) <= set(cli.NAMES)
    assert set(MAIN) <= set(PipelineSettings.model_fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_holds_settings_and_what_it_costs(preset: str) -> None:
    validate(PipelineSettings, PRESETS[preset] | {"data": "x"})
    assert PRESET_COSTS[preset]


def test_every_default_can_be_spelled_as_text() -> None:
    kinds = [job.settings for job in cli.JOBS.values()]
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items() if not field.is_required()}
    for name, field in fields.items():
        if field.default not in ("", None, ()):
            alone = create_model("Alone", __base__=Settings, **{name: (field.annotation, field)})
            assert getattr(validate(alone, {name: spell(field.default)}), name) == field.default


def run(*words: str) -> int:
    """Run the command line in this process and return its exit code."""
    return cli.main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preproces"], "mrigan: unknown job preproces: see mrigan --help"),
        ([], "mrigan: name a job: see mrigan --help"),
        (["preprocess"], "mrigan preprocess: --data is needed: see --help"),
        (["preprocess", "--fold", "2"], "mrigan preprocess: unknown setting --fold: did you mean --folds?"),
        (["preprocess", "--data", "x", "--folds", "1"], "--folds: input should be greater than or equal to 2, not '1'"),
        (["preprocess", "--data", "/no/such/folder"], "/no/such/folder"),
        (["pipeline", "--data", "x", "--preset", "fast"], "--preset: one of demo, quick, full, not 'fast'"),
        (["train-gan", "--dataset", "0", "--run", "r", "--fold", "0"], "there is no dataset 0"),
        (["predict", "image.png", "--name", "mri"], "has no champion mri"),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown and "\n" not in shown
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_variable_is_a_mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MRIGAN_IMAGE_SISE", "64")
    assert run("preprocess", "--data", "x") == 2
    assert "unknown setting MRIGAN_IMAGE_SISE: did you mean MRIGAN_IMAGE_SIZE?" in capsys.readouterr().err


def test_flag_beats_variable_beats_file_beats_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("folds: 7\nseed: 7\ngan_width: 7\nlabel: belongs to another job\n")
    monkeypatch.setenv("MRIGAN_FOLDS", "8")
    monkeypatch.setenv("MRIGAN_SEED", "8")
    words = ["--data", "x", "--preset", "quick", "--settings", str(file), "--folds", "9"]
    settings = cli.read_settings("pipeline", words)
    assert isinstance(settings, PipelineSettings)
    assert (settings.folds, settings.seed, settings.gan_width) == (9, 8, 7)
    assert settings.synthetic_count == PRESETS["quick"]["synthetic_count"]


def test_settings_may_come_from_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRIGAN_DATA", "there")
    settings = cli.read_settings("preprocess", [])
    assert isinstance(settings, PreprocessSettings) and settings.data == "there"


def test_variables_are_meant_as_a_person_means_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "settings.yaml").write_text("gan_width: 7\n")
    for name, value in {
        "SETTINGS": "~/settings.yaml",
        "PRESET": "quick",
        "DATA": "~/heads",
        "PORT": "tcp://1:2",
    }.items():
        monkeypatch.setenv(f"MRIGAN_{name}", f"{value}\n")
    settings = cli.read_settings("pipeline", [])
    assert isinstance(settings, PipelineSettings)
    assert (settings.data, settings.gan_width) == (str(tmp_path / "heads"), 7)
    assert settings.synthetic_count == PRESETS["quick"]["synthetic_count"]


@pytest.mark.parametrize("words", ["--help", "check --help"])
def test_a_reader_who_has_enough_is_no_failure(words: str) -> None:
    script = f"set -o pipefail; {sys.executable} -m jobs.cli {words} | true"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).with_name("mrigan")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True, env=os.environ)
    for job, described in cli.JOBS.items():
        assert job in shown.stdout and described.summary in shown.stdout


def test_the_last_line_goes_where_kubernetes_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(cli, "TERMINATION_LOG", log)
    assert run("preprocess", "--data", str(tmp_path / "gone")) == 2
    assert not log.exists(), "outside a pod nothing is written"
    log.touch()
    assert run("preprocess", "--data", str(tmp_path / "gone")) == 2
    assert log.read_text() == capsys.readouterr().err.splitlines()[-1] + "\n"
