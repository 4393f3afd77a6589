"""The commands in README and docs, as they are written there."""

import re
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


def everything() -> list[tuple[str, str]]:
    """Return (page, command) of all pages."""
    return [(page.name, command) for page in PAGES for command in commands(page)]
