"""JSON files of a whole run in which one value is another one, and whose digest fits: one line, never a traceback."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import fetch_report, phantom, pipeline
from jobs import plan as planning
from jobs.classifier import champion
from jobs.common.errors import MachineError, UserError
from jobs.common.seeds import derive
from jobs.common.step import read_output, seal
from jobs.common.storage import open_storage
from jobs.settings import FetchReportSettings, PhantomSettings, PipelineSettings, PlanSettings
from tests.tiny import TINY

SETTINGS = TINY | {"regimes": ("synthetic",), "workers": 1}
MUTANTS = 25  # of each file
DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]
OTHER: tuple[Any, ...] = (
    None,
    -1,
    0,
    10**12,
    0.5,
    "",
    "../../../etc/passwd",
    "\x00",
    True,
    [],
    {},
    ["a"],
    {"a": 1},
    DEEP,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data and the storage of a whole run, and its plan."""
    folder = tmp_path_factory.mktemp("whole")
    phantom.run(PhantomSettings(out=str(folder / "heads"), count=8))
    # A plan is only written where something is left to do.
    planning.run(PlanSettings(**settings(folder) | {"plan_folder": str(folder / "plan")}))
    pipeline.run(PipelineSettings(**settings(folder) | {"workers": 1}))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder; its files are links, and written anew where they change."""
    return shutil.copytree(finished, tmp_path / "copy", copy_function=os.link)


def settings(folder: Path) -> dict[str, Any]:
    wanted = {name: value for name, value in SETTINGS.items() if name != "workers"}
    return {"data": str(folder / "heads"), "storage": str(folder / "storage")} | wanted


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in `value` with each of its keys or indices."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutants(content: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Yield copies of `content` in which one value is missing or another one."""
    generator = random.Random(seed)
    for _ in range(MUTANTS):
        changed = copy.deepcopy(content)
        holder, key = generator.choice(list(places(changed)))
        if generator.random() < 0.2:
            del holder[key]
        else:
            holder[key] = generator.choice(OTHER)
        yield changed


def read_classifiers(folder: Path) -> None:
    storage = open_storage(str(folder / "storage"))
    found = champion.read_champion(storage, "")
    for prefix in found.models:
        manifest = champion.finished(storage, prefix)
        read_output(storage, prefix, manifest, "classifier.safetensors")


def planned(folder: Path) -> None:
    planning.run(PlanSettings(**settings(folder)))


def read_plan(folder: Path) -> None:
    storage = open_storage(str(folder / "storage"))
    [path] = (folder / "storage" / "plans").iterdir()
    plan = planning.read(storage, path.stem)
    planning.works(plan, plan.tasks)


def reported(folder: Path) -> None:
    [run] = (path.name for path in (folder / "storage" / "runs").iterdir())
    asked = {"runs": (run,), "report_folder": str(folder / "report"), "open": False}
    fetch_report.run(FetchReportSettings(storage=str(folder / "storage"), **asked))


@pytest.mark.parametrize(
    ("pattern", "reads"),
    [
        ("champions/*.json", (read_classifiers, planned, reported)),
        ("datasets/*/manifest.json", (planned,)),
        ("runs/*/fold-0/classifiers/*/manifest.json", (planned, read_classifiers)),
        ("runs/*/fold-0/*/gan/manifest.json", (planned,)),
        ("runs/*/report/manifest.json", (planned, reported)),
        ("plans/*.json", (read_plan,)),
        ("activity/*.json", (planned,)),
    ],
)
def test_another_value_ends_in_one_line(
    pattern: str, reads: tuple[Callable[[Path], None], ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted((folder / "storage").glob(pattern))[0]
    content = json.loads(path.read_text())
    del content["digest"]
    for changed in mutants(content, derive(0, "values", pattern)):
        path.unlink(missing_ok=True)
        path.write_bytes(seal(changed))
        shutil.rmtree(folder / "report", ignore_errors=True)
        for read in reads:
            try:
                read(folder)
            except (MachineError, UserError) as error:
                assert str(error) and "\n" not in str(error)
    capsys.readouterr()


def test_what_is_no_json_at_all_ends_in_one_line(folder: Path) -> None:
    for path in (folder / "storage").glob("champions/*.json"):
        for data in (b"\xff\xfe", b"[" * 100_000, b"", b"null", b"[1]", b'{"champion": '):
            path.unlink()
            path.write_bytes(data)
            with pytest.raises(MachineError, match="is damaged"):
                read_classifiers(folder)
