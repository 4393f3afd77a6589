"""Submit the pipeline as an Argo workflow. Replaces `argo submit --from workflowtemplate/mrigan --watch`.

    mrigan submit data=s3://bucket/brain preset=quick

Parameters are those of the WorkflowTemplate. Other settings of pipeline are put into its parameter `settings`. All
parameters are checked before the workflow is submitted.
The connection is the Kubernetes API (KUBECONFIG) or, if ARGO_SERVER and ARGO_TOKEN are set, the Argo server.
"""

import difflib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.markup
import rich.status

from jobs.argo import cluster, workflow
from jobs.common import fields
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.settings import NAMES, PRESETS, PlanSettings, RunOfTasksSettings, SubmitSettings

log = logging.getLogger("mrigan.submit")

POLL_SECONDS = 2
LOST_SECONDS = 600  # without an answer, until the watch ends
Json = dict[str, Any]


def run(settings: SubmitSettings) -> None:
    """Submit the workflow, and watch it if requested.

    Raises UserError for an invalid parameter and for a workflow that failed because of a user error, MachineError
    if it failed for another reason, Interrupted if the watch was interrupted. The workflow continues without the watch.
    """
    there = cluster.connect(settings.namespace)
    given = checked(settings.parameters, there.template(settings.template))
    metadata = {
        "generateName": f"{settings.template}-",
        "namespace": there.namespace,
        "labels": {"workflows.argoproj.io/workflow-template": settings.template},
    }
    parameters = [{"name": key, "value": value} for key, value in given.items()]
    spec = {"workflowTemplateRef": {"name": settings.template}, "arguments": {"parameters": parameters}}
    version = f"{cluster.GROUP}/{cluster.VERSION}"
    name = workflow.name(there.create({"apiVersion": version, "kind": "Workflow", "metadata": metadata, "spec": spec}))
    print(name, flush=True)
    if settings.watch:
        place = f" --namespace {settings.namespace}" if settings.namespace else ""
        goes_on = f"{name} continues in the cluster: mrigan status {name}{place} shows its status"
        try:
            found = watch(there, name)
        except Interrupted:
            raise Interrupted(goes_on) from None
        except (UserError, MachineError) as error:
            raise type(error)(f"{error}; {goes_on}") from error
        conclude(found)


def checked(words: Sequence[str], template: Json) -> dict[str, str]:
    """Return the parameters in `words` (name=value), checked against a WorkflowTemplate.

    A setting that is not a parameter becomes a line of the parameter `settings`. Raises UserError for an unknown name,
    a value that the template or the setting does not accept, and a parameter without a value.
    """
    known = {one["name"]: one for one in (template["spec"].get("arguments") or {}).get("parameters") or ()}
    others = {name.replace("_", "-") for name in RunOfTasksSettings.model_fields if "settings" in known} - known.keys()
    given: dict[str, str] = {}
    lines: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word}: give parameters as name=value, such as image-size=64")
        if name in others:
            lines.append(f"{name.replace('-', '_')}: {json.dumps(value, ensure_ascii=False)}")
            continue
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *others], 1)
            hint = f"did you mean {near[0]}?" if near else f"its parameters are {', '.join(known)}"
            raise UserError(f"the WorkflowTemplate has no parameter {name}: {hint}")
        choices = [str(choice) for choice in known[name].get("enum") or ()]
        if choices and value not in choices:
            raise UserError(f"{name}: one of {', '.join(choices)}, not {value!r}")
        given[name] = value
    if lines:
        given["settings"] = "\n".join([given.get("settings") or known["settings"].get("value") or "", *lines]).strip()
    for name, parameter in known.items():
        if not {"value", "default", "valueFrom"} & parameter.keys() and name not in given:
            raise UserError(f"{name} has no value: give {name}=…")
    _check_settings({name: one.get("value", "") for name, one in known.items()} | given)
    return given


def _check_settings(values: Mapping[str, str]) -> None:
    preset = values.get("preset")
    if preset and preset not in PRESETS:
        raise UserError(f"preset: one of {', '.join(PRESETS)}, not {preset!r}")
    spelled = {name.replace("-", "_"): value for name, value in values.items()}
    if spelled.get("data") == "":
        raise UserError("data has no value: give data=…")
    # Other templates may not have this parameter.
    spelled.setdefault("data", "elsewhere")
    others = fields.from_yaml("settings", spelled.pop("settings", ""), RunOfTasksSettings, NAMES)
    own = {name: value for name, value in spelled.items() if value and name in RunOfTasksSettings.model_fields}
    try:
        fields.validate(RunOfTasksSettings, others | own)
        fields.validate(PlanSettings, {"data": "elsewhere", "gpus_of_each": spelled.get("gpus") or "0"})
    except UserError as error:
        raise UserError(str(error).removeprefix("--").replace("gpus-of-each", "gpus", 1)) from error


def watch(there: cluster.Cluster, name: str) -> Json:
    """Show the workflow's progress until it ends: one updated line on a terminal, otherwise one line per event.

    Return the ended workflow. If the server does not answer, requests are repeated for LOST_SECONDS; then MachineError
    is raised.
    """
    console = rich.console.Console(stderr=True, highlight=False)
    told: dict[str, str] = {}
    answered, lost = time.monotonic(), False
    with rich.status.Status(f"{name}: Pending", console=console) as line:
        while True:
            try:
                found = there.workflow(name)
            except MachineError as error:
                if time.monotonic() - answered > LOST_SECONDS:
                    raise
                if not lost:
                    console.print(f"{error}; retrying", markup=False, soft_wrap=True)
                lost = True
                time.sleep(POLL_SECONDS)
                continue
            answered, lost = time.monotonic(), False
            for node in workflow.pods(found):
                event = f"{node.get('phase')} {workflow.said(node)}".strip()
                if told.get(node["id"]) != event:
                    told[node["id"]] = event
                    console.print(f"{workflow.label(found, node)}: {event}", markup=False, soft_wrap=True)
            if workflow.phase(found) in workflow.ENDED:
                return found
            now = f"{name}: {workflow.phase(found)} {workflow.progress(found)} {workflow.message(found)}"
            line.update(rich.markup.escape(now))
            time.sleep(POLL_SECONDS)


def conclude(found: Json) -> None:
    """Return if the workflow succeeded; raise UserError if a pod's exit code indicates one, else MachineError."""
    name = workflow.name(found)
    if workflow.phase(found) == "Succeeded":
        state = workflow.output(found, "state")
        log.info("%s succeeded%s", name, ": the run was already finished, nothing to do" if state == "finished" else "")
        return
    kind = UserError if any(map(workflow.is_mistake, workflow.failures(found))) else MachineError
    raise kind(f"{name} {workflow.phase(found).lower()}: {'; '.join(workflow.complaints(found))}")
