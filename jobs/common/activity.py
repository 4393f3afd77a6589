"""The times at which runs on a dataset started and succeeded. No other result in storage depends on the clock."""

import datetime
from typing import Any

from jobs.common import keys
from jobs.common.errors import MachineError
from jobs.common.step import seal, unseal
from jobs.common.storage import MissingKey, Storage

SCHEMA = 2


def read(storage: Storage, name: str) -> dict[str, Any]:
    """Return `began` and `succeeded` of the dataset called `name`: ISO 8601 times in UTC, null or absent if never.

    Raises MachineError if the object is damaged.
    """
    key = keys.activity(name)
    try:
        found = unseal(storage.read(key), "schema", since=2)
        for field in ("began", "succeeded"):
            if found.get(field):
                datetime.datetime.fromisoformat(found[field])
    except MissingKey:
        return {}
    except (ValueError, TypeError) as error:
        raise MachineError(f"{storage.url.rstrip('/')}/{key} is damaged ({error}): delete it") from error
    return found


def note(storage: Storage, name: str, *fields: str) -> None:
    """Record that a run on the dataset called `name` now `began`, `succeeded`, or both."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = read(storage, name) | {"schema": SCHEMA} | dict.fromkeys(fields, now)
    storage.write(keys.activity(name), seal(found))
