"""A small part of `make chaos`: a short pipeline, disturbed a few times."""

import signal
from typing import Any

import pytest

from bench.chaos import faults, runs, signals
from bench.chaos.place import Place, undisturbed
from jobs import phantom
from jobs.settings import PhantomSettings
from tests.conftest import use_credentials
from tests.s3_server import S3Server

SHORT: dict[str, Any] = {"regimes": "real", "healthy": "off"}


@pytest.fixture(scope="module")
def place(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("chaos")
    phantom.run(PhantomSettings(out=str(folder / "heads"), count=6))
    return Place(folder / "heads", folder, s3_server)


@pytest.fixture(scope="module")
def wanted(place: Place) -> runs.Outputs:
    return undisturbed(place, **SHORT)


@pytest.fixture(autouse=True)
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch, s3_server, s3_server.owner)


@pytest.mark.parametrize("kind", ["folder", "S3"])
def test_a_killed_pipeline_ends_as_if_undisturbed(place: Place, wanted: runs.Outputs, kind: str) -> None:
    address = dict(place.storages("killed"))[kind]
    run = signals.Disturbed(f"kills, {kind}", kind, address, SHORT, signals=4, seconds=8.0, wanted=wanted)
    met, _, wrong = signals.disturb(place, run, signal.SIGKILL)
    assert wrong == []
    assert met[f"{kind}, at an operation"] > 0


def test_a_faulty_server_changes_nothing(place: Place, wanted: runs.Outputs) -> None:
    found = faults.storage(place, wanted, 0, range(1), **SHORT)
    assert found.wrong == []
    assert found.met.total() > 0
