"""What a Workflow's object says: its pods, why it failed, what it waits for."""

import re
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

ENDED = ("Succeeded", "Failed", "Error")
USER_MISTAKE = "2"  # the exit code of jobs.common.errors.UserError


def name(workflow: Json) -> str:
    """Return the workflow's name."""
    return workflow["metadata"]["name"]


def phase(workflow: Json) -> str:
    """Return the phase: Pending, Running, Succeeded, Failed or Error."""
    return workflow.get("status", {}).get("phase") or "Pending"


def progress(workflow: Json) -> str:
    """Return how far it is, as Argo counts it: `3/14`, or what its jobs report."""
    return workflow.get("status", {}).get("progress") or "0/0"


def message(workflow: Json) -> str:
    """Return what Argo says of the workflow, on one line."""
    return " ".join(workflow.get("status", {}).get("message", "").split())


def pods(workflow: Json) -> list[Json]:
    """Return the nodes that are pods, the first started first."""
    nodes = [node for node in _nodes(workflow).values() if node["type"] == "Pod"]
    return sorted(nodes, key=lambda node: (node.get("startedAt") or "", node["name"]))


def label(workflow: Json, node: Json) -> str:
    """Return where a node stands in the DAG: its name without the workflow's."""
    return node["name"].removeprefix(name(workflow)).lstrip(".") or node["displayName"]


def said(node: Json) -> str:
    """Return what a node's message says, on one line: the job's last line where it left one."""
    # Where a job leaves no line, Kubernetes takes the end of the log, and Argo's executor writes there too.
    lines = re.split(r"\n|(?=time=\S+ level=)", node.get("message", ""))
    text = " ".join(" ".join(line for line in lines if "argo=true" not in line).split())
    return re.sub(r"^main: \S+ \(exit code \d+\): (?=mrigan)", "", text)


def failures(workflow: Json) -> list[Json]:
    """Return the pods that failed and were not made up for by a retry."""
    nodes = _nodes(workflow)
    forgiven = {
        child
        for node in nodes.values()
        if node["type"] == "Retry" and node.get("phase") == "Succeeded"
        for child in node.get("children") or ()
    }
    return [node for node in pods(workflow) if node.get("phase") in ("Failed", "Error") and node["id"] not in forgiven]


def complaints(workflow: Json) -> list[str]:
    """Return why a workflow failed: what its failed pods say, else its other nodes, else the workflow; each once."""
    others = [node for node in _nodes(workflow).values() if node.get("phase") in ("Failed", "Error")]
    for nodes in (failures(workflow), others):
        found = list(dict.fromkeys(filter(None, map(said, nodes))))
        if found:
            return found
    return [message(workflow)]


def is_mistake(node: Json) -> bool:
    """Return whether a failed pod's exit code says that its caller erred."""
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
    """Return why a Pod does not run, in Kubernetes' words; empty if it says nothing."""
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
