"""What `mrigan report` says; tests/cluster fetches by a workflow's name."""

import logging
from pathlib import Path
from typing import Any

import pytest

from jobs import evaluate, fetch_report, promote
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.settings import FetchReportSettings
from tests import fake_run


def test_a_name_that_storage_does_not_know_may_be_a_workflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARGO_SERVER", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    # The client keeps the default path that it saw when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(
        UserError, match="has no report of run mistyped, and no workflow of this name was found: no cluster"
    ):
        fetch_report.run(FetchReportSettings(runs=("mistyped",), storage=str(tmp_path)))


def test_a_report_is_fetched_with_what_was_decided(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(str(tmp_path / "storage"))
    fake_run.make(storage, images=8, regimes=("real",))
    asked: dict[str, Any] = {"storage": storage.url, "dataset": fake_run.DATASET, "run": fake_run.RUN}
    evaluate.run(evaluate.EvaluateSettings(networks=("mobilenetv2",), regimes=("real",), name="mri", **asked))
    wanted = FetchReportSettings(runs=(fake_run.RUN,), storage=storage.url, report_folder=str(tmp_path / "here"))
    with caplog.at_level(logging.INFO, "mrigan.report"):
        fetch_report.run(wanted)
        assert not [one for one in caplog.records if one.name == "mrigan.report"]
        promote.run(promote.PromoteSettings(name="mri", **asked))
        fetch_report.run(wanted)
    assert [one.message for one in caplog.records if one.name == "mrigan.report"] == [
        "mobilenetv2 real is the first champion"
    ]
    assert capsys.readouterr().out.split() == [str(tmp_path / "here" / "report.html")] * 2
