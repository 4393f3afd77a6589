"""How large a Workflow becomes in etcd: its pods, and the bytes of the nodes that Argo writes into its status.

Argo stores a Workflow with the status of all its nodes as one object. If its JSON has more than LIMIT bytes, the nodes
are compressed (gzip, base64). If it still has more, Argo moves them to an SQL database, or fails the workflow if it has
none: https://argo-workflows.readthedocs.io/en/latest/offloading-large-workflows/. The nodes are made up here for the
items of a plan, with the fields that Argo 4.0 writes, and compressed in the same way. Older versions of Argo also list
the pods beside the nodes (taskResultsCompletionStatus): 35 bytes a pod, never compressed, which are not counted here.

No other limit comes first: the lists of items are in the nodes too, and a pod's arguments hold one item.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LIMIT = 1 << 20  # bytes of an object's JSON, the controller's MAX_WORKFLOW_SIZE; etcd itself takes 1.5 MiB
# Of the WorkflowTemplate's copy in the status (16 kB), the parameters, labels and owners: bytes of JSON.
REST = 20_000
# In the template `pipeline` around the folds, and in the template `fold`.
BEFORE, BESIDE = ("draw-phantoms", "pretrain"), ("train-gan-of-all", "generate-of-all")
OF_A_FOLD = ("train-gan", "generate", "on-real", "on-synthetic")
JOBS = {"on-real": "train-classifier", "on-synthetic": "train-classifier"}  # by stage, where they differ
NAME = "mrigan-x7k2p"
TIME = "2026-01-01T{:02}:{:02}:{:02}Z"

Json = dict[str, Any]
Stages = Mapping[str, Sequence[str]]


class Size(NamedTuple):
    """Pods without retries, and bytes of the nodes as JSON, of the same compressed, and of all else in the object."""

    pods: int
    nodes: int
    compressed: int
    rest: int = REST

    @property
    def stored(self) -> int:
        """Bytes of the object at its end, in the form that Argo takes."""
        whole = self.rest + self.nodes
        return whole if whole <= LIMIT else self.rest + self.compressed

    @property
    def is_compressed(self) -> bool:
        """Whether Argo compresses the nodes."""
        return self.rest + self.nodes > LIMIT

    @property
    def fits(self) -> bool:
        """Whether Argo can store the object without a database."""
        return self.stored <= LIMIT


def of(stages: Stages) -> Size:
    """Return the size of the workflow that starts these items: `folds`, and by stage those of jobs.plan.stages.

    Without any item the run is finished, and the workflow has one pod.
    """
    nodes = workflow_nodes(stages)
    text = json.dumps(nodes, separators=(",", ":")).encode()
    pods = sum(node["type"] == "Pod" for node in nodes.values())
    return Size(pods, len(text), len(compressed(text)))


def compressed(nodes: bytes) -> bytes:
    """Return the JSON of nodes as Argo stores it in `status.compressedNodes`."""
    return base64.b64encode(gzip.compress(nodes, 6))


def words(size: Size) -> str:
    """Return a line about a size."""
    how = ", compressed" if size.is_compressed else ""
    most = f"at most {LIMIT / 1e6:.2f} MB fit"
    return f"as an Argo workflow: {size.pods} pods, an object of {size.stored / 1e6:.2f} MB{how} ({most})"


def advice(size: Size) -> str:
    """Return what to do if the workflow is too large; empty if it fits."""
    if size.fits:
        return ""
    return (
        f"as a workflow, this plan is too large for Argo: {size.pods} pods make an object of {size.stored / 1e6:.2f} "
        f"MB, and at most {LIMIT / 1e6:.2f} MB are stored. Use fewer seeds, networks, regimes or folds, or one GAN for "
        "all classes (--gan-conditional); or ask the operator for nodeStatusOffLoad in Argo's configuration"
    )


# ---- the nodes -------------------------------------------------------------------------------------------------------


def workflow_nodes(stages: Stages) -> dict[str, Json]:
    """Return made-up nodes of a workflow that has succeeded, by id. Times and durations are of any size."""
    found: dict[str, Json] = {}
    lists = [_parameter(stage, json.dumps(list(items))) for stage, items in stages.items()]
    outputs = [_parameter("state", "unfinished"), _parameter("run", "0" * 12), _parameter("plan", "0" * 12), *lists]
    settings = {"name": "settings", "path": "/tmp/settings.yaml", "raw": {"data": "gan_epochs: 400"}}
    _add_pod(found, "preprocess", NAME, "preprocess", {"artifacts": [settings]}, {"parameters": outputs})
    for stage in BEFORE:
        _add_group(found, stages, stage, NAME, "of-all-workflows")
    folds = [f"fold({number}:{fold})" for number, fold in enumerate(stages.get("folds", ()))]
    given = [one for one in lists if one["name"] in OF_A_FOLD]
    for name, fold in zip(folds, stages.get("folds", ()), strict=True):
        for stage in OF_A_FOLD:
            _add_group(found, stages, stage, _id(name), NAME, f"{name}.", f"{fold}:")
        children = [_id(f"{name}.{stage}") for stage in ("train-gan", "on-real")]
        ends = [_id(f"{one}(0)") for stage in OF_A_FOLD[2:] for one in _names(stages, stage, f"{name}.")]
        inputs = {"parameters": [_parameter("plan", "0" * 12), _parameter("fold", fold), *given]}
        _add(found, name, NAME, "DAG", "fold", inputs=inputs, children=children, outboundNodes=ends)
    _add(found, "fold", NAME, "TaskGroup", "fold", children=list(map(_id, folds)))
    for stage in BESIDE:
        _add_group(found, stages, stage, NAME, NAME, "", "all:")
    if any(stages.values()):
        for job in ("evaluate", "promote"):
            _add_pod(found, job, NAME, "task", _inputs(job, job, NAME))
    _add(found, "", "", "DAG", "pipeline", children=list(found)[:1], outboundNodes=list(found)[-1:])
    return found


def _add_group(
    found: dict[str, Json], stages: Stages, stage: str, boundary: str, lock: str, place: str = "", fold: str = ""
) -> None:
    """Add the group of a stage and its pods; `place` is the name of the DAG that they are in."""
    job = JOBS.get(stage, stage.removesuffix("-of-all"))
    template = "task" if job == "draw-phantoms" else "training-task"
    names = _names(stages, stage, place)
    for name, item in zip(names, stages.get(stage, ()), strict=True):
        _add_pod(found, name, boundary, template, _inputs(job, f"{job}({fold}{item})", lock))
    _add(found, f"{place}{stage}", boundary, "TaskGroup", template, children=list(map(_id, names)))


def _names(stages: Stages, stage: str, place: str) -> list[str]:
    return [f"{place}{stage}({number}:{item})" for number, item in enumerate(stages.get(stage, ()))]


def _add_pod(
    found: dict[str, Json], name: str, boundary: str, template: str, inputs: Json, outputs: Json | None = None
) -> None:
    """Add the pod of a task, and the node of its retries."""
    attempt = f"{name}(0)"
    key = f"artifacts/mri/{NAME}/{NAME}-{template}-{_number(attempt)}/main.log"
    logs = {"artifacts": [{"name": "main-logs", "s3": {"key": key}}], "exitCode": "0"}
    more = {"inputs": inputs, "outputs": (outputs or {}) | logs}
    follower = _id(f"{name} follower")
    flags = {"nodeFlag": {"retried": True}, "hostNodeName": "node-1", "taskResultSynced": True}
    _add(found, attempt, boundary, "Pod", template, **more, **flags)
    _add(found, name, boundary, "Retry", template, **more, children=[_id(attempt), follower])


def _add(found: dict[str, Json], name: str, boundary: str, kind: str, template: str, **more: Any) -> None:
    """Add a node with the fields of all nodes."""
    seconds = zlib.crc32(name.encode())
    # Durations of different digits: equal ones would compress too well.
    start, end = (TIME.format(at // 3600 % 24, at // 60 % 60, at % 60) for at in (seconds, 3 * seconds))
    id = _id(name)
    found[id] = {
        "id": id,
        "name": f"{NAME}.{name}" if name else NAME,
        "displayName": name.rpartition(".")[2] or NAME,
        "type": kind,
        "templateName": template,
        "templateScope": f"local/{NAME}",
        "phase": "Succeeded",
        "boundaryID": boundary,
        "startedAt": start,
        "finishedAt": end,
        "progress": "1/1",
        "resourcesDuration": {"cpu": seconds % 1000, "memory": seconds % 10_000},
    } | more


def _inputs(job: str, task: str, lock: str) -> Json:
    pairs = {"plan": "0" * 12, "job": job, "task": task, "lock": lock}
    return {"parameters": [_parameter(name, value) for name, value in pairs.items()]}


def _parameter(name: str, value: str) -> Json:
    return {"name": name, "value": value}


def _id(name: str) -> str:
    return f"{NAME}-{_number(name)}" if name else NAME


def _number(name: str) -> int:
    """Return a number like that of a node: Argo's is another hash of 32 bits."""
    return zlib.crc32(name.encode())
