"""The commands in README and docs, as they are written there."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the shell commands of a page: its blocks that are indented by four spaces, without comments."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    found: list[str] = []
    for block in re.findall(r"(?m)(?:^    .*\n?)+", text):
        joined = re.sub(r"\\\n\s*", "", block)
        found += [re.sub(r"\s{2,}#.*$", "", line).strip() for line in joined.splitlines()]
    return [command for command in found if command]


def install(script: Path) -> None:
    """Write a command `mrigan` that runs this code."""
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobs.cli "$@"\n')
    script.chmod(0o755)


def run(command: str, folder: Path, environment: Mapping[str, str], limit: float | None = None) -> None:
    """Run a command in a folder, with this code on Python's path; it must succeed within `limit` seconds."""
    own = {**environment, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(["sh", "-ec", command], cwd=folder, env=own, capture_output=True, text=True, timeout=limit)
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def everything() -> list[tuple[str, str]]:
    """Return (page, command) of all pages."""
    return [(page.name, command) for page in PAGES for command in commands(page)]
