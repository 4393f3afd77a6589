"""What of a run is done, what killed jobs have left, and how long the other tasks take."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from jobs.classifier import champion
from jobs.common import again, keys, leases
from jobs.common.checkpoint import CHECKPOINTS
from jobs.common.errors import MachineError
from jobs.common.step import RESULTS_VERSION, digest, manifest_digest, read_manifest
from jobs.common.storage import MissingKey, Storage
from jobs.declaration import Plan, settings_of
from jobs.mri import testset
from jobs.settings import JOBS

# Settings that name files; only the job reads their content.
FILES = ("classifier_weights", "feature_weights")


def done(storage: Storage, plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the manifests of the tasks that are known to be done, by place, and that of the dataset.

    A task is done if its manifest has the task's settings and the digests of all its inputs. Tasks that read files of
    the user are not included: only their jobs check these files.
    """
    data = keys.dataset(plan.dataset)
    found = {data: read_manifest(storage, data) or {}}
    for task in plan.tasks:
        if not all(need in found for need in task.needs):
            continue
        settings = settings_of(plan, task)
        own = settings.result()
        if task.job == "promote":
            if storage.exists(task.place):
                rules = own | testset.identity(settings.test, settings.follow_links)
                if champion.challenge(storage, plan.dataset, plan.run, plan.name, rules).is_decided:
                    found[task.place] = {}
            continue
        manifest = read_manifest(storage, task.place)
        if not manifest:
            continue
        if any(own.get(name) not in (None, "", "none", "imagenet") for name in FILES):
            continue
        same = manifest["results_version"] == RESULTS_VERSION
        same &= all(manifest["settings"].get(name, value) == value for name, value in own.items())
        digests = {manifest_digest(found[need]) for need in task.needs}
        if same and digests <= set(manifest["inputs"].values()):
            found[task.place] = manifest
    return found


def tidy(storage: Storage, plan: Plan, known: Container[str]) -> None:
    """Delete what killed jobs have left at the places `known` to be done: checkpoints, half-written files, leases."""
    left = set(storage.list(keys.LEASES))
    for key in (*storage.list(keys.run(plan.run)), *storage.list(keys.pretrained(""))):
        place, found, _ = key.partition(f"/{CHECKPOINTS}/")
        if found and place in known:
            storage.delete(key)
    for task in plan.tasks:
        if task.place in known:
            storage.tidy(task.place)
            if keys.lease(task.place) in left:
                leases.clear(storage, task.place)


def seconds(storage: Storage, plan: Plan, known: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return estimates in seconds for the tasks that are not done, by place, from similar tasks if there are any.

    `known` are the manifests of this run's tasks. Similar tasks are searched in this run, and in the run of the
    dataset's champion.
    """
    manifests = dict(known)
    record = champion.stored_record(storage, plan.name)
    if record:
        report = read_manifest(storage, keys.report(champion.parse_record(record, plan.name).champion.run)) or {}
        for place in report.get("inputs", {}):
            manifests.setdefault(place, read_manifest(storage, place) or {})
    took: dict[str, list[float]] = {}
    for manifest in manifests.values():
        if manifest and manifest["job"] in JOBS and "seconds" in manifest:
            took.setdefault(_kind(manifest["job"], manifest["settings"]), []).append(manifest["seconds"])
    found = {}
    for task in plan.tasks:
        if task.place not in known:
            several = sorted(took.get(_kind(task.job, settings_of(plan, task).result()), ()))
            if several:
                found[task.place] = several[len(several) // 2]
    return found


def _kind(job: str, settings: Mapping[str, Any]) -> str:
    """Return a digest that is equal for tasks of about the same duration."""
    kind = JOBS[job].settings.model_fields
    counts = {"network", "regime"} | kind.keys() - keys.PLACES - {"name", "part", "first", "healthy"}
    return digest([job, {name: value for name, value in settings.items() if name in counts}])


def check_needs(storage: Storage, needs: Iterable[str]) -> None:
    """Raise MachineError if an input of a task is missing: once its turn has come, that is no mistake of the user."""
    for place in needs:

        def read(place: str = place) -> None:
            if read_manifest(storage, place) is None:
                raise MissingKey(place)

        try:
            again.twice(read, place, MissingKey)
        except MissingKey:
            where = f"{storage.url.rstrip('/')}/{place}"
            raise MachineError(f"{where} is missing, although the task that makes it is done: run again") from None
