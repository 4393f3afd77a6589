"""Storage, data and permissions, tried in the smallest way: what an installation needs before its first run.

Writes, reads, lists and deletes one object under <storage>/checks/, and looks for classes in the data if one is given.
"""

import logging
import uuid

from jobs.common import keys
from jobs.common.errors import MachineError
from jobs.common.settings import StorageSettings, setting
from jobs.common.storage import open_storage

log = logging.getLogger("mrigan.check")


class CheckSettings(StorageSettings):
    """What check can be told."""

    data: str = setting("", "folder or s3://bucket/prefix of class folders to look into; empty: none", result=False)


def run(settings: CheckSettings) -> None:
    """Try everything a run does with storage. Raises UserError or MachineError, saying what fails."""
    storage = open_storage(settings.storage)
    key, data = keys.check(uuid.uuid4().hex), b"mrigan check\n"
    if not storage.write_if(key, data, None):
        raise MachineError(f"{settings.storage}: a new object is said to be there already")
    try:
        if storage.read(key) != data or key not in storage.list(key.rpartition("/")[0]):
            raise MachineError(f"{settings.storage}: what was written is not what is read or listed")
        if storage.write_if(key, data, None):
            raise MachineError(f"{settings.storage}: conditional writes are ignored: promotions could clash")
    finally:
        storage.delete(key)
    log.info("%s: written, read, listed and deleted", settings.storage)
    if settings.data:
        from jobs.mri import sources

        source = sources.find(settings.data)
        log.info("%s: %d files of %s", settings.data, len(source.files), ", ".join(source.labels))
