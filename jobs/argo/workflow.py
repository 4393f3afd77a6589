"""Information in a Workflow object: its pods, the causes of a failure, the reasons for waiting."""

import re
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

# What to change at a site, by what Kubernetes says of a pod that it ended.
ADVICE = {
    "OOMKilled": "increase resources or moreMemory in the chart's values",
    'EmptyDir volume "tmp" exceeds the limit': "increase tmpSize in the chart's values",
    "exceeds the total limit of containers|ephemeral storage limit": "increase ephemeral-storage in the chart's values",
}

ENDED = ("Succeeded", "Failed", "Error")
USER_MISTAKE = "2"  # the exit code of jobs.common.errors.UserError


def name(workflow: Json) -> str:
    """Return the workflow's name."""
    return workflow["metadata"]["name"]


def phase(workflow: Json) -> str:
    """Return the phase: Pending, Running, Succeeded, Failed or Error."""
    return workflow.get("status", {}).get("phase") or "Pending"


def progress(workflow: Json) -> str:
    """Return the progress: Argo's count of tasks, such as `3/14`, or the progress that the jobs report."""
    return workflow.get("status", {}).get("progress") or "0/0"


def message(workflow: Json) -> str:
    """Return Argo's message about the workflow, on one line."""
    return " ".join(workflow.get("status", {}).get("message", "").split())


def pods(workflow: Json) -> list[Json]:
    """Return the nodes that are pods, in order of their start."""
    nodes = [node for node in _nodes(workflow).values() if node["type"] == "Pod"]
    return sorted(nodes, key=lambda node: (node.get("startedAt") or "", node["name"]))


def label(workflow: Json, node: Json) -> str:
    """Return the position of a node in the DAG: its name without the workflow's name."""
    return node["name"].removeprefix(name(workflow)).lstrip(".") or node["displayName"]


def said(node: Json) -> str:
    """Return a node's message, on one line: the job's last line if it wrote one, else Kubernetes' words with advice."""
    # If a job writes no message, Kubernetes uses the end of the log, which also contains lines of Argo's executor.
    lines = re.split(r"\n|(?=time=\S+ level=)", node.get("message", ""))
    text = " ".join(" ".join(line for line in lines if "argo=true" not in line).split())
    text = re.sub(r"^main: \S+ \(exit code \d+\): (?=mrigan)", "", text)
    advice = next((words for cause, words in ADVICE.items() if re.search(cause, text)), "")
    return f"{text.rstrip('.')}: {advice}" if advice else text


def failures(workflow: Json) -> list[Json]:
    """Return the failed pods without a successful retry."""
    nodes = _nodes(workflow)
    forgiven = {
        child
        for node in nodes.values()
        if node["type"] == "Retry" and node.get("phase") == "Succeeded"
        for child in node.get("children") or ()
    }
    return [node for node in pods(workflow) if node.get("phase") in ("Failed", "Error") and node["id"] not in forgiven]


def complaints(workflow: Json) -> list[str]:
    """Return the causes of a failure: messages of the failed pods, else of other nodes, else of the workflow."""
    others = [node for node in _nodes(workflow).values() if node.get("phase") in ("Failed", "Error")]
    for nodes in (failures(workflow), others):
        found = list(dict.fromkeys(filter(None, map(said, nodes))))
        if found:
            return found
    return [message(workflow)]


def is_mistake(node: Json) -> bool:
    """Return whether a failed pod's exit code is that of a user error."""
    return node.get("outputs", {}).get("exitCode") == USER_MISTAKE


def output(workflow: Json, parameter: str) -> str | None:
    """Return the value of an output parameter, the workflow's own or one of its pods'."""
    holders = [workflow.get("status", {}), *pods(workflow)]
    for holder in holders:
        for found in (holder.get("outputs") or {}).get("parameters") or ():
            if found["name"] == parameter and "value" in found:
                return found["value"]
    return None


def pod_name(workflow: Json, node: Json) -> str:
    """Return the name of a node's Pod: workflow, template and the last part of the node's id."""
    if node["id"] == name(workflow):
        return node["id"]
    return f"{name(workflow)}-{node['templateName']}-{node['id'].rpartition('-')[2]}"


def waiting(pod: Json) -> str:
    """Return the reason from Kubernetes why a Pod does not run; empty if there is none."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = (container.get("state") or {}).get("waiting") or {}
        if state.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"{state['reason']}: {' '.join(state.get('message', '').split())}"
    return ""


def age(workflow: Json, now: datetime | None = None) -> str:
    """Return how long ago the workflow was created, in its largest unit: 42s, 7m, 3h or 2d."""
    created = datetime.fromisoformat(workflow["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
    seconds = int(((now or datetime.now(UTC)) - created).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def _nodes(workflow: Json) -> dict[str, Json]:
    return workflow.get("status", {}).get("nodes") or {}
