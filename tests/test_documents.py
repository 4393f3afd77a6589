"""README and docs: their commands run as they are written, and their links lead somewhere."""

import os
import re
from pathlib import Path

import pytest

from tests import documents

# As small as a run goes: settings in the environment take the place of a preset's.
SMALL = {
    "IMAGE_SIZE": "32",
    "FOLDS": "2",
    "REGIMES": "synthetic",
    "HEALTHY": "off",
    "GAN_EPOCHS": "2",
    "GAN_WIDTH": "4",
    "LATENT": "8",
    "GAN_BATCH": "8",
    "SYNTHETIC_COUNT": "8",
    "COUNT": "8",
    "CLASSIFIER_EPOCHS": "1",
    "CLASSIFIER_STEPS_PER_EPOCH": "2",
    "CLASSIFIER_BATCH": "8",
    "RESAMPLES": "100",
    "WORKERS": "1",
}
HERE = (r"\.venv/bin/mrigan (plan|pipeline|images|predict|check|phantom) ", r"\.venv/bin/mrigan --version")
# Why a command does not run in these tests.
ELSEWHERE = {
    r"git clone|pip install|uv build": "tests/test_packaging.py builds and installs the package",
    r"make \.venv/(run|dev)$|make (check|test|demo|image|e2e)$|\.ci/run": ".ci/run does it",
    r"make test-fast": "a part of make test",
    r"make (quality|weights|bench|chaos|e2e-\w+)|\.venv/bin/python -m bench": "takes hours, or measures",
    r"docker run": "needs Docker",
    r"\.venv/bin/pytest": "runs tests",
    r"kubectl |helm (?!push)|argo |mrigan ": "tests/cluster/test_documents.py",
    r"docker push|helm push|make image .*IMAGE=": "needs a registry",
    r"aws ": "needs the AWS CLI",
}
COMMANDS = documents.everything()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages assume: .venv, and images in class folders."""
    folder = tmp_path_factory.mktemp("documents")
    documents.install(folder / ".venv" / "bin" / "mrigan")
    shell(folder, ".venv/bin/mrigan phantom --out scans --count 8")
    for faulty in ("blank.png", "not-an-image.png", "too-small.png", "truncated.jpg"):
        next(folder.glob(f"scans/*/{faulty}")).unlink()
    (folder / "new").mkdir()
    for number, image in enumerate(sorted(folder.glob("scans/*/*"))[:2]):
        (folder / "new" / f"{number}.jpg").write_bytes(image.read_bytes())
    return folder


def shell(folder: Path, command: str) -> None:
    """Run a command of a page; it must succeed."""
    environment = os.environ | {f"MRIGAN_{name}": value for name, value in SMALL.items()}
    # The pages speak of one run: the first.
    reports = sorted(folder.glob("out/runs/*/report"), key=lambda path: path.stat().st_mtime)
    for name, value in (("RUN", reports[0].parent.name if reports else ""), ("CLASS", "lesion"), ("yes", "lesion")):
        command = re.sub(rf"\b{name}\b", value, command)
    documents.run(command, folder, environment)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_it_is_known_where_a_command_runs(page: str, command: str) -> None:
    places = [pattern for pattern in (*HERE, *ELSEWHERE) if re.match(pattern, command)]
    assert len(places) == 1, f"{page}: {command!r} is in {places or 'no list'} of tests/test_documents.py"


def test_commands_run_as_they_are_written(folder: Path) -> None:
    ours = dict.fromkeys(command for _, command in COMMANDS if re.match("|".join(HERE), command))
    assert len(ours) > 5
    for command in ours:
        shell(folder, command)
    assert list(folder.glob("out/runs/*/report/report.html"))
    assert list(folder.glob("synthetic/*/000000.png"))


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"(?m)^#+ (.*)$", file.read_text())
            anchors = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}
            assert heading in anchors, f"{page.name}: {target}"


def test_the_readme_is_short() -> None:
    assert len((documents.ROOT / "README.md").read_text().splitlines()) <= 130
