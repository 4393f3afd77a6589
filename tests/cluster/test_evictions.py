"""What a preemption costs: 50 seeded evictions of pods that train. `make e2e-evictions`, half an hour on 2 cores."""

import json
import random
import statistics
import time
from datetime import datetime
from typing import Any

from bench.chaos import page
from tests.cluster.conftest import Json, Site, has_ended, logs, pod_name, pods

COUNT = 50
SEEDS = 12  # of classifiers: with two folds and two kinds of images 48 pods, beside 4 of GANs
TRAINING = ("train-gan", "train-classifier")
LATEST = 25.0  # seconds after the start of a pod
LIMIT = 60.0  # seconds that an eviction may cost, a promise of docs/reliability.md


def evict(site: Site, pod: str) -> bool:
    """Evict a pod, as `kubectl drain` does; return whether it was still there."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": site.namespace}}
    path = f"/api/v1/namespaces/{site.namespace}/pods/{pod}/eviction"
    return site.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction), ok=False).returncode == 0


def at(text: str) -> float:
    """Return a time of Argo or of a log in seconds."""
    return datetime.fromisoformat(text).timestamp()


def attempts(workflow: Json) -> dict[str, list[Json]]:
    """Return the pod nodes of each task in the order of their starts."""
    found: dict[str, list[Json]] = {}
    for node in sorted(pods(workflow), key=lambda node: node["startedAt"]):
        given = {one["name"]: one.get("value") for one in node.get("inputs", {}).get("parameters", ())}
        found.setdefault(given.get("task", "preprocess"), []).append(node)
    return found


def first_epoch(text: str) -> float:
    """Return when a job ended an epoch for the first time, by its log; if it only had to save, its last line."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return at(next((line for line in lines if "epoch" in line), lines[-1])["time"])


def test_a_preemption_costs_some_seconds(site: Site, bucket: Any) -> None:
    generator, due, evicted = random.Random(0), dict[str, float](), dict[str, float]()

    def disturbed(found: Json) -> bool:
        """Evict the first pod of each training task at its time."""
        chosen = (
            f"workflows.argoproj.io/workflow={found['metadata']['name']},mrigan/job in (train-gan,train-classifier)"
        )
        for pod in site.get("pods", "-l", chosen)["items"]:
            task = pod["metadata"]["annotations"]["mrigan/task"]
            if task in evicted or len(evicted) == COUNT or pod["status"].get("phase") != "Running":
                continue
            moment = due.setdefault(task, time.time() + generator.uniform(0, LATEST))
            if time.time() >= moment and evict(site, pod["metadata"]["name"]):
                evicted[task] = time.time()
        return has_ended(found)

    began = time.monotonic()
    asked = {"storage": f"{site.storage}-evicted", "seeds": str(SEEDS), "classifier_epochs": "120"}
    name = site.argo_submit("--from", "workflowtemplate/mrigan", **asked)
    ended = site.wait(name, disturbed, limit=3000)
    assert ended["status"]["phase"] == "Succeeded", ended["status"].get("message")
    nodes, texts = attempts(ended), logs(bucket, name)
    # A pod that had done its work when it was evicted has no second attempt.
    again = {task: nodes[task] for task in evicted if len(nodes[task]) > 1}
    assert all(len(found) == 2 for found in again.values())
    left, restarted = [], []
    for task, (first, second) in again.items():
        (text,) = (text for key, text in texts.items() if pod_name(ended, second) in key.split("/"))
        left.append(at(first["finishedAt"]) - evicted[task])
        restarted.append(first_epoch(text) - at(second["startedAt"]))
    # The others also waited for a place among the pods of the workflow.
    backoff = min(at(second["startedAt"]) - at(first["finishedAt"]) for first, second in again.values())
    costs = [max(0.0, one) + backoff + other for one, other in zip(left, restarted, strict=True)]
    met = {
        "median cost, s": round(statistics.median(costs), 1),
        "highest cost, s": round(max(costs), 1),
        "until the pod is gone, s": round(statistics.median(left), 1),
        "until the next pod, s": round(backoff, 1),
        "until it trains, s": round(statistics.median(restarted), 1),
    }
    page.store("evictions", len(again), met, [], time.monotonic() - began)
    assert len(again) > 0.8 * COUNT
    assert max(costs) < LIMIT
