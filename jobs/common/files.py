"""Local copies of files that the user names, from disk or S3."""

import atexit
import functools
import hashlib
import shutil
import tempfile
from pathlib import Path

from jobs.common.errors import UserError
from jobs.common.storage import MissingKey, open_storage


def local_file(flag: str, url: str) -> Path:
    """Return the path of the file at `url`, a local path or s3://bucket/key, which is fetched once.

    Raises UserError, naming `flag`, if there is no such file, MachineError if storage fails.
    """
    path = _fetched(flag, url) if url.startswith("s3://") else Path(url)
    if not path.is_file():
        raise UserError(f"{flag}: there is no file {url}")
    return path


def file_digest(flag: str, url: str) -> str:
    """Return the SHA-256 of the file at `url`. Raises what `local_file` raises, UserError if it cannot be read."""
    try:
        with local_file(flag, url).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{flag} {url}: {error.strerror}") from error


@functools.cache
def _fetched(flag: str, url: str) -> Path:
    folder, _, name = url.rpartition("/")
    try:
        data = open_storage(folder).read(name)
    except MissingKey:
        raise UserError(f"{flag}: there is no file {url}") from None
    place = tempfile.mkdtemp(prefix="mrigan-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    # Keras detects the format by the suffix of the name.
    path = Path(place, name)
    path.write_bytes(data)
    return path
