"""Fetch a run's report from storage, open it, and print the promotion decision about its classifier.

    mrigan report RUN --storage s3://bucket/prefix

RUN is the name of a run, or of a workflow that still exists in the cluster.
"""

import logging
import re
import sys
import webbrowser
from pathlib import Path

from jobs.argo import cluster, workflow
from jobs.classifier.champion import parse_record, stored_record
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.fields import NAME
from jobs.common.step import Step, read_manifest
from jobs.common.storage import Storage, open_storage
from jobs.report import gather
from jobs.settings import FetchReportSettings

log = logging.getLogger("mrigan.report")

RUN = r"[0-9a-f]{12}"  # what pipeline calls a run; any other name may be that of a run or of a workflow


def run(settings: FetchReportSettings) -> None:
    """Fetch the report, print its path and the promotion decision. Raises UserError if there is no report."""
    if len(settings.runs) != 1:
        raise UserError("name one RUN: see --help")
    storage, name = open_storage(settings.storage), settings.runs[0]
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name}: there is no run and no workflow with this name")
    manifest = read_manifest(storage, keys.report(name))
    if manifest is None and not re.fullmatch(RUN, name):
        try:
            workflows = cluster.connect(settings.namespace)
        except UserError as error:
            raise UserError(
                f"{settings.storage} has no report of run {name}, and no workflow of this name was found: {error}"
            ) from error
        name = _run_of(workflows, name)
        manifest = read_manifest(storage, keys.report(name))
    if manifest is None:
        raise UserError(
            f"{settings.storage} has no report of run {name}: check --storage, or wait until the report is written"
        )
    step = Step(storage, keys.report(name), job="evaluate", settings=manifest["settings"], inputs=manifest["inputs"])
    step.manifest = manifest
    folder = Path(settings.report_folder.replace("RUN", name))
    page = next(path for path in gather.copy(step, folder) if path.suffix == ".html")
    print(page)
    if settings.open and sys.stdout.isatty():
        webbrowser.open(page.resolve().as_uri())
    for reason in _decisions(storage, name, manifest["settings"].get("name", "")):
        log.info("%s", reason)


def _decisions(storage: Storage, run: str, name: str) -> list[str]:
    """Return the reasons of the promotions, under the dataset's `name`, that a run's classifier asked for."""
    stored = stored_record(storage, name) if name else None
    decisions = parse_record(stored, name).decisions if stored else []
    return [decision.get("reason", "") for decision in decisions if decision["question"]["challenger"][0] == run]


def _run_of(workflows: cluster.Cluster, name: str) -> str:
    """Return the run that a workflow made."""
    found = workflow.output(workflows.workflow(name), "run")
    if found is None:
        raise UserError(f"the run of workflow {name} is not known yet: see mrigan status {name}")
    return found
