"""Storage: a common interface for folders and S3, with the same keys in both."""

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from jobs.common import metrics
from jobs.common.errors import MachineError, UserError

# Concurrent requests when many small objects are read or written, to hide the latency of S3.
PARALLEL = 16
HELD = 4 * PARALLEL  # small objects in memory at a time when many are read or written
TEMPORARY = ".writing-"  # start of the names of files that are no objects
LOCK = "lock"  # the rest of the name of the one that stays, in folders with conditional writes


Item = TypeVar("Item")
Result = TypeVar("Result")


class MissingKey(KeyError):  # noqa: N818 - the name is a description, like KeyError
    """No object has this key."""


class Version(NamedTuple):
    """Identifies the content of a key without reading it."""

    size: int
    tag: str


class Storage(Protocol):
    """The interface of every storage. Keys are relative paths with `/`; writes are atomic.

    Methods raise MachineError if the storage fails or is full, UserError if it denies access.
    """

    url: str

    def read(self, key: str) -> bytes:
        """Return the object's bytes; raises MissingKey."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes of the object from byte `start` on, fewer at its end; raises MissingKey."""

    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object."""

    def exists(self, key: str) -> bool:
        """Return whether an object has this key."""

    def list(self, prefix: str) -> list[str]:
        """Return the sorted keys below the folder `prefix` ('' for all)."""
        return sorted(self.versions(prefix))

    def versions(self, prefix: str) -> dict[str, Version]:
        """Return the keys that `list` returns, each with its object's version. No object is read."""

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace the object only if its content is `expected` (None: no object); return whether it was replaced.

        Of several concurrent writers with the same `expected`, exactly one succeeds.
        """

    def tidy(self, prefix: str) -> None:
        """Delete what killed writers have left below the folder `prefix`, where nobody writes now."""

    def check_writable(self) -> None:
        """Raise the error that a write would raise, before long work; leave nothing behind."""


def write_many(storage: Storage, items: Iterable[tuple[str, bytes]]) -> None:
    """Write (key, data) pairs while the next ones are taken from `items`, a bounded number in memory at a time."""
    for _ in in_parallel(lambda pair: storage.write(*pair), items, "write", HELD):
        pass


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], phase: str, held: int) -> Iterator[Result]:
    """Yield function(item) of each item in order. Threads compute the next results while the caller works.

    At most `held` items and results exist at a time, besides the caller's. Waiting counts as `phase` in the metrics.
    """
    waiting: deque[Future[Result]] = deque()

    def first() -> Result:
        with metrics.phase(phase):
            return waiting.popleft().result()

    with ThreadPoolExecutor(min(held, PARALLEL)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == held:
                    yield first()
            while waiting:
                yield first()
        finally:
            for future in waiting:
                future.cancel()


def open_storage(url: str) -> Storage:
    """Return the storage at a folder's path or at `s3://bucket/prefix`, without any request yet.

    S3 uses boto3's default credential chain and `AWS_ENDPOINT_URL`.
    Raises UserError for another scheme, and for an invalid endpoint or invalid credentials.
    """
    if url.startswith("s3://"):
        # The import of boto3 takes a third of a second, and folders do not need it.
        from jobs.common.s3 import S3

        return S3(url)
    if re.match(r"[A-Za-z][\w+.-]*:/", url) or "://" in url:
        raise UserError(f"{url}: storage must be a folder or s3://bucket/prefix")
    return Folder(url)


class Folder(Storage):
    """Storage in a folder of a local or shared file system."""

    def __init__(self, path: str) -> None:
        self.root = Path(path)
        self.url = path

    def read(self, key: str) -> bytes:
        return self.read_range(key, 0, -1)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        with self._failures(key):
            try:
                with self._path(key).open("rb") as file:
                    file.seek(start)
                    return file.read(length)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise MissingKey(key) from None

    def write(self, key: str, data: bytes) -> None:
        # A rename makes the write atomic.
        path = self._path(key)
        with self._failures(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # mkstemp creates files that only the owner can read; outputs get the default permissions.
                Path(name).chmod(0o666 & ~UMASK)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def exists(self, key: str) -> bool:
        with self._failures(key):
            return self._path(key).is_file()

    def versions(self, prefix: str) -> dict[str, Version]:
        with self._failures(prefix):
            # Path.rglob does not enter linked folders.
            tree = os.walk(self.root / prefix, onerror=_refused, followlinks=True)
            files = (Path(folder, name) for folder, _, names in tree for name in names)
            found = {path: _version(path) for path in files if not path.name.startswith(TEMPORARY)}
            return {path.relative_to(self.root).as_posix(): version for path, version in found.items() if version}

    def delete(self, key: str) -> None:
        with self._failures(key):
            self._path(key).unlink(missing_ok=True)

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        path = self._path(key)
        with self._failures(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / f"{TEMPORARY}{LOCK}").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                current = path.read_bytes() if path.is_file() else None
                if current != expected:
                    return False
                self.write(key, data)
                return True

    def tidy(self, prefix: str) -> None:
        with self._failures(prefix):
            for path in (self.root / prefix).rglob(f"{TEMPORARY}*"):
                if path.name != TEMPORARY + LOCK:
                    path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        place = self.root.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        with self._failures(""), tempfile.NamedTemporaryFile(prefix=TEMPORARY, dir=place):
            pass

    def _path(self, key: str) -> Path:
        # A key may contain names that were read from storage.
        if key.startswith("/") or ".." in key.split("/"):
            raise MachineError(f"{self.url}: {key!r} leads out of the storage: what names it is damaged")
        return self.root / key

    @contextlib.contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        where = self.root / key
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise UserError(f"no permission for {where}: use another folder or change its permissions") from error
            if isinstance(error, FileExistsError | NotADirectoryError):
                raise UserError(f"{where}: there is a file where a folder is needed: use another folder") from error
            # Some file systems, such as /proc, answer ENOENT where no folder can be made.
            if error.errno in (errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP):
                raise UserError(f"{where}: {error.strerror}: use another folder") from error
            raise MachineError(f"{where}: {error.strerror or error}") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


# Read only once: reading the umask changes it for a moment, for all threads.
UMASK = _umask()


def _refused(error: OSError) -> None:
    # A deleted folder has no files. An unreadable folder is an error, so that its files are not skipped silently.
    if isinstance(error, FileNotFoundError | NotADirectoryError) or Path(error.filename).name.startswith("."):
        return
    if isinstance(error, PermissionError):
        raise UserError(f"no permission for {error.filename}: change its permissions or move it away") from error
    raise error


def _version(path: Path) -> Version | None:
    """Return the version of the file at `path`, or at the end of its links; None if no file is there."""
    try:
        found = path.stat()
    except OSError as error:
        # A broken link, or a file that was deleted in the meantime.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    if not stat.S_ISREG(found.st_mode):
        return None
    return Version(found.st_size, f"{found.st_ino}-{found.st_mtime_ns}-{found.st_ctime_ns}")
