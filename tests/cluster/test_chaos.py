"""Faults of a cluster during whole workflows: `make e2e-chaos`, half an hour on 2 cores.

After each fault the workflow ends green with the outputs of an undisturbed pipeline, or with one line that says what to
change.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.conftest import BUCKET, TINY, Json, Site, call, has_ended, pod_name, pods, running
from tests.cluster.test_run import outputs, restricted_pod

JOBS = ("preprocess", "draw-phantoms", "pretrain", "train-gan", "generate", "train-classifier", "evaluate", "promote")
OUTAGE = 60  # seconds without S3, and without the kubelet
S3 = ("storage", "deploy/s3")  # namespace and workload of the S3 server


@pytest.fixture(scope="module")
def wanted(site: Site, bucket: Any) -> Json:
    """Return the outputs of an undisturbed pipeline in one pod."""
    prefix = f"{site.prefix}-wanted"
    words = ["pipeline", "--data", site.data, "--storage", f"s3://{BUCKET}/{prefix}", "--workers", "1"]
    words += ["--name", f"{site.prefix}-data", "--no-gan-conditional"]
    words += [f"--{name}={value}" for name, value in TINY.items() if name != "gan-conditional"]
    site.apply(restricted_pod("wanted", words, site.get("nodes")["items"][0]["metadata"]["name"]))
    site.pod_end("wanted")
    return outputs(bucket, prefix)


def submit(site: Site, place: str) -> str:
    """Submit the whole pipeline with a storage of its own; return the workflow's name."""
    return site.argo_submit("--from", "workflowtemplate/mrigan", storage=f"{site.storage}-{place}")


def same(site: Site, bucket: Any, place: str, wanted: Json) -> None:
    """Assert that a workflow has left the outputs of the undisturbed pipeline, and no others."""
    found = outputs(bucket, f"{site.prefix}-{place}")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_each_kind_of_pod_is_deleted_once(site: Site, bucket: Any, wanted: Json) -> None:
    name = submit(site, "deleted")
    deleted: set[str] = set()

    def disturbed(found: Json) -> bool:
        """Delete the first pod of each job as soon as it runs: the workflow itself says so some seconds late."""
        for pod in site.get("pods", "-l", f"workflows.argoproj.io/workflow={name}")["items"]:
            of = pod["metadata"]["labels"]["mrigan/job"]
            if of not in deleted and pod["status"].get("phase") == "Running":
                site.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", ok=False)
                deleted.add(of)
        return has_ended(found)

    ended = site.wait(name, disturbed, limit=1800)
    assert ended["status"]["phase"] == "Succeeded", ended["status"].get("message")
    assert deleted == set(JOBS)
    same(site, bucket, "deleted", wanted)


def scaled(replicas: int) -> None:
    """Scale the S3 server."""
    call("kubectl", "-n", S3[0], "scale", S3[1], f"--replicas={replicas}")
    call("kubectl", "-n", S3[0], "rollout", "status", S3[1], "--timeout=120s")


def without_s3() -> None:
    """Take the S3 server away for a minute."""
    scaled(0)
    time.sleep(OUTAGE)
    scaled(1)


def without_kubelet() -> None:
    """Stop this machine's kubelet for a minute."""
    subprocess.run(["pkill", "-STOP", "-x", "kubelet"], check=True)
    try:
        time.sleep(OUTAGE)
    finally:
        subprocess.run(["pkill", "-CONT", "-x", "kubelet"], check=True)


def without_controller() -> None:
    """Kill Argo's controller."""
    words = ("-A", "-l", "app=workflow-controller", "-o", "jsonpath={.items[*].metadata.namespace}")
    namespace = call("kubectl", "get", "pods", *words).stdout.split()[0]
    call("kubectl", "-n", namespace, "delete", "pod", "-l", "app=workflow-controller", "--grace-period=0", "--force")


FAULTS: dict[str, tuple[str, Callable[[], None]]] = {
    "controller": ("pretrain", without_controller),
    "s3": ("train-gan", without_s3),
    "kubelet": ("train-classifier", without_kubelet),
}


def test_a_cluster_loses_its_controller_its_storage_and_its_kubelet(site: Site, bucket: Any, wanted: Json) -> None:
    """One after another, each while another kind of task runs."""
    name = submit(site, "outages")
    for of, fault in FAULTS.values():
        site.wait(name, lambda found, of=of: bool(running(found, of)))
        fault()
    ended = site.wait(name, limit=1800)
    assert ended["status"]["phase"] == "Succeeded", ended["status"].get("message")
    same(site, bucket, "outages", wanted)


@pytest.fixture
def changed(site: Site) -> Iterator[Callable[[Json], None]]:
    """Give a function that upgrades the release with other values; the old ones come back afterwards."""
    values = site.values
    yield lambda others: site.helm("upgrade", values | others)
    site.helm("upgrade", values)


ONE_CLASSIFIER = {"regimes": "real", "healthy": "off"}


def test_a_pod_out_of_memory_gets_more(site: Site, changed: Callable[[Json], None]) -> None:
    resources = {"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}}
    changed({"training": {"resources": resources, "moreMemory": ["210Mi", "3Gi"]}})
    name = site.argo_submit("--from", "workflowtemplate/mrigan", storage=f"{site.storage}-memory", **ONE_CLASSIFIER)
    ended = site.wait(name, limit=1800)
    assert ended["status"]["phase"] == "Succeeded", ended["status"].get("message")
    tries = sorted(
        (node for node in pods(ended, "train-classifier") if "fold(0:0)" in node["name"]), key=lambda node: node["name"]
    )
    assert [node["phase"] for node in tries] == ["Failed", "Failed", "Succeeded"]
    assert all("OOMKilled" in node["message"] for node in tries[:2])


def test_a_pod_that_fills_its_disk_is_not_tried_again(site: Site, changed: Callable[[Json], None]) -> None:
    changed({"tmpSize": "20Mi"})
    name = site.argo_submit("--from", "workflowtemplate/mrigan", storage=f"{site.storage}-disk", **ONE_CLASSIFIER)
    training = site.wait(name, lambda found: bool(running(found, "train-classifier")))
    pod = pod_name(training, running(training, "train-classifier")[0])
    site.kubectl("exec", pod, "-c", "main", "--", "python", "-c", "open('/tmp/full', 'wb').write(bytes(40 << 20))")
    ended = site.wait(name, limit=600)
    assert ended["status"]["phase"] == "Failed"
    (node,) = (node for node in pods(ended, "train-classifier") if pod_name(ended, node) == pod)
    assert 'EmptyDir volume "tmp" exceeds the limit "20Mi"' in node["message"], node["message"]
    assert "tmpSize" in site.mrigan("status", name, ok=False).stdout
