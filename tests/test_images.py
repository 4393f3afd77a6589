"""The locked requirements: what is tested is what the images hold, where it comes from, and under which licence."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs import write_licences
from docs.write_licences import locked, refused

ROOT = Path(__file__).parents[1]
LOCKS = [*sorted((ROOT / "images").glob("requirements-*.txt")), ROOT / "bench" / "requirements-peers.txt"]


def test_locks_agree_on_every_shared_package() -> None:
    cpu, gpu, dev = ({name: str(one.specifier) for name, one in locked(lock).items()} for lock in ("cpu", "gpu", "dev"))

    assert cpu.items() <= dev.items()
    assert cpu.items() - gpu.items() == {("tensorflow-cpu", gpu["tensorflow"])}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_package_has_one_version_with_hashes_and_no_place(path: Path) -> None:
    text = path.read_text()
    lines = [line for line in text.replace("\\\n", "").splitlines() if not line.lstrip().startswith("#")]
    assert len(lines) > 20
    for line in lines:
        name, *hashes = line.split(" --hash=sha256:")
        assert "==" in name and " @ " not in name and not name.startswith("-"), line
        assert hashes and all(len(one.strip()) == 64 for one in hashes), line
    assert "://" not in text and "-c /" not in text


def test_licences_are_the_allowed_ones() -> None:
    assert write_licences.PAGE.read_text() == write_licences.page(), "run `make licences`"
    found = {name: write_licences.licence(name) for name, one in locked("cpu").items() if not one.marker}
    assert len(found) > 70
    assert {name: refused(one) for name, one in found.items() if refused(one)} == {}
    assert all(name.startswith("nvidia-") for name in locked("gpu").keys() - locked("cpu").keys())


def test_a_licence_that_is_not_allowed_is_named() -> None:
    assert refused("MIT AND (GPL-3.0-or-later OR Apache-2.0 WITH LLVM-exception)") == {
        *("GPL-3.0-or-later", "WITH", "LLVM-exception")
    }
    assert refused("(MIT)") == set()


@pytest.mark.slow
def test_the_sbom_lists_what_the_image_installs(tmp_path: Path) -> None:
    words = ("make", "-s", "-o", ".venv/dev", "sbom", f"BIN={Path(sys.executable).parent}", f"BUILT={tmp_path}")
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock in ("cpu", "gpu"):
        # The tool checks it against the schema of CycloneDX before it writes.
        found = json.loads((tmp_path / f"sbom-{lock}.cdx.json").read_text())
        assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
        assert {one["name"]: f"=={one['version']}" for one in found["components"]} == {
            name: str(one.specifier) for name, one in locked(lock).items()
        }
        assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in found["components"])
        assert all(one["externalReferences"][0]["hashes"] for one in found["components"])
        assert found["metadata"]["component"].items() >= {"name": "mrigan", "version": project["version"]}.items()
