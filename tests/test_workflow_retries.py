"""What the workflow tries again, by the message and the exit code that Argo makes of a pod's end."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

TEMPLATE = yaml.safe_load((Path(__file__).parents[1] / "workflows" / "workflowtemplate.yaml").read_text())
JOBS = [one for one in TEMPLATE["spec"]["templates"] if "container" in one]
REFUSED = 'pods "mrigan-x7k2p-train-gan-1234" is forbidden: '


def tried_again(status: str, code: str, message: str, retries: int = 0) -> bool:
    """Evaluate the retry's expression as Argo does; -1 is no exit code. What it has of expr-lang is put into Python."""
    ((expression, limit),) = {(one["retryStrategy"]["expression"], one["retryStrategy"]["limit"]) for one in JOBS}
    words = expression.replace("&&", "and").replace("||", "or")
    words = re.sub(r"(lastRetry\.\w+) matches ('[^']*')", r"search(\2, \1)", words)
    last = SimpleNamespace(status=status, exitCode=code, message=message)
    # Argo gives `retries` as text, and asks for the limit before the expression.
    names = {"lastRetry": last, "search": re.search, "retries": str(retries), "asInt": int}
    return retries < limit and bool(eval(words, {"__builtins__": {}}, names))


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("Failed", "3", "main: Error (exit code 3): mrigan train-gan: s3://b/k: the server answers 503: is invalid: x"),
        ("Failed", "75", "main: Error (exit code 75): mrigan train-gan: interrupted"),
        ("Failed", "137", "main: OOMKilled (exit code 137)"),
        ("Failed", "137", "The node was low on resource: memory."),
        ("Failed", "143", "main: Error (exit code 143)"),
        # A node that went: the pod with it, or marked as failed before that.
        ("Error", "-1", "pod deleted"),
        ("Failed", "-1", "pod failed: neither main nor wait container completed successfully"),
        ("Failed", "0", "pod failed: wait container did not complete successfully"),
        ("Failed", "-1", "Pod was rejected: Allocate failed due to no healthy devices present"),
        # Argo's own containers.
        ("Error", "-1", "init: Error (exit code 64): failed to load artifact"),
        ("Error", "0", "wait: Error (exit code 64): failed to put file: connection refused"),
        (
            "Error",
            "0",
            'wait: Error (exit code 64): workflowtaskresults.argoproj.io "x" is forbidden: User cannot patch',
        ),
        ("Error", "-1", "Internal error occurred: failed calling webhook: context deadline exceeded"),
    ],
)
def test_the_machines_failures_are_tried_again(status: str, code: str, message: str) -> None:
    assert tried_again(status, code, message)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("Failed", "75", "main: Error (exit code 75): mrigan train-gan: interrupted"),
        ("Failed", "143", "main: Error (exit code 143)"),
        ("Error", "-1", "pod deleted"),
        ("Failed", "-1", "pod failed: neither main nor wait container completed successfully"),
        ("Failed", "0", "pod failed: wait container did not complete successfully"),
        ("Failed", "137", "Pod was terminated in response to imminent node shutdown."),
    ],
)
def test_interruptions_do_not_use_up_the_retries(status: str, code: str, message: str) -> None:
    assert tried_again(status, code, message, retries=5) and tried_again(status, code, message, retries=99)
    assert not tried_again(status, code, message, retries=100)


@pytest.mark.parametrize(
    ("code", "message"), [("3", "main: Error (exit code 3): mrigan"), ("137", "main: OOMKilled (exit code 137)")]
)
def test_the_machines_failures_are_tried_again_five_times(code: str, message: str) -> None:
    assert tried_again("Failed", code, message, retries=4)
    assert not tried_again("Failed", code, message, retries=5)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("Failed", "1", "main: Error (exit code 1): Traceback"),
        ("Failed", "2", "main: Error (exit code 2): mrigan plan: --folds: must be a whole number, not 'two'"),
        ("Error", "2", "wait: Error (exit code 64): failed to put file"),
        # Past `timeout`: by the kubelet, and by Argo where there was no room in a quota; past the workflow's own limit.
        ("Failed", "137", "Pod was active on the node longer than the specified deadline"),
        ("Failed", "-1", "Pod was active on the node longer than the specified deadline"),
        ("Error", "-1", "timeout"),
        ("Error", "-1", "mrigan-x7k2p.run.fold(0:0).class(0:a).train-gan(0) exceeded its deadline"),
        ("Failed", "-1", "Step exceeded its deadline"),
        # A full disk; the job ends by SIGTERM.
        ("Failed", "75", 'Usage of EmptyDir volume "tmp" exceeds the limit "4Gi". '),
        ("Failed", "137", "Pod ephemeral local storage usage exceeds the total limit of containers 9Gi. "),
        ("Failed", "143", 'Container main exceeded its local ephemeral storage limit "9Gi". '),
        # Refused by the API server.
        ("Error", "-1", REFUSED + 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'),
        ("Error", "-1", REFUSED + 'error looking up service account mri/mrigan: serviceaccount "mrigan" not found'),
        ("Error", "-1", REFUSED + "no PriorityClass with name batch was found"),
        ("Error", "-1", 'Pod "mrigan-x7k2p-train-gan-1234" is invalid: spec.containers[0].resources.limits: Invalid'),
        ("Error", "-1", 'admission webhook "validate.kyverno.svc" denied the request: no image of this registry'),
    ],
)
def test_what_would_fail_again_is_not(status: str, code: str, message: str) -> None:
    assert not tried_again(status, code, message)
