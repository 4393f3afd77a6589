"""The measuring of speed, as small as it goes: that it runs and that the page says what is stored, not how fast."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from bench.speed import __main__ as speed
from bench.speed import page, profile
from bench.speed.measuring import ROOT, Figure, Measured, Side, alternate, speeds
from bench.speed.rows import TINY
from jobs.common import hardware
from jobs.common.errors import MachineError
from jobs.settings import ExecutionSettings

HARDWARE = {"kind": "cpu", "device": "A (R) Processor", "machine": "x86_64", "cores": 2}
FIGURES = [
    Figure("ours", "theirs", [3.0, 1.0, 2.0], "x", 2.0, flops=25e9, precision="float32"),
    Figure("ours", "theirs", [3.0, 1.0, 2.0], "x", 2.5),
    Figure("ours", "plain", [3.0, 1.0, 2.0], "x the time", 1.25),
    Figure("start", "", [3.0, 1.0, 2.0], "s", 8),
    Figure("start", "", [3.0, 1.0, 2.0], "s"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with pages that have a place for tables."""
    (tmp_path / page.PAGE).parent.mkdir()
    for path in (page.PAGE, page.README):
        (tmp_path / path).write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    return tmp_path


def put(root: Path, name: str, figures: list[Figure], commit: str = "c1") -> Path:
    row = page.row(figures, {"float32": 1e11, "bfloat16": 2e11}, {"mrigan": {"python": "3.11.9"}}, commit, 9.4)
    return page.store(root, HARDWARE, {name: row})


def cells(root: Path) -> list[list[str]]:
    """Return the lines of the page's table, without its head."""
    lines = [line for line in (root / page.PAGE).read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines[2:]]


@pytest.mark.slow
def test_a_row_is_measured_stored_and_shown(root: Path) -> None:
    found = speed.measure(["phantoms"], replace(TINY, heads=4, seconds=0.01), root)
    [path] = (root / page.STORED).glob("*.json")
    stored = json.loads(path.read_text())
    assert stored == {"schema": 1} | found
    row = found["rows"]["phantoms"]
    assert row["versions"]["mrigan"]["mrigan"] and min(row["roof"].values()) > 0
    for figure in row["figures"]:
        assert len(figure["values"]) == TINY.rounds and min(figure["values"]) > 0
    assert [line[0] for line in cells(root)] == [figure["work"] for figure in row["figures"]]


def test_a_ratio_is_of_speeds_within_a_round() -> None:
    assert speeds(Measured([1.0, 4.0], {}), Measured([2.0, 2.0], {})) == [2.0, 0.5]


def test_the_table_says_what_is_stored(root: Path) -> None:
    stored = json.loads(put(root, "some", FIGURES).read_text())
    lines = cells(root)
    assert len(lines) == len(stored["rows"]["some"]["figures"]) == len(FIGURES)
    for line, figure in zip(lines, stored["rows"]["some"]["figures"], strict=True):
        median, low, high = (float(number) for number in re.findall(r"[\d.]+", line[2]))
        assert [low, median, high] == sorted(figure["values"])
    assert [line[4] for line in lines] == ["yes", "**no**", "**no**", "yes", ""]
    # 25 GFLOP/s of 100.
    assert lines[0][5] == "25% of float32"
    text = (root / page.PAGE).read_text()
    assert text.startswith("before\n\n") and text.endswith("\n\nafter\n") and "old" not in text
    assert "### A Processor, 2 cores" in text


def test_rows_of_another_run_stay_with_their_commit(root: Path) -> None:
    put(root, "some", FIGURES[:1])
    put(root, "other", FIGURES[3:4], "c2")
    put(root, "some", FIGURES[1:2], "c2")
    assert [line[0] for line in cells(root)] == ["ours", "start"]
    assert "- some, other: commit c2" in (root / page.PAGE).read_text()


def test_the_readme_has_the_first_figures_of_the_fullest_run(root: Path) -> None:
    put(root, page.SHORT[1], FIGURES[3:])
    put(root, page.SHORT[0], FIGURES[:3])
    put(root, "some", FIGURES)
    lines = [line for line in (root / page.README).read_text().splitlines() if line.startswith("| ")]
    assert lines[0] == "| A Processor, 2 cores | against | ratio, or time |"
    assert lines[2:] == ["| ours | theirs | 2 x [1 to 3] |", "| start |  | 2 s [1 to 3] |"]


def test_the_documents_say_what_is_stored(tmp_path: Path) -> None:
    if (ROOT / page.STORED).exists():
        shutil.copytree(ROOT / page.STORED, tmp_path / page.STORED)
    (tmp_path / page.PAGE).parent.mkdir()
    for path in (page.PAGE, page.README):
        shutil.copy(ROOT / path, tmp_path / path)
    page.write(tmp_path)
    for path in (page.PAGE, page.README):
        assert (tmp_path / path).read_text() == (ROOT / path).read_text()


def test_a_side_that_fails_says_why() -> None:
    with pytest.raises(MachineError, match="discs"):
        alternate([Side("bench.speed.images:discs", {"cats": 1})], 1, 0.1)


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        speed.main(["gan-63"])
    assert ended.value.code == 2 and "unknown row gan-63" in capsys.readouterr().err


def test_a_profile_has_each_operation_of_a_step() -> None:
    hardware.configure(ExecutionSettings(threads=1))
    matrix = tf.ones((64, 64))

    @tf.function(autograph=False)
    def products() -> tf.Tensor:
        return tf.exp(matrix @ (matrix @ matrix))

    took, counts = profile.by_operation(lambda steps: [products() for _ in range(steps)], 4)
    assert (counts["MatMul"], counts["Exp"]) == (2, 1)
    assert 0 < took["MatMul"] < 1000
