"""What was disturbed and what was found, as JSON and as a table in docs/reliability.md."""

import json
from pathlib import Path
from typing import Any

from bench.quality import command

ROOT = Path(__file__).parents[2]
STORED, PAGE = Path("bench/results/chaos.json"), Path("docs/reliability.md")
BEGIN, END = f"<!-- from {STORED} -->", "<!-- to here -->"
# What each part disturbs, and the command that measures it.
PARTS = {
    "kills": (
        "SIGKILL during pipelines: at random times, before operations on storage",
        "python -m bench.chaos kills",
    ),
    "stops": ("SIGTERM during pipelines, at random times", "python -m bench.chaos stops"),
    "storage": ("pipelines with a faulty S3 server, one request of twenty", "python -m bench.chaos storage"),
    "pairs": ("two processes with the same short pipeline", "python -m bench.chaos pairs"),
    "fuzz": ("bombs and damaged images", "python -m bench.chaos fuzz"),
    "evictions": ("pods that train, evicted once each", "make e2e-evictions"),
    "soak": ("workflows of the schedule, 8 at a time", "make e2e-soak"),
}
COLUMNS = ("what", "runs", "met", "wrong", "took", "command")
Json = dict[str, Any]


def store(name: str, runs: int, met: Json, wrong: list[str], seconds: float, root: Path = ROOT) -> None:
    """Write what the part `name` has found to the file, where other parts stay, and the page."""
    path = root / STORED
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = {"commit": command.commit(), "runs": runs, "met": met, "wrong": wrong, "seconds": round(seconds)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept | {name: found}, indent=1) + "\n")
    write(root)


def write(root: Path = ROOT) -> None:
    """Write the table into the page, between BEGIN and END."""
    page = root / PAGE
    before, _, rest = page.read_text().partition(BEGIN)
    text = table(json.loads((root / STORED).read_text()))
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def table(found: Json) -> str:
    """Return what was found as a table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for name, (what, asked) in PARTS.items():
        if name in found:
            part = found[name]
            met = "; ".join(f"{kind}: {value}" for kind, value in part["met"].items())
            took = f"{part['seconds'] / 60:.0f} min"
            lines.append((what, str(part["runs"]), met, str(len(part["wrong"])), took, f"`{asked}`"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write()
