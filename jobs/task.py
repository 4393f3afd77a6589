"""Carry out one task of a plan. Used by the pods of an Argo workflow.

Reads   plans/<id>.json, written by mrigan plan, and the inputs of the task's job.
Writes  the outputs of the task's job.
"""

from jobs import declaration, finished
from jobs import plan as planning
from jobs.common import logs
from jobs.common.errors import UserError
from jobs.common.loading import load_job
from jobs.common.storage import open_storage
from jobs.settings import TaskSettings


def run(settings: TaskSettings) -> None:
    """Carry out the task unless it is done. Raises UserError if the plan or task is unknown, and the job's errors."""
    storage = open_storage(settings.storage)
    plan = planning.read(storage, settings.plan)
    for task in plan.tasks:
        if task.name == settings.task:
            break
    else:
        raise UserError(f"--task: plan {settings.plan} has no task {settings.task}")
    own = declaration.settings_of(plan, task)
    if task.job == "evaluate":
        own = own.model_copy(update={"report_folder": settings.report_folder})
    finished.check_needs(storage, task.needs)
    with logs.about(task.job, own):
        load_job(task.job).run(own)
