"""Check access to storage and data before the first run.

Writes, reads, lists and deletes one object under <storage>/checks/, with conditional writes too. With --data, looks for
class folders in the data.
"""

import logging
import uuid

from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.s3 import S3, ServerError
from jobs.common.storage import Storage, open_storage
from jobs.mri import sources
from jobs.settings import CheckSettings

log = logging.getLogger("mrigan.check")

# Error codes of servers that do not know the header of a conditional write.
REFUSED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "501", "400")


def run(settings: CheckSettings) -> None:
    """Try every storage operation that a run needs. Raises UserError or MachineError if one fails."""
    where, storage = settings.storage, open_storage(settings.storage)
    key, data = keys.check(uuid.uuid4().hex), b"mrigan check\n"
    storage.write(key, data)
    try:
        if storage.read(key) != data or key not in storage.list(key.rpartition("/")[0]):
            raise MachineError(f"{where}: an object was written, but reading or listing it gives another result")
        _check_conditions(storage, key, data)
    finally:
        storage.delete(key)
    log.info("%s: written, read, listed and deleted", where)
    if settings.data:
        source = sources.find_source(settings.data, follow_links=settings.follow_links)
        log.info("%s: %d files of %s", settings.data, len(source.files), ", ".join(source.labels))


def _check_conditions(storage: Storage, key: str, data: bytes) -> None:
    """Raise UserError if the storage makes a write whose condition does not hold. `key` holds `data`."""
    lacking = ""
    try:
        if storage.write_if(key, b"other", None):
            lacking = "ignores If-None-Match"
        elif isinstance(storage, S3) and _Outdated(storage.url).write_if(key, b"other", data):
            lacking = "ignores If-Match"
    except ServerError as error:
        if error.code not in REFUSED:
            raise
        lacking = f"refuses If-None-Match or If-Match ({error})"
    if lacking:
        raise UserError(
            f"{storage.url}: the S3 server has no conditional writes, so that two runs could overwrite each "
            f"other's champion: it {lacking}: use a server that has them; docs/operator.md lists some"
        )


class _Outdated(S3):
    """S3 in which each object appears to have been replaced since it was read."""

    def _get(self, key: str, **asked: str) -> tuple[bytes, str]:
        return super()._get(key, **asked)[0], '"outdated"'
