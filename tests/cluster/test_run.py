"""The whole workflow on phantom heads: a pod is killed; it is compared with `mrigan pipeline`, repeated, retrained."""

import json
import re
from datetime import datetime
from typing import Any

import pytest

from tests.cluster.conftest import BUCKET, ENVIRONMENT, GOOD, IMAGE, TINY, Site, job, logs, pod_name, pods

# Seconds, hardware and dates: all else must repeat.
VOLATILE = {"seconds", "hardware", "cost", "time", "training_seconds", "seconds_per_step", "images_per_second"}
VOLATILE |= {"began", "succeeded", "pretraining_seconds"}


def stable(value: Any) -> Any:
    """Return a JSON value without what a clock or a machine put there."""
    if isinstance(value, dict):
        return {name: stable(inner) for name, inner in value.items() if name not in VOLATILE}
    return [stable(inner) for inner in value] if isinstance(value, list) else value


def outputs(bucket: Any, prefix: str) -> dict[str, Any]:
    """Return what a pipeline left below `prefix`: bytes, and JSON without its volatile fields."""
    found: dict[str, Any] = {}
    for item in bucket.objects.filter(Prefix=prefix + "/"):
        name, data = item.key.removeprefix(prefix + "/"), item.get()["Body"].read()
        # A plan has the address of its storage.
        if name.startswith(("artifacts/", "plans/")) or name.endswith("report.html"):
            continue
        if name.endswith(".json"):
            fields = json.loads(data)
            # Its own digest, over the seconds too.
            fields.pop("digest", None)
            data = stable(fields)
        found[name] = data
        if name.endswith("report/manifest.json"):
            # The digests of what holds the seconds.
            found[name].pop("outputs")
    return found


def test_the_killed_pod_went_on_where_it_was(first: dict[str, Any], bucket: Any) -> None:
    retried = [node for node in pods(first, "train-gan") if node["phase"] != "Succeeded"]
    assert len(retried) == 1
    names = {pod_name(first, node) for node in pods(first, "train-gan")}
    said = [text for key, text in logs(bucket, first["metadata"]["name"]).items() if names & set(key.split("/"))]
    assert "resuming after step" in "".join(said)


def test_the_report_is_an_artifact_and_the_pods_are_gone(site: Site, first: dict[str, Any], bucket: Any) -> None:
    name = first["metadata"]["name"]
    evaluated = pods(first, "evaluate")[0]["outputs"]["artifacts"]
    keys = {artifact["name"]: artifact["s3"]["key"] for artifact in evaluated}
    assert b"<html" in bucket.Object(keys["report"]).get()["Body"].read()
    archived = {part for key in logs(bucket, name) for part in key.split("/")}
    assert {pod_name(first, node) for node in pods(first) if node["phase"] == "Succeeded"} <= archived
    site.kubectl("wait", "--for=delete", "pod", "-l", f"workflows.argoproj.io/workflow={name}", "--timeout=120s")


def test_the_fan_out_follows_the_data(first: dict[str, Any]) -> None:
    count = {of: len({node["name"].rpartition("(")[0] for node in pods(first, of)}) for of in ("train-gan", "generate")}
    assert count == {"train-gan": 4, "generate": 4}
    assert len(pods(first, "train-classifier")) == 4
    assert len(pods(first, "pretrain")) == len(pods(first, "draw-phantoms")) == 1
    assert {job(node) for node in pods(first)} == {
        *("preprocess", "draw-phantoms", "pretrain", "train-gan", "generate", "train-classifier", "evaluate", "promote")
    }


def test_nodes_have_names_that_people_can_read(first: dict[str, Any]) -> None:
    names = {node["displayName"] for node in first["status"]["nodes"].values()}
    assert {"train-gan(0:healthy)", "generate(1:lesion)", "pretrain(0:mobilenetv2)", "fold(1:1)"} <= names
    assert {"on-real(0:mobilenetv2-real-seed-0)", "evaluate", "promote"} <= names


def test_real_classifiers_wait_for_no_gan(first: dict[str, Any]) -> None:
    """In no fold. A pod may wait until others leave it room: what counts is when its task was reached."""
    groups = [node for node in first["status"]["nodes"].values() if node["type"] == "TaskGroup"]
    tasks = [node for node in groups if node["name"].endswith(".on-real")]
    assert len(tasks) == int(TINY["folds"])
    for task in tasks:
        fold = task["name"].removesuffix("on-real")
        gans = [node for node in pods(first, "train-gan") if node["name"].startswith(fold)]
        assert len(gans) >= 2 and task["startedAt"] < min(node["finishedAt"] for node in gans)


def test_argo_is_told_of_the_progress(site: Site, first: dict[str, Any]) -> None:
    totals = {int(total) for total in re.findall(r"progress\W+\d+/(\d+)", site.overheard)}
    assert totals and min(totals) > 1, site.overheard


def test_the_embedded_pipeline_gives_the_same_bytes(site: Site, first: dict[str, Any], bucket: Any) -> None:
    prefix = f"{site.prefix}-embedded"
    words = ["pipeline", "--data", site.data, "--storage", f"s3://{BUCKET}/{prefix}"]
    words += ["--name", f"{site.prefix}-data", "--workers", "1"]
    words += [f"--{name}={value}" for name, value in TINY.items() if name != "gan-conditional"]
    words += ["--no-gan-conditional"]
    nodes = {node["hostNodeName"] for node in pods(first)}
    if len(nodes) > 1:
        pytest.skip("the workflow's pods ran on several nodes, whose processors may round differently")
    site.apply(restricted_pod("embedded", words, nodes.pop()))
    site.pod_end("embedded")
    theirs, ours = outputs(bucket, prefix), outputs(bucket, site.prefix)
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert len([name for name in ours if name.endswith(".tar")]) >= 4


def restricted_pod(name: str, words: list[str], node: str) -> dict[str, Any]:
    """Return a pod of the image that runs mrigan with `words` on a node."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": words,
        "env": [{"name": "AWS_ENDPOINT_URL", "value": ENVIRONMENT["AWS_ENDPOINT_URL"]}],
        "envFrom": [{"secretRef": {"name": "mrigan-s3"}}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "nodeName": node, "securityContext": security, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def test_a_second_submission_computes_nothing(site: Site, first: dict[str, Any], bucket: Any) -> None:
    before = written(bucket, site.prefix)
    ended = site.mrigan("submit")
    assert "the run was already finished, nothing to do" in ended.stderr
    again = site.wait(ended.stdout.strip())
    assert [node["templateName"] for node in pods(again)] == ["preprocess"]
    assert written(bucket, site.prefix) == before
    start, end = (datetime.fromisoformat(again["status"][name]) for name in ("startedAt", "finishedAt"))
    # Half a minute on two busy cores.
    assert (end - start).total_seconds() < 120


def written(bucket: Any, prefix: str) -> dict[str, str]:
    """Return when each output below `prefix` was written; what Argo archives, and when runs began, is left out."""
    found = bucket.objects.filter(Prefix=prefix + "/")
    return {
        item.key: str(item.last_modified) for item in found if not {"artifacts", "activity"} & set(item.key.split("/"))
    }


def test_the_schedule_ends_green_while_nothing_changed(site: Site, first: dict[str, Any], bucket: Any) -> None:
    before = written(bucket, site.prefix)
    ended = site.wait(site.argo_submit("--from", "cronwf/mrigan-retrain"))
    assert ended["status"]["phase"] == "Succeeded"
    assert [node["templateName"] for node in pods(ended)] == ["preprocess"]
    assert written(bucket, site.prefix) == before
    assert "16 tasks, 0 to do" in "".join(logs(bucket, ended["metadata"]["name"]).values())


def test_the_report_is_fetched_by_the_name_of_its_workflow(site: Site, first: dict[str, Any], tmp_path: Any) -> None:
    words = ("report", first["metadata"]["name"], "--storage", site.storage, "--report-folder", str(tmp_path))
    ended = site.mrigan(*words, env=GOOD)
    assert ended.stdout.strip() == str(tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()


def test_status_shows_every_workflow(site: Site, first: dict[str, Any]) -> None:
    name = first["metadata"]["name"]
    assert any(line.split()[:2] == [name, "Succeeded"] for line in site.mrigan("status").stdout.splitlines())
    assert site.mrigan("status", name).stdout.startswith(f"{name}: Succeeded")


def test_new_data_and_another_recipe_are_judged_beside_the_champion(
    site: Site, first: dict[str, Any], bucket: Any
) -> None:
    """Last here, since it changes the data. Whoever wins, the record says why, and a loser leaves the champion."""
    key = f"{site.prefix}/champions/{site.prefix}-data.json"
    before = json.loads(bucket.Object(key).get()["Body"].read())
    for label in ("healthy", "lesion"):
        bucket.Object(f"{site.prefix}-data/{label}/{label}-0002.png").delete()
    recipe = {"regimes": "real", "classifier_learning_rate": "0.01", "classifier_epochs": "2"}
    ended = site.wait(site.argo_submit("--from", "cronwf/mrigan-retrain", **recipe))
    assert ended["status"]["phase"] == "Succeeded"
    after = json.loads(bucket.Object(key).get()["Body"].read())
    decision = after["decisions"][-1]
    assert len(after["decisions"]) == len(before["decisions"]) + 1
    assert decision["won"] == (before["debt"] - decision["difference"] <= 0.02)
    images = decision["images"]
    # All images that are left were known to the champion.
    assert images["compared"] == images["own_out_of_fold"] > 0
    assert (after["champion"] == before["champion"]) != decision["won"]
