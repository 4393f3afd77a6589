"""The commands of README and docs/operator.md on a real cluster, as they are written there and in their order."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import documents
from tests.cluster.conftest import ENVIRONMENT, IMAGE, LIMIT, MONITORED, PROMETHEUS, ROOT, call

# Other commands need a registry, or the AWS CLI; tests/test_documents.py runs those of one machine.
IN_CLUSTER = r"kubectl |helm (?!push)|argo |mrigan "


@pytest.fixture
def folder(bucket: Any, tmp_path: Path) -> Iterator[Path]:
    """Return a folder in which the commands run. Afterwards, the namespace and all new objects are deleted."""
    assert call("kubectl", "get", "namespace", "mri", ok=False).returncode, "the namespace mri exists already"
    before = {item.key for item in bucket.objects.all()}
    for name in ("helm", "workflows"):
        (tmp_path / name).symlink_to(ROOT / name)
    documents.install(tmp_path / "bin" / "mrigan")
    smallest = yaml.safe_load((ROOT / "workflows" / "examples" / "smallest.yaml").read_text())
    parameters = {one["name"]: one["value"] for one in smallest["spec"]["arguments"]["parameters"]}
    data = parameters.pop("data")
    # The run of the smallest example: each later workflow finds it finished and ends after its first pod.
    values = {
        "s3": {"endpoint": ENVIRONMENT["AWS_ENDPOINT_URL"], "region": "us-east-1"},
        "storage": "s3://mrigan",
        "data": data,
        "parameters": parameters,
        "schedule": {"enabled": True, "suspend": True, "parameters": {"data": data, "name": "phantom"}},
    } | (MONITORED if PROMETHEUS else {})
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(values))
    yield tmp_path
    call("kubectl", "delete", "namespace", "mri", "--ignore-not-found")
    for item in bucket.objects.all():
        # Other tests have a site of their own in the bucket.
        if item.key not in before and not item.key.startswith("e2e-"):
            item.delete()


def run(folder: Path, page: str) -> int:
    """Run the commands of a page that need only a cluster, and return their number; each must succeed."""
    environment = ENVIRONMENT | {"PATH": f"{folder / 'bin'}:{ENVIRONMENT['PATH']}"}
    commands = [command for command in documents.commands(ROOT / page) if re.match(IN_CLUSTER, command)]
    for command in commands:
        documents.run(command, folder, environment, LIMIT)
    return len(commands)


def succeeded() -> int:
    """Return the number of workflows in the namespace; all must have succeeded."""
    found = json.loads(call("kubectl", "-n", "mri", "get", "workflows", "-o", "json").stdout)["items"]
    phases = {one["metadata"]["name"]: one["status"]["phase"] for one in found}
    assert set(phases.values()) == {"Succeeded"}, phases
    return len(phases)


@pytest.mark.skipif(IMAGE != "localhost/mrigan:dev", reason="README's commands take the chart's default image")
def test_readme_and_operator_page(folder: Path, bucket: Any) -> None:
    assert run(folder, "README.md") == 5
    assert succeeded() == 2
    assert [item.key for item in bucket.objects.filter(Prefix="runs/") if item.key.endswith("report/report.html")]
    call("kubectl", "delete", "namespace", "mri", "--timeout=300s")
    assert run(folder, "docs/operator.md") > 10
    # `helm uninstall` deletes the scheduled workflow with its CronWorkflow.
    assert succeeded() == 3
