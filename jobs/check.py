"""Check access to storage and data before the first run.

Writes, reads, lists and deletes one object under <storage>/checks/. With --data, looks for class folders in the data.
"""

import logging
import uuid

from jobs.common import keys
from jobs.common.errors import MachineError
from jobs.common.storage import open_storage
from jobs.mri import sources
from jobs.settings import CheckSettings

log = logging.getLogger("mrigan.check")


def run(settings: CheckSettings) -> None:
    """Try every storage operation that a run needs. Raises UserError or MachineError if one fails."""
    where, storage = settings.storage, open_storage(settings.storage)
    key, data = keys.check(uuid.uuid4().hex), b"mrigan check\n"
    if not storage.write_if(key, data, None):
        raise MachineError(f"{where}: the storage reports that a new object already exists")
    try:
        if storage.read(key) != data or key not in storage.list(key.rpartition("/")[0]):
            raise MachineError(f"{where}: an object was written, but reading or listing it gives another result")
        if storage.write_if(key, data, None):
            raise MachineError(f"{where}: conditional writes are ignored: concurrent promotions could conflict")
    finally:
        storage.delete(key)
    log.info("%s: written, read, listed and deleted", where)
    if settings.data:
        source = sources.find_source(settings.data)
        log.info("%s: %d files of %s", settings.data, len(source.files), ", ".join(source.labels))
