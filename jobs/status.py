"""Show the status of all workflows in a namespace, or of one workflow and its pods.

mrigan status
mrigan status WORKFLOW
"""

from typing import Any

from jobs.argo import cluster, workflow
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.settings import StatusSettings

Json = dict[str, Any]


def run(settings: StatusSettings) -> None:
    """Print the status. Raises UserError if there is no such workflow."""
    there = cluster.connect(settings.namespace)
    if not settings.workflows:
        found = sorted(there.workflows(), key=lambda one: one["metadata"]["creationTimestamp"], reverse=True)
        if not found:
            raise UserError(f"namespace {there.namespace} has no workflows: mrigan submit starts one")
        rows = [
            [workflow.name(one), workflow.phase(one), workflow.progress(one), workflow.age(one), workflow.message(one)]
            for one in found
        ]
        print(aligned([["WORKFLOW", "PHASE", "PROGRESS", "AGE", "MESSAGE"], *rows]))
        return
    for name in settings.workflows:
        one = there.workflow(name)
        made = workflow.output(one, "run")
        words = [workflow.phase(one), workflow.progress(one), f"run {made}" if made else "", workflow.message(one)]
        print(f"{name}: {' '.join(filter(None, words))}")
        failed = workflow.failures(one)
        pods = [node for node in workflow.pods(one) if node.get("phase") in ("Pending", "Running") or node in failed]
        if pods:
            rows = [[workflow.label(one, node), node.get("phase", ""), _why(there, one, node)] for node in pods]
            print(aligned([["POD", "PHASE", "MESSAGE"], *rows]))
        for task, folder in _samples(one):
            print(f"samples of {task}: {folder}")


def _samples(found: Json) -> list[tuple[str, str]]:
    """Return the task of each running train-gan pod, and the folder of its sample grids."""
    run = workflow.output(found, "run")
    specs = (found.get("spec", {}), found.get("status", {}).get("storedWorkflowTemplateSpec", {}))
    storage = next(filter(None, (_parameters(spec.get("arguments")).get("storage") for spec in specs)), None)
    tasks = [
        inputs.get("task", "")
        for node in workflow.pods(found)
        if node.get("phase") == "Running" and (inputs := _parameters(node.get("inputs"))).get("job") == "train-gan"
    ]
    if not (run and storage):
        return []
    # As the plan names tasks: train-gan(0:yes).
    places = [task.removeprefix("train-gan(").removesuffix(")").split(":", 1) for task in tasks]
    folders = [f"{storage.rstrip('/')}/{keys.gan(run, fold, label)}/samples/" for fold, label in places]
    return list(zip(tasks, folders, strict=True))


def _parameters(holder: Json | None) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in (holder or {}).get("parameters") or ()}


def _why(there: cluster.Cluster, found: Json, node: Json) -> str:
    said = workflow.said(node)
    if node.get("phase") == "Pending" and said in ("", "PodInitializing", "ContainerCreating"):
        pod = there.pod(workflow.pod_name(found, node))
        said = (pod and workflow.waiting(pod)) or said
    return said


def aligned(rows: list[list[str]]) -> str:
    """Return rows of text in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
