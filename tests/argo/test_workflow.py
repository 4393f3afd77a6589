"""Objects of Kubernetes and Argo in words."""

import re
from datetime import UTC, datetime

import pytest

from jobs.argo.workflow import age, output, pod_name, said, waiting


def test_a_pod_that_no_node_takes_says_why() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    }
    assert waiting({"status": {"conditions": [condition]}}) == (
        "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    )


def test_an_image_that_cannot_be_pulled_is_named_and_a_starting_container_is_not() -> None:
    pulling = {"state": {"waiting": {"reason": "ErrImagePull", "message": 'pull "a/b:c":\n not found'}}}
    starting = {"state": {"waiting": {"reason": "PodInitializing"}}}
    assert waiting({"status": {"containerStatuses": [starting, pulling]}}) == 'ErrImagePull: pull "a/b:c": not found'
    assert waiting({"status": {"containerStatuses": [starting]}}) == ""


def test_a_nodes_pod_is_found_by_its_name() -> None:
    found = {"metadata": {"name": "mrigan-x7"}}
    node = {"id": "mrigan-x7-1655197676", "templateName": "train-gan"}
    assert pod_name(found, node) == "mrigan-x7-train-gan-1655197676"
    assert pod_name(found, {"id": "mrigan-x7", "templateName": "phantom"}) == "mrigan-x7"


def test_an_age_has_one_unit() -> None:
    found = {"metadata": {"creationTimestamp": "2026-11-01T10:00:00Z"}}
    ages = [(1, 10, 0, 42), (1, 10, 7, 59), (1, 13, 0, 0), (3, 11, 0, 0)]
    assert [age(found, datetime(2026, 11, *at, tzinfo=UTC)) for at in ages] == ["42s", "7m", "3h", "2d"]


def test_an_output_is_the_workflows_or_a_pods() -> None:
    run = {"outputs": {"parameters": [{"name": "run", "value": "5853d706be58"}]}}
    assert output({"status": run}, "run") == "5853d706be58"
    node = run | {"type": "Pod", "name": "w.preprocess"}
    assert output({"status": {"nodes": {"a": node}}}, "run") == "5853d706be58"
    assert output({"status": {}}, "run") is None


def test_argos_own_log_is_left_out_of_a_message() -> None:
    message = (
        'main: Error (exit code 1): time=2026-11-25T00:47:11.434Z level=INFO msg="waiting for signals" argo=true '
        "signalPath=/var/run/argo/ctr/main/signal\nTraceback (most recent call last):\nKeyError: 3\n"
        'time=2026-11-25T00:47:12.442Z level=INFO msg="sub-process exited" argo=true error="exit status 1"\n'
        "Error: exit status 1\n"
    )
    assert said({"message": message}) == (
        "main: Error (exit code 1): Traceback (most recent call last): KeyError: 3 Error: exit status 1"
    )


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("main: OOMKilled (exit code 137)", "moreMemory"),
        ('Usage of EmptyDir volume "tmp" exceeds the limit "4Gi". ', "tmpSize"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 9Gi. ", "ephemeral-storage"),
        ('Container main exceeded its local ephemeral storage limit "9Gi". ', "ephemeral-storage"),
    ],
)
def test_what_kubernetes_ends_has_advice(message: str, value: str) -> None:
    assert re.fullmatch(rf"{re.escape(message.rstrip('. '))}: increase .*{value}.* values", said({"message": message}))
