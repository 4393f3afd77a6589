"""What goes wrong ends at once, with one line that says what to do, and is not tried again when it would fail again."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import GOOD, TINY, Site, parameters, pods, secret


def failed(site: Site, words: str, **parameters: str) -> dict[str, Any]:
    """Submit with argo; assert that the first pod failed for good, with a line that has `words`; return it."""
    ended = site.wait(site.argo_submit("--from", "workflowtemplate/mrigan", **parameters), limit=240)
    assert ended["status"]["phase"] == "Failed"
    (pod,) = pods(ended)
    assert words in pod["message"], pod["message"]
    assert pod["outputs"]["exitCode"] == "2"
    return ended


def test_submit_refuses_before_anything_is_sent(site: Site) -> None:
    before = site.mrigan("status", ok=False).stdout
    for word, message in (("gan-epochs=ten", "must be a whole number"), ("gan-epoch=1", "did you mean gan-epochs?")):
        ended = site.mrigan("submit", word, ok=False)
        assert ended.returncode == 2 and message in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert len(site.mrigan("status", ok=False).stdout.splitlines()) == len(before.splitlines())


def test_a_wrong_parameter(site: Site) -> None:
    failed(site, "mrigan plan: --image-size: input should be greater than or equal to 32, not '5'", image_size="5")
    failed(site, "mrigan plan: --gpus-of-each: must be a whole number, not 'one'", gpus="one")


def test_submit_ends_like_the_workflow(site: Site) -> None:
    ended = site.mrigan("submit", f"data={site.data}-of-nobody", ok=False)
    assert ended.returncode == 2
    assert "contains nothing: it must contain one folder of images for each class" in ended.stderr.splitlines()[-1]


def test_a_missing_bucket(site: Site) -> None:
    words = "there is no bucket mrigan-of-nobody: create it or use another one"
    failed(site, words, data="s3://mrigan-of-nobody/data")


def test_data_that_no_one_can_read(site: Site, bucket: Any) -> None:
    for label in ("a", "b"):
        bucket.put_object(Key=f"{site.prefix}-broken/{label}/image.png", Body=b"This is no picture.")
    failed(
        site, "no image of class a can be used (1 not-an-image; see ", data=f"{site.data.removesuffix('-data')}-broken"
    )


@pytest.fixture
def credentials(site: Site) -> Iterator[Site]:
    """Give the site back with its credentials afterwards."""
    yield site
    site.apply(secret(GOOD))


def test_wrong_credentials(credentials: Site) -> None:
    credentials.apply(secret(GOOD | {"AWS_SECRET_ACCESS_KEY": "wrong"}))
    failed(credentials, "check the credentials and their permissions")


def test_no_credentials(credentials: Site) -> None:
    credentials.kubectl("delete", "secret", "mrigan-s3")
    failed(credentials, "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


def test_a_pod_that_kubernetes_refuses(site: Site) -> None:
    words = ("--from", "workflowtemplate/mrigan", "--serviceaccount", "of-nobody")
    ended = site.wait(site.argo_submit(*words, data=f"{site.data}-refused"), limit=240)
    assert ended["status"]["phase"] in ("Failed", "Error")
    (pod,) = pods(ended)
    assert 'serviceaccount "of-nobody" not found' in pod["message"], pod["message"]


def test_a_gpu_request_goes_to_the_node_that_has_one(site: Site) -> None:
    name = "nvidia.com/gpu"
    nodes = site.get("nodes")["items"]
    owners = [node["metadata"]["name"] for node in nodes if int(node["status"]["allocatable"].get(name, 0))]
    if not owners:
        pytest.skip("no node has a GPU")
    most = max(int(node["status"]["allocatable"].get(name, 0)) for node in nodes)
    site.mrigan("phantom", "--out", f"{site.data}-gpu", "--count", "4", env=GOOD)
    # Without phantoms: the classifiers are the first to ask for a GPU.
    asked = {"regimes": "real", "seed": "7", "data": f"{site.data}-gpu", "healthy": "off"}
    scheduled = site.argo_submit("--from", "workflowtemplate/mrigan", gpus="1", **asked)
    site.wait(scheduled, lambda found: any(node.get("hostNodeName") for node in pods(found, "train-classifier")))
    found = site.get("pods", "-l", f"workflows.argoproj.io/workflow={scheduled}")["items"]
    asking = [pod for pod in found if pod["spec"]["containers"][-1]["resources"]["limits"].get(name) == "1"]
    asking += [pod for pod in found if pod["spec"]["containers"][0]["resources"].get("limits", {}).get(name) == "1"]
    placed = {pod["spec"].get("nodeName") for pod in asking} - {None}
    assert placed and placed <= set(owners)
    site.argo_end(scheduled)

    values = site.values
    try:
        # Enough for its first pod.
        site.helm("upgrade", values | {"activeDeadlineSeconds": 90})
        pending = site.argo_submit("--from", "workflowtemplate/mrigan", gpus=str(most + 1), **asked)
        site.wait(pending, lambda found: any("Unschedulable" in node.get("message", "") for node in pods(found)))
        shown = site.mrigan("status", pending).stdout
        assert f"Insufficient {name}" in shown and "on-real" in shown

        def nudged(found: Any) -> bool:
            """Let the controller look now: nothing happens to pending pods, its next look is up to 20 minutes off."""
            site.kubectl("annotate", "workflow", pending, f"nudge={time.monotonic()}", "--overwrite", ok=False)
            return found["status"].get("phase") == "Failed"

        ended = site.wait(pending, nudged, limit=240)
        # Each was asked for once.
        asking = pods(ended, "train-classifier")
        assert asking and all(node["name"].endswith("(0)") for node in asking)
        assert all("exceeded its deadline" in node["message"] for node in asking)
    finally:
        site.helm("upgrade", values)


def test_what_never_starts_ends_at_the_sites_timeout(site: Site) -> None:
    values = site.values
    # Helm waits for the exporter, which would not start either.
    exporter = {"exporter": {"enabled": False}}
    impatient = values | exporter | {"timeout": "15s", "image": values["image"] | {"tag": "of-nobody"}}
    try:
        site.helm("upgrade", impatient)
        name = site.argo_submit("--from", "workflowtemplate/mrigan", data=f"{site.data}-unread")
        site.wait(name, lambda found: any(node.get("phase") == "Pending" for node in pods(found)))
        ended = site.wait(name, limit=240)
        assert ended["status"]["phase"] in ("Failed", "Error")
        assert len(pods(ended)) == 1
    finally:
        site.helm("upgrade", values)


def test_the_settings_of_the_tests_are_the_templates(site: Site) -> None:
    template = site.get("workflowtemplate", "mrigan")
    values = {one["name"]: one.get("value") for one in template["spec"]["arguments"]["parameters"]}
    expected = parameters(TINY)
    assert {name: values[name] for name in expected} == expected
