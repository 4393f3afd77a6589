"""What `mrigan report` says where there is none; tests/cluster has a report that is there."""

from pathlib import Path

import pytest

from jobs import fetch_report
from jobs.common.errors import UserError
from jobs.fetch_report import FetchReportSettings


def test_a_name_that_storage_does_not_know_may_be_a_workflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARGO_SERVER", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    # The client keeps the default path that it saw when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(UserError, match="has no report of run mistyped, nor is it known as a workflow: no cluster"):
        fetch_report.run(FetchReportSettings(runs=("mistyped",), storage=str(tmp_path)))
