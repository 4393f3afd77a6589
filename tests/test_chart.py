"""The chart installs the workflow files as they are: only the site's fields differ, and each only if it is set."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.common.s3 import S3
from jobs.common.storage import open_storage

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "mrigan"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = "1.34"
# Their schemas are a cluster's: tests/cluster tries them.
CUSTOM = ("WorkflowTemplate", "CronWorkflow", "PodMonitor", "PrometheusRule")

Json = Any

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def helm(*words: str | Path, values: Json = None) -> subprocess.CompletedProcess[str]:
    """Run helm, with values on its standard input."""
    command = ["helm", *map(str, words), "-f", "-"]
    return subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True, timeout=60)


def render(values: Json = None, namespace: str = "there", chart: Path = CHART) -> dict[tuple[str, str], Json]:
    """Return what the chart makes of the values, by kind and name."""
    ended = helm("template", "site", chart, "--namespace", namespace, values=values)
    assert ended.returncode == 0, ended.stderr
    found = [one for one in yaml.safe_load_all(ended.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def refusal(values: Json) -> str:
    """Return why the chart does not take the values."""
    ended = helm("template", "site", CHART, values=values)
    assert ended.returncode != 0
    return ended.stderr


def plain(name: str) -> Json:
    """Return the spec of a workflow file."""
    return yaml.safe_load((ROOT / "workflows" / name).read_text())["spec"]


def templates(values: Json) -> list[Json]:
    """Return the templates of the workflow for these values."""
    return render(values)["WorkflowTemplate", "mrigan"]["spec"]["templates"]


def leaves(thing: Json, path: str = "") -> dict[str, Json]:
    """Return every value below `thing` by its path; items of a list go by their names, and YAML in a string is read."""
    if path.endswith("podSpecPatch"):
        thing = yaml.safe_load(thing)
    if isinstance(thing, list) and all(isinstance(one, dict) and "name" in one for one in thing):
        thing = {one["name"]: {key: value for key, value in one.items() if key != "name"} or True for one in thing}
    elif isinstance(thing, list):
        thing = {str(place): one for place, one in enumerate(thing)}
    if not isinstance(thing, dict) or not thing:
        return {path: thing}
    return {
        deep: value for key, below in thing.items() for deep, value in leaves(below, f"{path} {key}".strip()).items()
    }


def changed(one: Json, other: Json) -> set[str]:
    """Return the paths whose values are not the same in both."""
    first, second = leaves(one), leaves(other)
    return {path for path in first | second if path not in first or path not in second or first[path] != second[path]}


# ---- the workflows ---------------------------------------------------------------------------------------------------

TRAINING = ("training-task",)
LIGHT = ("preprocess", "task", "phantom")
PLACED = {
    "resources": {"requests": {"cpu": 3, "ephemeral-storage": "9Gi"}},
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "taint", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "runtimeClassName": "nvidia",
}
EVERYTHING = {
    "name": "other",
    "image": {"repository": "images.example.org/mrigan", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "parameters": {"preset": "quick", "seeds": 1000000, "settings": "gan_learning_rate: 0.0002"},
    "storage": "s3://bucket/some/prefix",
    "data": "s3://bucket/images",
    "gpus": 1,
    "gpuResource": "example.org/gpu",
    "s3": {"endpoint": "https://s3.example.org:9000", "region": "eu-central-1", "existingSecret": "keys"},
    "caBundle": {"configMap": "authorities", "key": "bundle.pem"},
    "proxy": {"http": "http://proxy:3128", "https": "http://proxy:3128", "none": ".example.org"},
    "extraEnv": [{"name": "MORE", "value": "1"}],
    "training": PLACED | {"moreMemory": ["24Gi"]},
    "light": PLACED | {"image": {"tag": "cpu"}},
    "executor": {"resources": {"limits": {"memory": "64Mi"}}},
    "tmpSize": "9Gi",
    "parallelism": 2,
    "timeout": "1h",
    "pendingTimeout": "6h",
    "activeDeadlineSeconds": 7200,
    "ttlStrategy": {"secondsAfterSuccess": 1, "secondsAfterFailure": 2},
    "priorityClassName": "batch",
    "podLabels": {"queue": "mri", "app.kubernetes.io/name": "not-this"},
    "podAnnotations": {"note": "this"},
    "schedule": {
        "enabled": True,
        "schedules": ["0 1 * * 0"],
        "timezone": "Europe/Berlin",
        "suspend": True,
        "startingDeadlineSeconds": 60,
        "parameters": {"preset": "quick", "seeds": 5},
    },
}
SITE_ENV = (
    *("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION"),
    *("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
REACH = {
    *(f"env {name} value" for name in SITE_ENV),
    "envFrom 0 secretRef name",
    "volumeMounts ca-bundle mountPath",
    "volumeMounts ca-bundle readOnly",
}
WORKFLOW = {
    *(f"arguments parameters {name} value" for name in ("preset", "seeds", "settings", "storage", "data", "gpus")),
    *("serviceAccountName", "parallelism", "podPriorityClassName", "imagePullSecrets registry"),
    "activeDeadlineSeconds",
    *("ttlStrategy secondsAfterSuccess", "ttlStrategy secondsAfterFailure"),
    *("podMetadata labels queue", "podMetadata annotations note"),
    *("volumes tmp emptyDir sizeLimit", "volumes ca-bundle configMap name", "volumes ca-bundle configMap optional"),
    *(f"volumes ca-bundle configMap items 0 {name}" for name in ("key", "path")),
    *(f"templateDefaults container {path}" for path in REACH | {"image", "imagePullPolicy", "env MORE value"}),
}
CONTAINERS = {
    f"podSpecPatch {container} {path}"
    for container in ("containers wait", "initContainers init")
    for path in REACH | {"resources limits memory"}
}
JOBS = {
    f"templates {job} {path}"
    for job in (*TRAINING, *LIGHT)
    for path in (
        *("container resources requests cpu", "container resources requests ephemeral-storage"),
        *("timeout", "pendingTimeout", "nodeSelector pool", "tolerations 0 key", "tolerations 0 operator"),
        "affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms",
        "podSpecPatch runtimeClassName",
        *(["container image"] if job in LIGHT else []),
    )
}
PATCHED = {
    f"templates {job} podSpecPatch containers main resources {name}"
    for job in TRAINING
    for name in ("limits nvidia.com/gpu", "limits example.org/gpu", "limits memory", "requests memory")
}


def test_with_its_defaults_the_workflow_is_the_files() -> None:
    rendered = render()["WorkflowTemplate", "mrigan"]["spec"]
    assert changed(plain("workflowtemplate.yaml"), rendered) == set()


def test_a_site_changes_its_fields_and_no_others() -> None:
    rendered = render(EVERYTHING)["WorkflowTemplate", "other"]["spec"]
    assert changed(plain("workflowtemplate.yaml"), rendered) == WORKFLOW | CONTAINERS | JOBS | PATCHED
    found = leaves(rendered)
    texts = [found[f"arguments parameters {name} value"] for name in EVERYTHING["parameters"]]
    assert texts == ["quick", "1000000", "gan_learning_rate: 0.0002"]
    assert found["templateDefaults container image"] == "images.example.org/mrigan@sha256:" + "0" * 64
    assert {found[f"templates {job} container image"] for job in LIGHT} == {"images.example.org/mrigan:cpu"}
    assert found["templates training-task podSpecPatch containers main resources limits example.org/gpu"] == (
        "{{workflow.parameters.gpus}}"
    )


def test_yaml_does_not_escape_expressions_of_argo() -> None:
    """Argo evaluates them in the text of a patch, before it reads the YAML."""
    for template in templates({}):
        for expression in re.findall(r"\{\{=.*?\}\}", template.get("podSpecPatch", ""), re.DOTALL):
            assert "''" not in expression and "\\" not in expression


@pytest.mark.parametrize("values", [{"moreMemory": []}, {"resources": {"requests": None, "limits": None}}])
def test_a_site_without_more_memory_or_limits_keeps_its_resources(values: Json) -> None:
    (template,) = (one for one in templates({"training": values}) if one["name"] == "training-task")
    patch = yaml.safe_load(template["podSpecPatch"])["containers"][0]["resources"]
    assert patch == {"requests": {}, "limits": {"nvidia.com/gpu": "{{workflow.parameters.gpus}}"}}


def test_boto3_takes_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = render({"s3": {"region": "eu-central-1"}})["WorkflowTemplate", "mrigan"]["spec"]
    env = {one["name"]: one["value"] for one in rendered["templateDefaults"]["container"]["env"]}
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
        if name in env:
            monkeypatch.setenv(name, env[name])
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    storage = open_storage("s3://bucket")
    assert isinstance(storage, S3) and storage.client.meta.region_name == "eu-central-1"


def test_every_job_is_light_or_trains() -> None:
    jobs = {one["name"] for one in plain("workflowtemplate.yaml")["templates"] if "container" in one}
    assert jobs == {*TRAINING, *LIGHT}


def test_the_schedule_is_the_files_until_a_site_has_its_own() -> None:
    assert ("CronWorkflow", "mrigan-retrain") not in render()
    rendered = render({"schedule": {"enabled": True}})["CronWorkflow", "mrigan-retrain"]["spec"]
    assert changed(plain("cronworkflow.yaml"), rendered) == set()
    rendered = render(EVERYTHING)["CronWorkflow", "other-retrain"]["spec"]
    assert changed(plain("cronworkflow.yaml"), rendered) == {
        *("schedules 0", "timezone", "suspend", "startingDeadlineSeconds"),
        "workflowSpec workflowTemplateRef name",
        *(f"workflowSpec arguments parameters {name} value" for name in ("preset", "seeds")),
    }


def pod_specs(thing: Json) -> list[Json]:
    """Return every pod's spec below `thing`: it is what has containers."""
    below = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else ()
    own = [thing] if isinstance(thing, dict) and "containers" in thing else []
    return own + [spec for one in below for spec in pod_specs(one)]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_no_pod_gets_the_variables_of_services(path: Path) -> None:
    found = render(yaml.safe_load(path.read_text()) | {"exporter": {"enabled": True}})
    [workflow] = (one["spec"] for (kind, _), one in found.items() if kind == "WorkflowTemplate")
    assert yaml.safe_load(workflow["podSpecPatch"])["enableServiceLinks"] is False
    specs = pod_specs(list(found.values()))
    assert len(specs) == 2, "the exporter's and the check's"
    assert [spec.get("enableServiceLinks") for spec in specs] == [False, False]


def test_without_a_secret_no_pod_refers_to_one() -> None:
    rendered = render({"s3": {"existingSecret": ""}})
    assert "secretRef" not in json.dumps(list(rendered.values()))


# ---- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_every_scenario_is_valid(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = render(yaml.safe_load(path.read_text()))
    assert found
    for (kind, _), one in found.items():
        assert one["metadata"]["namespace"] == "there"
        if kind not in CUSTOM:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_lint() -> None:
    ended = helm("lint", "--strict", CHART)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("storage", "endpoint", "there"),
    [
        ("s3://mrigan", "", ("mrigan", "s3.amazonaws.com", False, "artifacts/")),
        ("s3://bucket/c/d/", "http://s3.storage:8333", ("bucket", "s3.storage:8333", True, "c/d/artifacts/")),
        ("s3://bucket/c", "https://s3.example.org/", ("bucket", "s3.example.org", False, "c/artifacts/")),
    ],
)
def test_artifacts_go_below_the_storage(storage: str, endpoint: str, there: tuple[str, str, bool, str]) -> None:
    rendered = render({"storage": storage, "s3": {"endpoint": endpoint}})["ConfigMap", "artifact-repositories"]
    key = rendered["metadata"]["annotations"]["workflows.argoproj.io/default-artifact-repository"]
    found = yaml.safe_load(rendered["data"][key])["s3"]
    names = "{{workflow.namespace}}/{{workflow.name}}/{{pod.name}}"
    assert (found["bucket"], found["endpoint"], found["insecure"]) == there[:3]
    assert found["keyFormat"] == there[3] + names
    assert found["useSDKCreds"] is True and "accessKeySecret" not in found


def test_the_check_runs_as_the_jobs_do() -> None:
    rendered = render(EVERYTHING)
    spec = rendered["WorkflowTemplate", "other"]["spec"]
    pod = rendered["Pod", "other-check"]["spec"]
    job = spec["templateDefaults"]["container"]
    container = pod["containers"][0]
    assert {name: container[name] for name in job} == job | {"image": "images.example.org/mrigan:cpu"}
    for name in ("nodeSelector", "tolerations", "affinity", "runtimeClassName"):
        assert pod[name] == PLACED[name]
    assert container["args"] == ["check", "--storage", EVERYTHING["storage"], "--data", EVERYTHING["data"]]
    assert (pod["securityContext"], pod["volumes"]) == (spec["securityContext"], spec["volumes"])
    assert pod["serviceAccountName"] == spec["serviceAccountName"] == "other"


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("", 443),
        ("https://s3.example.org", 443),
        ("http://s3.example.org/", 80),
        ("http://minio.minio:9000", 9000),
        ("https://s3.example.org:8443/", 8443),
    ],
)
def test_a_network_policy_lets_the_s3_endpoint_through(endpoint: str, port: int) -> None:
    def ports(**more: Json) -> Json:
        values = {"s3": {"endpoint": endpoint}, "networkPolicy": {"enabled": True, **more}}
        return render(values)["NetworkPolicy", "mrigan"]["spec"]["egress"][1]["ports"]

    assert ports() == [{"protocol": "TCP", "port": port}]
    assert ports(s3={"ports": [1]}) == [{"protocol": "TCP", "port": 1}]


def test_labels_for_a_queue_are_the_workflows_only() -> None:
    values = {"podLabels": {"queue": "mri"}, "exporter": {"enabled": True}, "networkPolicy": {"enabled": True}}
    found = render(values)
    assert found["WorkflowTemplate", "mrigan"]["spec"]["podMetadata"]["labels"]["queue"] == "mri"
    others = [
        found["Deployment", "mrigan-exporter"]["spec"]["template"]["metadata"]["labels"],
        found["Pod", "mrigan-check"]["metadata"]["labels"],
    ]
    selected = found["NetworkPolicy", "mrigan"]["spec"]["podSelector"]["matchLabels"]
    for labels in others:
        assert "queue" not in labels and labels.items() >= selected.items()


@pytest.mark.parametrize(
    ("image", "light", "expected"),
    [
        ({}, {}, "localhost/mrigan:dev"),
        ({}, {"tag": "cpu"}, "localhost/mrigan:cpu"),
        ({"digest": "sha256:" + "0" * 64}, {"tag": "cpu"}, "localhost/mrigan:cpu"),
        ({"tag": "gpu"}, {"repository": "here/small", "digest": "sha256:" + "1" * 64}, "here/small@sha256:" + "1" * 64),
    ],
)
def test_light_pods_have_their_own_image_where_a_site_sets_one(image: Json, light: Json, expected: str) -> None:
    found = render({"image": image, "light": {"image": light}, "exporter": {"enabled": True}})
    spec = found["WorkflowTemplate", "mrigan"]["spec"]
    default = spec["templateDefaults"]["container"]["image"]
    images = {one["container"].get("image", default) for one in spec["templates"] if one["name"] in LIGHT}
    pods = found["Deployment", "mrigan-exporter"]["spec"]["template"], found["Pod", "mrigan-check"]
    assert images | {pod["spec"]["containers"][0]["image"] for pod in pods} == {expected}


@pytest.mark.parametrize(("kinds", "ok"), [((), False), (("WorkflowArtifactGCTask",), True)])
def test_a_cluster_with_an_old_argo_or_none_is_refused(kinds: tuple[str, ...], ok: bool) -> None:
    # Only a cluster has this API, not `helm template`.
    there = ["apiregistration.k8s.io/v1", *(f"argoproj.io/v1alpha1/{kind}" for kind in ("WorkflowTemplate", *kinds))]
    ended = helm("template", "site", CHART, *(word for one in there for word in ("--api-versions", one)))
    assert (ended.returncode == 0) == ok
    assert ok or "no Argo Workflows, or one older than 3.4: install 3.6 or newer" in ended.stderr


def test_nothing_outlives_the_release() -> None:
    assert "resource-policy" not in json.dumps([one["metadata"] for one in render(EVERYTHING).values()])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"parameters": {"presett": "quick"}}, "parameters.presett: no such setting; there are: name, groups, "),
        ({"parameters": {"gpus": 1}}, "parameters.gpus: no such setting"),
        ({"schedule": {"enabled": True, "parameters": {"sedes": 5}}}, "schedule.parameters.sedes: no such setting"),
        ({"parameters": {"healthy": False}}, "parameters.healthy: YAML reads no, off and yes without quotes as false"),
        ({"schedule": {"enabled": True, "parameters": {"healthy": False}}}, "schedule.parameters.healthy: YAML reads"),
        ({"unknown": 1}, "'unknown' not allowed"),
        ({"image": {"registry": "here"}}, "'registry' not allowed"),
        ({"storage": "out"}, "does not match pattern"),
        ({"training": {"resources": {"limit": {}}}}, "'limit' not allowed"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_what_is_not_known_is_refused(values: Json, said: str) -> None:
    assert said in refusal(values)


def test_the_schema_knows_the_values_and_no_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
