"""The pipeline as an Argo workflow: `argo submit --from workflowtemplate/mrigan --watch` for whoever has only Python.

    mrigan submit data=s3://bucket/brain preset=quick

Parameters are those of the WorkflowTemplate, which are pipeline's settings; they are checked before anything is sent.
It goes through the Kubernetes API (KUBECONFIG), or with ARGO_SERVER and ARGO_TOKEN set through the Argo server.
"""

import difflib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jobs import pipeline
from jobs.argo import cluster, workflow
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.settings import Settings, setting, validate

log = logging.getLogger("mrigan.submit")

POLL_SECONDS = 2
LOST_SECONDS = 600  # without an answer, until a watch gives up
Json = dict[str, Any]


class NamespaceSettings(Settings):
    """Where workflows are."""

    namespace: str = setting("", "namespace; empty: ARGO_NAMESPACE, or that of the kubeconfig's context", result=False)


class ParameterSettings(pipeline.PipelineSettings):
    """What the workflow's parameters can be: pipeline's settings, and what only a cluster has."""

    gpus: int = setting(0, "GPUs of each pod that trains or draws", result=False, ge=0)


class SubmitSettings(NamespaceSettings):
    """What submit can be told."""

    parameters: tuple[str, ...] = setting(
        (), "the workflow's parameters, as in image-size=64", result=False, positional=True
    )
    template: str = setting("mrigan", "WorkflowTemplate to submit", result=False, min_length=1)
    watch: bool = setting(True, "stay until the workflow has ended, and end like it", result=False)


def run(settings: SubmitSettings) -> None:
    """Submit the workflow, and watch it if asked to.

    Raises UserError for a parameter that is wrong and for a workflow that failed by its caller's mistake, MachineError
    if it failed otherwise, Interrupted if the watch was. A workflow goes on without its watch.
    """
    there = cluster.connect(settings.namespace)
    given = checked(settings.parameters, there.template(settings.template))
    made = there.create(
        {
            "apiVersion": f"{cluster.GROUP}/{cluster.VERSION}",
            "kind": "Workflow",
            "metadata": {
                "generateName": f"{settings.template}-",
                "namespace": there.namespace,
                "labels": {"workflows.argoproj.io/workflow-template": settings.template},
            },
            "spec": {
                "workflowTemplateRef": {"name": settings.template},
                "arguments": {"parameters": [{"name": key, "value": value} for key, value in given.items()]},
            },
        }
    )
    name = workflow.name(made)
    print(name, flush=True)
    if settings.watch:
        place = f" --namespace {settings.namespace}" if settings.namespace else ""
        goes_on = f"{name} goes on in the cluster: mrigan status {name}{place} shows it"
        try:
            found = watch(there, name)
        except Interrupted:
            raise Interrupted(goes_on) from None
        except (UserError, MachineError) as error:
            raise type(error)(f"{error}; {goes_on}") from error
        end(found)


def checked(words: Sequence[str], template: Json) -> dict[str, str]:
    """Return the parameters that `words` (name=value) give, having checked them against a WorkflowTemplate.

    Raises UserError for a name that the template has not, a value that it or the setting of that name does not take,
    and a parameter without a value.
    """
    known = {one["name"]: one for one in (template["spec"].get("arguments") or {}).get("parameters") or ()}
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word}: give parameters as name=value, such as image-size=64")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise UserError(f"the WorkflowTemplate has no parameter {name}: {hint}")
        choices = [str(choice) for choice in known[name].get("enum") or ()]
        if choices and value not in choices:
            raise UserError(f"{name}: one of {', '.join(choices)}, not {value!r}")
        given[name] = value
    for name, parameter in known.items():
        if not {"value", "default", "valueFrom"} & parameter.keys() and name not in given:
            raise UserError(f"{name} has no value: give {name}=…")
    _check_settings({name: one.get("value", "") for name, one in known.items()} | given)
    return given


def _check_settings(values: Mapping[str, str]) -> None:
    preset = values.get("preset")
    if preset and preset not in pipeline.PRESETS:
        raise UserError(f"preset: one of {', '.join(pipeline.PRESETS)}, not {preset!r}")
    fields = ParameterSettings.model_fields
    spelled = {name.replace("-", "_"): value for name, value in values.items()}
    for name in filter(lambda name: fields[name].is_required(), fields):
        if spelled.get(name) == "":
            raise UserError(f"{name} has no value: give {name}=…")
        # Another template need not have it.
        spelled.setdefault(name, "elsewhere")
    try:
        validate(ParameterSettings, {name: value for name, value in spelled.items() if value and name in fields})
    except UserError as error:
        raise UserError(str(error).removeprefix("--")) from error


def watch(there: cluster.Cluster, name: str) -> Json:
    """Tell how the workflow goes, as a line that changes on a terminal, elsewhere a line an event; return it ended.

    A server that does not answer is asked again, for LOST_SECONDS; then MachineError is raised.
    """
    import rich.console
    import rich.markup
    import rich.status

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
                    console.print(f"{error}; asking again", markup=False, soft_wrap=True)
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


def end(found: Json) -> None:
    """Return if the workflow succeeded; raise UserError if a pod's exit code says so, else MachineError."""
    name = workflow.name(found)
    if workflow.phase(found) == "Succeeded":
        state = workflow.output(found, "state")
        log.info("%s succeeded%s", name, ": this run was finished before, nothing to do" if state == "finished" else "")
        return
    kind = UserError if any(map(workflow.is_mistake, workflow.failures(found))) else MachineError
    raise kind(f"{name} {workflow.phase(found).lower()}: {'; '.join(workflow.complaints(found))}")
