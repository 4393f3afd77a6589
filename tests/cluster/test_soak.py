"""200 workflows by the path of the schedule, 8 at a time: `make e2e-soak`. What stays when they are over?"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bench.chaos import page
from tests.cluster.conftest import BUCKET, GOOD, Json, Site, has_ended

COUNT, AT_ONCE = 200, 8
SECONDS = 120  # that Argo may take to delete the last pods
SMALL = {"regimes": "real", "healthy": "off", "classifier-epochs": "2"}


def exporter(site: Site) -> Json:
    """Return what the exporter's process holds."""
    (pod,) = site.get("pods", "-l", "app.kubernetes.io/component=exporter")["items"]
    name = pod["metadata"]["name"]
    script = "import os; print(open('/proc/1/status').read()); print('Files:', len(os.listdir('/proc/1/fd')))"
    text = site.kubectl("exec", name, "--", "python", "-c", script).stdout
    held = {line.partition(":")[0]: line.partition(":")[2].split() for line in text.splitlines() if ":" in line}
    path = f"/api/v1/namespaces/{site.namespace}/pods/{name}:9090/proxy/metrics"
    lines = site.kubectl("get", "--raw", path).stdout.splitlines()
    return {
        "memory in MiB": int(held["VmRSS"][0]) // 1024,
        "threads": int(held["Threads"][0]),
        "files": int(held["Files"][0]),
        "series": sum(not line.startswith("#") for line in lines),
        "restarts": sum(one["restartCount"] for one in pod["status"]["containerStatuses"]),
    }


def objects(site: Site) -> Json:
    """Return how many objects there are of each kind that a workflow makes, but for the workflows themselves."""
    kinds = ("pods", "configmaps", "secrets", "persistentvolumeclaims", "workflowtaskresults", "workflowtasksets")
    return {kind: len(site.get(kind)["items"]) for kind in kinds}


def ends(site: Site, index: int) -> Iterator[str]:
    """Yield the names of workflows on one data set, each submitted when it is asked for."""
    name = f"{site.prefix}-soak-{index}"
    site.mrigan("phantom", "--out", f"s3://{BUCKET}/{name}", "--count", "8", "--seed", str(index), env=GOOD)
    for _ in range(COUNT // AT_ONCE):
        yield site.argo_submit("--from", "cronwf/mrigan-retrain", data=f"s3://{BUCKET}/{name}", name=name, **SMALL)


def test_200_workflows_leave_nothing(site: Site, bucket: Any) -> None:
    began, before, held_before = time.monotonic(), objects(site), None
    queues = [ends(site, index) for index in range(AT_ONCE)]
    running, ended = {next(one): one for one in queues}, Counter[Any]()
    while running:
        found = {one["metadata"]["name"]: one for one in site.get("workflows")["items"]}
        # The schedule keeps the last three that succeeded, and the last three that failed.
        for name in [name for name in running if name not in found or has_ended(found[name])]:
            queue = running.pop(name)
            ended[queue] += 1
            if following := next(queue, ""):
                running[following] = queue
        # By then each data set has its champion: all that follow find nothing to do.
        if held_before is None and all(ended[queue] >= 2 for queue in queues):
            held_before = exporter(site)
        time.sleep(1)
    deadline = time.monotonic() + SECONDS
    while (after := objects(site)) != before and time.monotonic() < deadline:
        time.sleep(1)
    held_after = exporter(site)
    assert held_before
    met: Json = {f"exporter, {what}": f"{held_before[what]} → {held_after[what]}" for what in held_after}
    met["other objects"] = f"{sum(before.values())} → {sum(after.values())}"
    kept = [one["status"]["phase"] for one in site.get("workflows")["items"]]
    wrong = [f"a workflow {phase}" for phase in kept if phase != "Succeeded"]
    met["workflows that stay"] = len(kept)
    page.store("soak", ended.total(), met, wrong, time.monotonic() - began)
    assert wrong == []
    assert after == before
    for what in ("threads", "files", "series", "restarts"):
        assert held_after[what] <= held_before[what]
    assert held_after["memory in MiB"] < 1.1 * held_before["memory in MiB"] + 5
