"""A namespace of a real cluster with the chart in it, and an S3 bucket that cluster and tests both reach.

Needs KUBECONFIG, kubectl, helm and argo, an image built by `make image`, and AWS_ENDPOINT_URL with credentials.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from xdist.scheduler.loadscope import LoadScopeScheduling

from jobs.settings import MAIN

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "mrigan"
BUCKET = "mrigan"
IMAGE = os.environ.get("IMAGE", "localhost/mrigan:dev")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MRIGAN_")}
# As small as a run goes, but trainings of ten seconds and more: a GAN is killed while it trains, and Prometheus has to
# see the epochs of each kind.
TINY = {
    "image-size": "32",
    "folds": "2",
    "networks": "mobilenetv2",
    "regimes": "synthetic,real",
    "gan-epochs": "700",
    "gan-width": "4",
    "latent": "8",
    "gan-batch": "8",
    "synthetic-count": "16",
    "classifier-epochs": "60",
    "classifier-steps-per-epoch": "2",
    "classifier-batch": "8",
    "healthy": "healthy",
    "gan-conditional": "false",
    "phantoms": "16",
    "phantom-epochs": "1",
    "resamples": "100",
    "checkpoint-steps": "50",
}


def parameters(given: dict[str, str]) -> dict[str, str]:
    """Return settings as the workflow takes them: most go through the parameter `settings`."""
    own = {name: value for name, value in given.items() if name.replace("-", "_") in (*MAIN, "gpus", "preset")}
    others = {name.replace("-", "_"): value for name, value in given.items() if name not in own}
    return own | ({"settings": yaml.safe_dump(others)} if others else {})


# Where the address of a Prometheus with its operator is given.
PROMETHEUS = ENVIRONMENT.get("PROMETHEUS_URL", "")
MONITORED = {
    "metrics": {name: {"enabled": True} for name in ("podMonitor", "argo", "rules", "dashboards")},
    "exporter": {"enabled": True, "refreshSeconds": 5},
}
LIMIT = 900  # seconds until a workflow that does not end is a failure

Json = dict[str, Any]


def call(*words: str, ok: bool = True, limit: float = LIMIT, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended, with what it said; by default it must end well."""
    environment = ENVIRONMENT | more.pop("env", {})
    ended = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=environment, cwd=ROOT, **more)
    assert not ok or ended.returncode == 0, f"{' '.join(words)}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended


@dataclass
class Site:
    """The chart's release in a namespace, with its place in storage."""

    namespace: str
    prefix: str
    values: Json = field(default_factory=dict)
    # What Argo's executor logged beside a training: the progress that it was told of.
    overheard: str = ""

    @property
    def storage(self) -> str:
        """Where this site's outputs lie."""
        return f"s3://{BUCKET}/{self.prefix}"

    @property
    def data(self) -> str:
        """Where this site's images lie."""
        return f"s3://{BUCKET}/{self.prefix}-data"

    def kubectl(self, *words: str, ok: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the namespace."""
        return call("kubectl", "-n", self.namespace, *words, ok=ok, **more)

    def get(self, *words: str) -> Json:
        """Return what kubectl gets, as JSON."""
        return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def apply(self, thing: Json) -> None:
        """Create or change a Kubernetes object."""
        self.kubectl("apply", "-f", "-", input=json.dumps(thing))

    def mrigan(self, *words: str, ok: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run mrigan on this machine, as a person with only Python would."""
        env = {"ARGO_NAMESPACE": self.namespace} | more.pop("env", {})
        return call(sys.executable, "-m", "jobs.cli", *words, ok=ok, env=env, **more)

    def helm(self, command: str, values: Json) -> None:
        """Install or upgrade the release with `values`."""
        words = ("helm", command, "mrigan", str(CHART), "-n", self.namespace, "-f", "-", "--wait")
        call(*words, input=yaml.safe_dump(values))
        self.values = values

    def argo_submit(self, *words: str, **settings: str) -> str:
        """Submit with the argo command, beside TINY; return the workflow's name."""
        own = {name.replace("_", "-"): value for name, value in settings.items()}
        asked = parameters(TINY | own)
        asked = {name: value for name, value in asked.items() if name in own or name == "settings"}
        if words[0] != "--from":
            # An example has settings of its own.
            asked = parameters(own)
        given = [word for name, value in asked.items() for word in ("-p", f"{name}={value}")]
        return call("argo", "submit", "-n", self.namespace, *words, *given, "-o", "name").stdout.strip()

    def argo_end(self, workflow: str) -> None:
        """Stop a workflow, so that its pods leave the node to others."""
        call("argo", "terminate", "-n", self.namespace, workflow)
        self.wait(workflow)

    def pod_end(self, pod: str, limit: float = LIMIT) -> None:
        """Wait until a pod has succeeded; one that fails is seen at once, with the end of its log."""
        deadline = time.monotonic() + limit
        while (phase := self.get("pod", pod)["status"].get("phase")) not in ("Succeeded", "Failed"):
            assert time.monotonic() < deadline, f"{pod} is {phase} after {limit} s: {self.log_end(pod)}"
            time.sleep(1)
        assert phase == "Succeeded", f"{pod} failed: {self.log_end(pod)}"

    def log_end(self, pod: str) -> str:
        """Return the last lines of a pod's log."""
        return self.kubectl("logs", pod, "--tail=30", ok=False).stdout

    @contextmanager
    def following(self, pod: str, container: str = "main") -> Iterator[Iterable[str]]:
        """Give the lines of a container's log as they come."""
        words = ("kubectl", "-n", self.namespace, "logs", "-f", pod, "-c", container)
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            assert process.stdout
            yield process.stdout
            process.kill()

    def wait(self, workflow: str, until: Callable[[Json], bool] | None = None, limit: float = LIMIT) -> Json:
        """Return the workflow as soon as `until` holds of it (by default: it ended)."""
        deadline = time.monotonic() + limit
        while True:
            found = self.get("workflow", workflow)
            status, ended = found.get("status", {}), has_ended(found)
            if until(found) if until else ended:
                return found
            assert not ended, f"{workflow} ended before: {json.dumps(status)[:3000]}"
            assert time.monotonic() < deadline, f"{workflow} after {limit} s: {json.dumps(status)[:3000]}"
            time.sleep(1)


def has_ended(workflow: Json) -> bool:
    """Return whether a workflow is over."""
    return workflow.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error")


def job(node: Json) -> str:
    """Return the job of a pod node."""
    given = {one["name"]: one.get("value") for one in node.get("inputs", {}).get("parameters", ())}
    return given.get("job") or node["templateName"]


def pods(workflow: Json, of: str = "") -> list[Json]:
    """Return the pod nodes of a workflow, all or of one job; none before the controller has looked at it."""
    nodes = workflow.get("status", {}).get("nodes", {}).values()
    return [node for node in nodes if node["type"] == "Pod" and of in ("", job(node))]


def running(workflow: Json, of: str, attempt: int = 0) -> list[Json]:
    """Return the pod nodes of a job that run, of the first attempt or a later one."""
    return [
        node for node in pods(workflow, of) if node.get("phase") == "Running" and node["name"].endswith(f"({attempt})")
    ]


def pod_name(workflow: Json, node: Json) -> str:
    """Return the name of a pod node's pod."""
    return f"{workflow['metadata']['name']}-{node['templateName']}-{node['id'].rpartition('-')[2]}"


def logs(bucket: Any, workflow: str) -> dict[str, str]:
    """Return the archived logs of a workflow's pods by key."""
    found = bucket.objects.filter(Prefix="").all()
    return {
        item.key: item.get()["Body"].read().decode()
        for item in found
        if f"/{workflow}/" in item.key and item.key.endswith(".log")
    }


class FilesTogether(LoadScopeScheduling):
    """Gives each process whole files, and one of them all files that look at the fixture `first`."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "first" if file.endswith(("test_metrics.py", "test_run.py")) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    """Use it, whatever --dist says."""
    return FilesTogether(config, log)


@pytest.fixture(scope="session")
def bucket() -> Any:
    """Return the bucket, made if it is not there."""
    import boto3

    names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
    given = {argument: ENVIRONMENT[name] for name, argument in names.items()}
    resource = boto3.session.Session(region_name=ENVIRONMENT.get("AWS_REGION", "us-east-1"), **given).resource(
        "s3", endpoint_url=ENVIRONMENT["AWS_ENDPOINT_URL"]
    )
    if BUCKET not in [one.name for one in resource.buckets.all()]:
        # Another process may have made it since.
        with suppress(resource.meta.client.exceptions.BucketAlreadyOwnedByYou):
            resource.create_bucket(Bucket=BUCKET)
    return resource.Bucket(BUCKET)


def site_values(site: Site) -> Json:
    """Return the chart's values for a small site."""
    repository, _, tag = IMAGE.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag},
        "storage": site.storage,
        "data": site.data,
        "s3": {"endpoint": ENVIRONMENT["AWS_ENDPOINT_URL"], "region": ENVIRONMENT.get("AWS_REGION", "us-east-1")},
        "parallelism": 3,
        "parameters": parameters(TINY) | {"name": f"{site.prefix}-data"},
        "schedule": {"enabled": True, "suspend": True},
    } | (MONITORED if PROMETHEUS else {})


def secret(data: dict[str, str]) -> Json:
    """Return the Secret with the credentials."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mrigan-s3"}, "stringData": data}


GOOD = {name: ENVIRONMENT.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}


@pytest.fixture(scope="session")
def site(bucket: Any) -> Iterator[Site]:
    """Draw phantom heads in storage, and install the chart into a namespace that enforces restricted PodSecurity."""
    for tool in ("kubectl", "helm", "argo"):
        assert shutil.which(tool), f"{tool} is needed"
    mark = uuid.uuid4().hex[:6]
    here = Site(f"mrigan-e2e-{mark}", f"e2e-{mark}")
    call("kubectl", "create", "namespace", here.namespace)
    call("kubectl", "label", "namespace", here.namespace, "pod-security.kubernetes.io/enforce=restricted")
    # A Service of this name gives every pod that does not turn service links off MRIGAN_PORT and more.
    here.kubectl("create", "service", "clusterip", "mrigan", "--tcp=80")
    try:
        here.apply(secret(GOOD))
        here.mrigan("phantom", "--out", here.data, "--count", "8", env=GOOD)
        here.helm("install", site_values(here))
        yield here
    finally:
        # Whatever still writes ends with its namespace.
        call("kubectl", "delete", "namespace", here.namespace, "--timeout=180s", ok=False)
        bucket.objects.filter(Prefix=here.prefix).delete()


@pytest.fixture(scope="session")
def first(site: Site) -> Json:
    """Submit as a person with only Python would, kill a pod while it trains, and return the workflow that ended."""
    name = site.mrigan("submit", "--no-watch").stdout.strip()
    training = site.wait(name, lambda found: bool(running(found, "train-gan")))
    node = running(training, "train-gan")[0]
    pod = pod_name(training, node)
    # The pod that comes after it resumes from there. A log can be followed once its container runs.
    trained = False
    while not trained:
        assert site.get("pod", pod)["status"]["phase"] == "Running", site.log_end(pod)
        with site.following(pod) as lines:
            trained = any("epoch 50 of" in line for line in lines)
    site.kubectl("delete", "pod", pod, "--wait=false")
    again = site.wait(name, lambda found: bool(running(found, "train-gan", 1)) or has_ended(found))
    # A node shows its progress a minute late, which is longer than these pods last.
    for node in running(again, "train-gan", 1):
        with site.following(pod_name(again, node), "wait") as lines:
            site.overheard = "".join(lines)
    found = site.wait(name)
    assert found["status"]["phase"] == "Succeeded", found["status"].get("message")
    return found
