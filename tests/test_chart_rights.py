"""What the chart's accounts may do, and who holds their tokens."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.test_chart import EVERYTHING, ROOT, SCENARIOS, Json, pod_specs, render

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
# Of docs/runbook.md: what is left to the operator, and what the other commands need in the workflows' namespace.
OPERATORS = {"kubectl exec POD", "kubectl get podmonitor", "kubectl describe deploy/mrigan-exporter"}
NEEDED = {
    "mrigan status": ["list workflows.argoproj.io", "get pods"],
    "mrigan submit": [
        *(f"get {kind}.argoproj.io" for kind in ("workflowtemplates", "workflows")),
        "create workflows.argoproj.io",
        "get pods",
    ],
    "argo get": ["get workflows.argoproj.io"],
    "argo logs": ["get workflows.argoproj.io", "list pods", "watch pods", "get pods/log"],
    "argo stop": ["get workflows.argoproj.io", "patch workflows.argoproj.io"],
    "argo submit": [
        "create workflows.argoproj.io",
        *(f"get {kind}.argoproj.io" for kind in ("workflowtemplates", "cronworkflows")),
    ],
    "kubectl get pods": ["list pods"],
    "kubectl describe pod": ["get pods", "list events"],
    "kubectl delete pod": ["delete pods"],
    "kubectl top pod": ["get pods.metrics.k8s.io"],
    "kubectl logs -l": ["list pods", "get pods/log"],
    "kubectl get cronworkflow": ["list cronworkflows.argoproj.io"],
    "kubectl describe cronworkflow": ["get cronworkflows.argoproj.io", "list events"],
}


def rights(role: Json) -> set[str]:
    """Return what a Role allows, as in `get pods`."""
    return {
        f"{verb} {'.'.join(filter(None, (resource, group)))}"
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
    }


def test_every_right_has_a_reason_in_the_docs() -> None:
    found = render(EVERYTHING | {"name": "mrigan"})
    assert not [kind for kind, _ in found if kind.startswith("Cluster")]
    assert not [rule for (kind, _), one in found.items() if kind == "Role" for rule in one["rules"] if len(rule) > 3]
    given = {(name, right) for (kind, name), one in found.items() if kind == "Role" for right in rights(one)}
    rows = re.findall(r"(?m)^\| `([\w-]+)` \| ([a-z, ]+) \| ([\w./]+) \| \S", (ROOT / "docs/operator.md").read_text())
    explained = [(account, f"{verb} {kind}") for account, verbs, kind in rows for verb in verbs.split(", ")]
    assert sorted(explained) == sorted(given)


def test_who_submits_may_do_what_the_runbook_says() -> None:
    allowed = rights(render()["Role", "mrigan-submit"])
    text = " ".join((ROOT / "docs" / "runbook.md").read_text().split())
    asked = re.findall(r"(?:argo|mrigan) \w+(?= -n mri| --namespace mri)|kubectl -n mri \w+ [\w/-]+", text)
    commands = {word.replace(" -n mri", "") for word in asked} - OPERATORS
    assert commands >= {"argo stop", "kubectl delete pod", "kubectl top pod"}
    assert commands <= NEEDED.keys()
    assert {right for command in commands for right in NEEDED[command]} <= allowed
    # `argo suspend`, `argo resume`, `argo cron suspend` and `argo cron resume`.
    assert allowed >= {"update workflows.argoproj.io", "patch cronworkflows.argoproj.io"}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_no_job_has_a_token(path: Path) -> None:
    found = render(yaml.safe_load(path.read_text()) | {"exporter": {"enabled": True}})
    specs = pod_specs(list(found.values()))
    assert [spec["automountServiceAccountToken"] for spec in specs] == [False, False], "the exporter's and the check's"
    [workflow] = (one["spec"] for (kind, _), one in found.items() if kind == "WorkflowTemplate")
    # Kubernetes mounts the token into each container that has nothing else at its path.
    [mount] = (one for one in workflow["templateDefaults"]["container"]["volumeMounts"] if one["mountPath"] == TOKEN)
    assert {"name": mount["name"], "emptyDir": {}} in workflow["volumes"]
    assert not any("volumeMounts" in one.get("container", {}) for one in workflow["templates"])
    assert not any(kind in one for one in workflow["templates"] for kind in ("script", "containerSet", "resource"))
