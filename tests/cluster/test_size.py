"""A plan of 20 classes, 10 folds, 2 networks and 3 seeds through Argo, in pods that do nothing: how large it becomes.

`make e2e-scale`, a quarter of an hour and more on 2 cores. The figures go to bench/results/scale/workflow.json.
"""

import json
import shlex
import time

import pytest

from bench.scale import page
from jobs import plan as planning
from jobs.argo import cluster, size
from tests.argo.test_size import CLASSES, MANY
from tests.cluster.conftest import ROOT, Json, Site, call
from tests.test_plan import plan

LIMIT = 3600  # seconds
EVERY = 20  # seconds between two looks at the object
NAME = "mrigan-nothing"


def doing_nothing(template: Json, stages: dict[str, list[str]]) -> Json:
    """Return the WorkflowTemplate with the same order and the same pods, which need little and do nothing.

    The first one still writes the plan's lists.
    """
    files = {"plan": "0" * 12, "run": "0" * 12, "state": "unfinished"}
    files |= {stage: json.dumps(items) for stage, items in stages.items()}
    script = "mkdir -p /tmp/plan; cd /tmp/plan"
    for file, text in files.items():
        script += f"; printf %s {shlex.quote(text)} > {file}"
    spec = template["spec"] | {"parallelism": 12, "podGC": {"strategy": "OnPodCompletion"}}
    for one in spec["templates"]:
        if "container" in one:
            one["container"] |= {
                "command": ["sh", "-c", script] if one["name"] == "preprocess" else ["true"],
                "args": [],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }
    return {**template, "metadata": {"name": NAME}, "spec": spec}


@pytest.fixture(scope="module")
def stages() -> dict[str, list[str]]:
    return planning.stages(plan(CLASSES, **MANY, gan_conditional=False), {})


@pytest.fixture(scope="module")
def ended(site: Site, stages: dict[str, list[str]]) -> Json:
    """Submit the plan and return its object, with the most bytes that it had, and the seconds until it ended."""
    site.apply(doing_nothing(site.get("workflowtemplate", "mrigan"), stages))
    workflow = {
        "apiVersion": f"{cluster.GROUP}/{cluster.VERSION}",
        "kind": "Workflow",
        "metadata": {"generateName": "mrigan-"},
        "spec": {"workflowTemplateRef": {"name": NAME}},
    }
    created = site.kubectl("create", "-f", "-", "-o", "name", input=json.dumps(workflow)).stdout.strip()
    name, began, largest = created.rpartition("/")[2], time.monotonic(), 0
    path = f"/apis/{cluster.GROUP}/{cluster.VERSION}/namespaces/{site.namespace}/workflows/{name}"
    while True:
        # As the server has it, with all that kubectl's output leaves out.
        text = call("kubectl", "get", "--raw", path).stdout
        found, largest = json.loads(text), max(largest, len(text.encode()))
        if found.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error"):
            return {"name": name, "text": text, "largest": largest, "seconds": time.monotonic() - began}
        assert time.monotonic() - began < LIMIT, f"{name} after {LIMIT} s: {found['status'].get('progress')}"
        time.sleep(EVERY)


def test_it_succeeds_without_a_database(ended: Json) -> None:
    status = json.loads(ended["text"])["status"]
    assert status["phase"] == "Succeeded", status.get("message")
    assert not status.get("offloadNodeStatusVersion")
    assert ended["largest"] < size.LIMIT


def test_the_plan_says_its_size_before(site: Site, ended: Json, stages: dict[str, list[str]]) -> None:
    found = json.loads(ended["text"])["status"]
    nodes = cluster.KubernetesApi(site.namespace).workflow(ended["name"])["status"]["nodes"]
    text = json.dumps(nodes, separators=(",", ":")).encode()
    as_it_is = found.get("compressedNodes") or text.decode()
    measured = size.Size(
        pods=sum(node["type"] == "Pod" for node in nodes.values()),
        nodes=len(text),
        compressed=len(size.compressed(text)),
        rest=len(ended["text"].encode()) - len(as_it_is.encode()),
    )
    estimated = size.of(stages)
    version = call("argo", "version", "--short").stdout.splitlines()[0]
    page.store_workflow(
        ROOT,
        {
            "argo": version.removeprefix("argo: "),
            "largest": ended["largest"],
            "seconds": round(ended["seconds"]),
            "measured": measured._asdict(),
            "estimated": estimated._asdict(),
        },
    )
    assert measured.pods == estimated.pods
    for name in ("nodes", "compressed", "stored"):
        ratio = getattr(estimated, name) / getattr(measured, name)
        assert 1 / 1.5 < ratio < 1.5, f"{name}: estimated {estimated}, measured {measured}"
    assert measured.is_compressed == bool(found.get("compressedNodes"))
