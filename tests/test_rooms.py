"""Who may import whom: a job and mrigan any domain, a domain itself and jobs.common, and nobody a job."""

import ast
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "jobs"
DOMAINS = sorted(path.parent.name for path in JOBS.glob("*/__init__.py"))
# Not jobs: `settings` and `declaration` declare jobs and their tasks, and `finished` says which tasks are done.
SHARED = {"settings", "declaration", "finished"}
# A run is planned in one place: what carries out a plan imports it, and a plan needs the prepared dataset.
JOBS_OF_JOBS = {("pipeline", "plan"), ("task", "plan"), ("plan", "preprocess")}


def imported(path: Path) -> set[str]:
    """The rooms below `jobs` that a file imports, such as `mri` or `plan`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {parts[1] for parts in (name.split(".") for name in names) if parts[0] == "jobs" and len(parts) > 1}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_imports_itself_and_what_is_common(domain: str) -> None:
    allowed = {domain, "common"}
    found = {path.name: imported(path) - allowed for path in sorted((JOBS / domain).glob("**/*.py"))}
    assert {name: others for name, others in found.items() if others} == {}


def test_mrigan_imports_domains_and_what_is_common() -> None:
    assert imported(JOBS.parent / "mrigan/__init__.py") <= {*DOMAINS, "common"}


def test_no_job_imports_another_job() -> None:
    jobs = {path.stem for path in JOBS.glob("*.py")} - SHARED
    found = {(path.stem, other) for path in JOBS.glob("*.py") for other in imported(path) & jobs}
    assert found == JOBS_OF_JOBS
