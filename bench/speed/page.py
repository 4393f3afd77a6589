"""The figures as JSON, one file for each kind of hardware, and as tables in docs/speed.md and README.md."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.speed.measuring import ROOT, Figure

STORED = Path("bench/results/speed")
PAGE = Path("docs/speed.md")
README = Path("README.md")
SHORT = ("gan-64", "mobilenetv2", "pipeline", "preprocess", "predict")  # rows whose first figures are in the README
BEGIN, END = f"<!-- from {STORED} -->", "<!-- to here -->"
COLUMNS = ("what", "against", "ratio, or time", "goal", "met", "share of the roof")
MET = {True: "yes", False: "**no**", None: ""}
Json = dict[str, Any]


def store(root: Path, hardware: Json, rows: Json) -> Path:
    """Write `rows` of this hardware to its file, where other rows stay, and all tables to the page; return the file."""
    name = re.sub(r"\W+", "-", _called(hardware).lower())
    path = root / STORED / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text())["rows"] if path.exists() else {}
    path.write_text(json.dumps({"schema": 1, "hardware": hardware, "rows": kept | rows}, indent=1) + "\n")
    write(root)
    return path


def write(root: Path = ROOT) -> None:
    """Write the tables of all stored files into the page, and a short one into the README, between BEGIN and END."""
    stored = [json.loads(path.read_text()) for path in sorted((root / STORED).glob("*.json"))]
    nothing = "Nothing is stored yet."
    for path, text in ((PAGE, "\n\n".join(map(section, stored))), (README, short(stored) if stored else "")):
        before, _, rest = (root / path).read_text().partition(BEGIN)
        (root / path).write_text(f"{before}{BEGIN}\n\n{text or nothing}\n\n{END}{rest.partition(END)[2]}")


def short(stored: list[Json]) -> str:
    """Return the first figures of the rows in SHORT on the hardware with most rows, as a table in Markdown."""
    found = max(stored, key=lambda one: len(one["rows"]))
    lines: list[tuple[str, ...]] = [(_called(found["hardware"]), *COLUMNS[1:3]), ("---",) * 3]
    rows = (found["rows"][name] for name in SHORT if name in found["rows"])
    lines += [_cells(Figure(**row["figures"][0]), row["roof"])[:3] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(found: Json) -> str:
    """Return heading, versions and table of one kind of hardware."""
    return f"### {_called(found['hardware'])}\n\n{about(found)}\n\n{table(found)}"


def _called(hardware: Json) -> str:
    device = " ".join(hardware["device"].replace("(R)", "").split())
    return f"{device}, {hardware['cores']} cores"


def about(found: Json) -> str:
    """Return where and with what the rows were measured; rows of other commits or versions have lines of their own."""
    runs: dict[str, list[str]] = {}
    for name, row in found["rows"].items():
        roof = ", ".join(f"{value / 1e9:.0f} GFLOP/s in {precision}" for precision, value in row["roof"].items())
        packages = (f"{name} {version}" for one in row["versions"].values() for name, version in one.items())
        text = f"commit {row['commit'][:12]}; {', '.join(dict.fromkeys(packages))}. Roof: {roof}."
        runs.setdefault(text, []).append(name)
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in runs.items())


def table(found: Json) -> str:
    """Return the figures as a table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for row in found["rows"].values():
        lines += [_cells(Figure(**one), row["roof"]) for one in row["figures"]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(figure: Figure, roof: dict[str, float]) -> tuple[str, ...]:
    low, high = min(figure.values), max(figure.values)
    value = f"{figure.median:.3g} {figure.unit} [{low:.3g} to {high:.3g}]"
    goal = "" if figure.goal is None else f"{'≥' if figure.unit == 'x' else '≤'} {figure.goal:g} {figure.unit}"
    share = ""
    if figure.flops is not None and figure.precision is not None:
        share = f"{figure.flops / roof[figure.precision]:.0%} of {figure.precision}"
    return (figure.work, figure.against, value, goal, MET[figure.met], share)


def row(figures: list[Figure], roof: dict[str, float], versions: Json, commit: str, seconds: float) -> Json:
    """Return a row as it is stored: its figures, and in which run they were measured."""
    entries = [asdict(figure) | {"values": [round(value, 5) for value in figure.values]} for figure in figures]
    facts = {"commit": commit, "versions": versions, "roof": {name: round(value) for name, value in roof.items()}}
    return {"figures": entries, "seconds": round(seconds), **facts}


if __name__ == "__main__":
    write()
