"""The project as a package: one version everywhere, and a wheel and a source distribution that install and run."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    # A copy: setuptools writes its own folders into the source.
    for name in ("pyproject.toml", "README.md", "LICENSE", "jobs", "mrigan"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    uv = Path(sys.executable).parent / "uv"
    command = [uv, "build", "-q", "--offline", "--no-build-isolation", "--python", sys.executable, "-o", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_one_version():
    chart = yaml.safe_load((ROOT / "helm/mrigan/Chart.yaml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert {chart["version"], chart["appVersion"], citation["version"], newest[1]} == {VERSION}


def test_wheel_installs_and_runs(built, tmp_path):
    [wheel] = built.glob("*.whl")
    assert wheel.name == f"mrigan-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    shown = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"mrigan {VERSION}\n"


def test_wheel_and_source_have_every_file_of_the_packages(built):
    ours = {
        str(path.relative_to(ROOT))
        for package in ("jobs", "mrigan")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    [wheel] = built.glob("*.whl")
    assert ours <= set(zipfile.ZipFile(wheel).namelist())
    [source] = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert ours <= {name.partition("/")[2] for name in archive.getnames()}
