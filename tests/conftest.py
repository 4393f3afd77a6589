"""What several tests share: a clean environment, and a real S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.common import again
from tests.s3_server import S3Server, running

# Tests that share a processor run faster with few threads each, and repeat bit for bit only at one number.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


# Modules that train, or start servers or many processes: together most of the time. `make test-fast` omits them.
# fmt: off
SLOW = {
    "bench/test_chaos", "bench/test_quality", "classifier/test_fair", "classifier/test_networks",
    "classifier/test_training", "common/test_loading", "common/test_metrics", "common/test_s3", "common/test_s3_tls",
    "gan/test_features", "gan/test_networks", "gan/test_training", "mri/test_corpora", "mri/test_duplicates",
    "mri/test_faults", "mri/test_identifiers", "mri/test_readers", "mri/test_testset", "phantoms/test_learning",
    "test_check", "test_cli", "test_damage", "test_documents", "test_evaluate", "test_generate", "test_mrigan",
    "test_notebook", "test_pipeline", "test_preprocess", "test_pretrain", "test_secrets", "test_synthetic_images",
    "test_train_classifier", "test_train_gan",
}
# fmt: on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow modules."""
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).with_suffix("").as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's settings and credentials out of the tests."""
    for name in list(os.environ):
        if name.startswith(("MRIGAN_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Faults of tests last.
    monkeypatch.setattr(again, "SECONDS", 0.0)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start a server for all tests."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Return an empty prefix on the S3 server, with the owner's credentials in the environment."""
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    return f"s3://tests/{abs(hash(request.node.nodeid))}"


def use_credentials(monkeypatch: pytest.MonkeyPatch, server: S3Server, who: tuple[str, str]) -> None:
    """Set the environment that boto3's credential chain reads."""
    for name, value in server.environment(who).items():
        monkeypatch.setenv(name, value)
