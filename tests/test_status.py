"""What `mrigan status WORKFLOW` prints about a workflow that runs."""

from typing import Any

import pytest

from jobs import status
from jobs.settings import StatusSettings


def running(storage: dict[str, Any], *tasks: tuple[str, str, str]) -> dict[str, Any]:
    """Return a workflow with pods of (job, task, phase), as Argo 4.0 answers it, without what nobody reads."""
    nodes: dict[str, Any] = {
        f"w-{number}": {
            "id": f"w-{number}",
            "name": f"w.{task}",
            "displayName": task,
            "type": "Pod",
            "phase": phase,
            "templateName": "training-task",
            "inputs": {"parameters": [{"name": "job", "value": job}, {"name": "task", "value": task}]},
        }
        for number, (job, task, phase) in enumerate(tasks)
    }
    made = {"outputs": {"parameters": [{"name": "run", "value": "5853d706be58"}]}}
    return {
        "metadata": {"name": "w", "creationTimestamp": "2026-11-01T10:00:00Z"},
        "spec": {"arguments": {"parameters": [{"name": "data", "value": "s3://b/data"}]} | storage},
        "status": {
            "phase": "Running",
            "nodes": nodes,
            "storedWorkflowTemplateSpec": {"arguments": {"parameters": [{"name": "storage", "value": "s3://mrigan/"}]}},
            **made,
        },
    }


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ({}, "s3://mrigan/runs/5853d706be58/fold-0/no tumour/gan/samples/"),
        (
            {"parameters": [{"name": "storage", "value": "s3://b/mine"}]},
            "s3://b/mine/runs/5853d706be58/fold-0/no tumour/gan/samples/",
        ),
    ],
    ids=["of the template", "of the workflow"],
)
def test_the_samples_of_each_running_gan_are_where_it_says(
    storage: dict[str, Any], folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = running(
        storage,
        ("train-gan", "train-gan(0:no tumour)", "Running"),
        ("train-gan", "train-gan(1:no tumour)", "Pending"),
        ("generate", "generate(2:no tumour)", "Running"),
    )

    class Cluster:
        namespace = "n"

        def workflow(self, name: str) -> dict[str, Any]:
            return found

        def pod(self, name: str) -> None:
            return None

    monkeypatch.setattr(status.cluster, "connect", lambda namespace: Cluster())
    status.run(StatusSettings(workflows=("w",)))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("samples")] == [f"samples of train-gan(0:no tumour): {folder}"]
