"""A small part of `make chaos`: a short pipeline, disturbed a few times."""

import shutil
import signal
from pathlib import Path

import pytest

from bench.chaos import page, runs, signals
from bench.chaos.place import Place, undisturbed
from jobs import phantom
from jobs.settings import PhantomSettings
from tests.conftest import use_credentials
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def place(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("chaos")
    phantom.run(PhantomSettings(out=str(folder / "heads"), count=6))
    return Place(folder / "heads", folder, s3_server)


@pytest.fixture(scope="module")
def wanted(place: Place) -> runs.Outputs:
    return undisturbed(place, **runs.SHORT)


@pytest.fixture(autouse=True)
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch, s3_server, s3_server.owner)


@pytest.mark.parametrize("kind", ["folder", "S3"])
def test_a_killed_pipeline_ends_as_if_undisturbed(place: Place, wanted: runs.Outputs, kind: str) -> None:
    address = dict(place.storages("killed"))[kind]
    run = signals.Disturbed(f"kills, {kind}", kind, address, runs.SHORT, signals=4, seconds=8.0, wanted=wanted)
    met, _, wrong = signals.disturb(place, run, signal.SIGKILL)
    assert wrong == []
    assert met[f"{kind}, at an operation"] > 0


def test_the_document_says_what_is_stored(tmp_path: Path) -> None:
    for name in (page.STORED, page.PAGE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page.ROOT / name, tmp_path / name)
    page.write(tmp_path)
    assert (tmp_path / page.PAGE).read_text() == (page.ROOT / page.PAGE).read_text()
