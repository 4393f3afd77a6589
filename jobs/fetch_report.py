"""A run's report, fetched from storage and opened, and what was decided about its classifier.

    mrigan report RUN --storage s3://bucket/prefix

RUN is a run's name, or that of a workflow that is still in the cluster.
"""

import logging
import re
import sys
import webbrowser
from pathlib import Path

from jobs import evaluate
from jobs.argo import cluster, workflow
from jobs.classifier.champion import parse_record, stored_record
from jobs.common import keys
from jobs.common.errors import UserError
from jobs.common.settings import NAME, StorageSettings, setting
from jobs.common.step import Step, read_manifest
from jobs.common.storage import Storage, open_storage
from jobs.submit import NamespaceSettings

log = logging.getLogger("mrigan.report")

RUN = r"[0-9a-f]{12}"  # what pipeline calls a run; any other name may be that of a run or of a workflow


class FetchReportSettings(StorageSettings, NamespaceSettings):
    """What report can be told."""

    runs: tuple[str, ...] = setting(..., "run or workflow", result=False, positional=True)
    report_folder: str = setting("report-RUN", "folder to write to", result=False, min_length=1)
    open: bool = setting(True, "show it in the browser, on a terminal", result=False)


def run(settings: FetchReportSettings) -> None:
    """Fetch the report, print its path and say what was decided. Raises UserError if there is no report."""
    if len(settings.runs) != 1:
        raise UserError("name one RUN: see --help")
    storage, name = open_storage(settings.storage), settings.runs[0]
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name}: no run and no workflow is called so")
    manifest = read_manifest(storage, keys.report(name))
    if manifest is None and not re.fullmatch(RUN, name):
        try:
            workflows = cluster.connect(settings.namespace)
        except UserError as error:
            raise UserError(
                f"{settings.storage} has no report of run {name}, nor is it known as a workflow: {error}"
            ) from error
        name = _run_of(workflows, name)
        manifest = read_manifest(storage, keys.report(name))
    if manifest is None:
        raise UserError(
            f"{settings.storage} has no report of run {name}: name its --storage, or wait until it is there"
        )
    step = Step(storage, keys.report(name), job="evaluate", settings=manifest["settings"], inputs=manifest["inputs"])
    step.manifest = manifest
    folder = Path(settings.report_folder.replace("RUN", name))
    page = next(path for path in evaluate.copy(step, folder) if path.suffix == ".html")
    print(page)
    if settings.open and sys.stdout.isatty():
        webbrowser.open(page.resolve().as_uri())
    for reason in _decisions(storage, name, manifest["settings"].get("name", "")):
        log.info("%s", reason)


def _decisions(storage: Storage, run: str, name: str) -> list[str]:
    """Return the reasons of the promotions, under the dataset's `name`, that a run's classifier asked for."""
    stored = stored_record(storage, name) if name else None
    decisions = parse_record(stored, name).decisions if stored else []
    return [decision["reason"] for decision in decisions if decision["question"]["challenger"][0] == run]


def _run_of(workflows: cluster.Cluster, name: str) -> str:
    """Return the run that a workflow made."""
    found = workflow.output(workflows.workflow(name), "run")
    if found is None:
        raise UserError(f"workflow {name} has not said yet which run it makes: see mrigan status {name}")
    return found
