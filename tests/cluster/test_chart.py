"""The chart in a real namespace: what the server takes, who may do what, upgrade and uninstall during a run."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import CHART, IMAGE, ROOT, Site, call, pods, running
from tests.test_chart_rights import TOKEN

YAML = [*sorted((ROOT / "workflows").glob("*.yaml")), *sorted((ROOT / "workflows" / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.stem)
def test_the_full_schema_takes_the_plain_workflows(site: Site, path: Path) -> None:
    plain = yaml.safe_load(path.read_text())
    # Beside the chart's own of that name.
    plain["metadata"] |= {"name": "plain"} if "name" in plain["metadata"] else {}
    site.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=yaml.safe_dump(plain))


def test_argo_lint_finds_nothing() -> None:
    # Offline, since it looks for the WorkflowTemplate of an example among the files then.
    assert "no linting errors" in call("argo", "lint", "--offline", "workflows").stdout


@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_server_takes_every_scenario(site: Site, values: Path) -> None:
    words = ("helm", "template", "mrigan", str(CHART), "-n", site.namespace, "--skip-tests", "-f", str(values))
    rendered = call(*words).stdout
    site.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)


def test_helm_test_tries_storage(site: Site) -> None:
    assert "Succeeded" in call("helm", "test", "mrigan", "-n", site.namespace).stdout


@pytest.mark.parametrize(
    ("account", "allowed"),
    [
        ("mrigan", {"create workflowtaskresults", "patch workflowtaskresults"}),
        (
            "mrigan-submit",
            {
                "create workflows",
                "get workflows",
                "list workflows",
                "get workflowtemplates",
                "get pods",
                "get pods/log",
                "list events",
                "delete pods",
                "patch workflows",
                "update workflows",
                "patch cronworkflows",
            },
        ),
    ],
)
def test_accounts_may_do_what_they_must_and_no_more(site: Site, account: str, allowed: set[str]) -> None:
    asked = allowed | {
        *("create workflowtaskresults", "get secrets", "list secrets", "get configmaps", "get events", "get pods"),
        *("create pods", "delete pods", "create pods/exec"),
        *("create workflows", "delete workflows", "patch workflowtemplates"),
    }
    who = f"--as=system:serviceaccount:{site.namespace}:{account}"
    answers = {one: site.kubectl("auth", "can-i", *one.split(), who, ok=False).stdout.strip() for one in asked}
    assert {one for one, answer in answers.items() if answer == "yes"} == allowed
    elsewhere = call("kubectl", "-n", "default", "auth", "can-i", "create", "workflows", who, ok=False)
    assert elsewhere.stdout.strip() == "no"


def test_only_argos_containers_have_a_token(site: Site) -> None:
    # The pod of a workflow that failed stays.
    name = site.mrigan("submit", "data=s3://mrigan-of-nobody/x", "--no-watch").stdout.strip()
    assert site.wait(name)["status"]["phase"] == "Failed"
    [pod] = site.get("pods", "-l", f"workflows.argoproj.io/workflow={name}")["items"]
    holders = {
        one["name"]
        for one in (*pod["spec"]["initContainers"], *pod["spec"]["containers"])
        for mount in one["volumeMounts"]
        if mount["mountPath"] == TOKEN and mount["name"] != "no-token"
    }
    assert holders == {"init", "wait"}


def test_a_job_can_change_no_file_of_the_image(site: Site) -> None:
    spec = site.get("workflowtemplate", "mrigan")["spec"]
    # Of a read-only file system, find would say that nothing is writable.
    rights = spec["templateDefaults"]["container"]["securityContext"] | {"readOnlyRootFilesystem": False}
    looked = "find / -xdev -writable ! -type l 2>/dev/null; find /opt ! -user root"
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", looked], "securityContext": rights}
    pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    pod["securityContext"] = spec["securityContext"]
    site.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "files"}, "spec": pod})
    try:
        site.pod_end("files")
        # Debian's own places for temporary files.
        assert set(site.kubectl("logs", "files").stdout.split()) <= {"/tmp", "/var/tmp", "/run/lock"}
    finally:
        site.kubectl("delete", "pod", "files")


def test_a_run_keeps_its_spec_through_an_upgrade_and_an_uninstall(site: Site) -> None:
    """It goes on though the chart comes back with other values, and the chart leaves none of its objects behind."""
    # A name of its own, so that the champion of other tests stays.
    settings = {"seed": "3", "regimes": "real", "name": "upgrade", "classifier_epochs": "2"}
    name = site.argo_submit("--from", "workflowtemplate/mrigan", **settings)
    site.wait(name, lambda found: bool(pods(found)))
    kept = site.get("workflow", name)["status"]["storedWorkflowTemplateSpec"]
    values = site.values
    try:
        site.helm("upgrade", values | {"parallelism": 1, "timeout": "1h"})
        assert site.get("workflowtemplate", "mrigan")["spec"]["parallelism"] == 1
        site.wait(name, lambda found: bool(running(found, "train-classifier")))
        # The pods that it has go on; a next one would be refused while there is no service account.
        call("argo", "suspend", "-n", site.namespace, name)
        call("helm", "uninstall", "mrigan", "-n", site.namespace, "--wait")
        kinds = "workflowtemplates,cronworkflows,roles,rolebindings,serviceaccounts,configmaps,networkpolicies,services"
        kinds += ",deployments,podmonitors,prometheusrules"
        left = site.kubectl("get", kinds, "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name").stdout
        assert left == ""
    finally:
        words = ("list", "-n", site.namespace, "-q")
        site.helm("upgrade" if call("helm", *words).stdout.strip() else "install", values)
    call("argo", "resume", "-n", site.namespace, name)
    ended = site.wait(name)
    assert ended["status"]["phase"] == "Succeeded", ended["status"].get("message")
    assert ended["status"]["storedWorkflowTemplateSpec"] == kept
    assert kept["parallelism"] == values["parallelism"] == 3
    assert pods(ended, "promote")


def test_the_argo_server_is_another_way(site: Site) -> None:
    where = "jsonpath={.items[*].metadata.namespace} {.items[*].spec.clusterIP}"
    words = ("get", "services", "-A", "--field-selector=metadata.name=argo-server", "-o", where)
    found = call("kubectl", *words).stdout.split()
    if not found:
        pytest.skip("no Argo server")
    namespace, address = found
    call("kubectl", "-n", namespace, "wait", "--for=condition=Available", "deploy/argo-server", "--timeout=120s")
    token = site.kubectl("create", "token", "mrigan-submit").stdout.strip()
    server = {"ARGO_SERVER": f"{address}:2746", "ARGO_TOKEN": f"Bearer {token}"}
    refused = site.mrigan("status", ok=False, env=server)
    assert refused.returncode == 2 and "SSL_CERT_FILE" in refused.stderr
    trusted = server | {"ARGO_INSECURE_SKIP_VERIFY": "true"}
    ended = site.mrigan("submit", "image-size=5", "--no-watch", ok=False, env=trusted)
    assert ended.returncode == 2 and "image-size" in ended.stderr
    name = site.mrigan("submit", "data=s3://mrigan-of-nobody/x", "--no-watch", env=trusted).stdout.strip()
    assert site.wait(name)["status"]["phase"] == "Failed"
    assert "there is no bucket" in site.mrigan("status", name, env=trusted).stdout
