"""Storage: one small interface over a folder and S3, with the same keys in both."""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from jobs.common import metrics
from jobs.common.errors import MachineError, UserError

# Requests under way at once when many small objects are read or written: S3's latency hides behind them.
PARALLEL = 16

# What S3, or STS before it, answers to credentials that are wrong, expired or without the right. An answer without a
# body has its status for a code.
DENIED = (
    *("AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403", "400", "SignatureDoesNotMatch"),
    *("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidSecurity"),
    *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidIdentityToken", "TokenRefreshRequired"),
)
# To a bucket that is elsewhere, where boto3 could not find out where.
ELSEWHERE = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "IllegalLocationConstraintException")
# What TLS says of a certificate, of the file with authorities, and of a server without TLS; all else may pass.
UNTRUSTED = (
    *("CERTIFICATE_VERIFY_FAILED", "doesn't match", "WRONG_VERSION_NUMBER"),
    *("No such file", "Permission denied", "Is a directory", "X509", "PEM"),
)


class MissingKey(KeyError):  # noqa: N818 - reads as what it is, like KeyError
    """No object has this key."""


class Storage(Protocol):
    """What every storage can do. Keys are relative paths with `/`; a write is whole or not at all.

    Methods raise MachineError if the storage fails or is full, UserError if it refuses the caller.
    """

    url: str

    def read(self, key: str) -> bytes:
        """Return the object's bytes; raises MissingKey."""

    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object."""

    def exists(self, key: str) -> bool:
        """Return whether an object has this key."""

    def list(self, prefix: str) -> list[str]:
        """Return the sorted keys below the folder `prefix` ('' for all)."""

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace the object only if it still holds `expected` (None: only if there is none); return whether it did.

        Of several writers with the same expectation exactly one succeeds.
        """


def read_many(storage: Storage, keys: Iterable[str]) -> Iterator[bytes]:
    """Yield the objects of `keys` in order, a few requests ahead of the caller; raises MissingKey."""
    keys = list(keys)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for start in range(0, len(keys), 4 * PARALLEL):
            with metrics.phase("read"):
                found = list(pool.map(storage.read, keys[start : start + 4 * PARALLEL]))
            yield from found


def write_many(storage: Storage, items: Iterable[tuple[str, bytes]]) -> None:
    """Write (key, data) pairs, a bounded number of them in memory at a time."""
    remaining = iter(items)
    with ThreadPoolExecutor(PARALLEL) as pool:
        while batch := list(itertools.islice(remaining, 4 * PARALLEL)):
            with metrics.phase("write"):
                list(pool.map(lambda pair: storage.write(*pair), batch))


def open_storage(url: str) -> Storage:
    """Return the storage at a folder's path or at `s3://bucket/prefix`.

    S3 takes boto3's default credential chain and `AWS_ENDPOINT_URL`. Nothing is created or asked for yet.
    Raises UserError for another scheme.
    """
    if url.startswith("s3://"):
        return S3(url)
    if re.match(r"[A-Za-z][\w+.-]*:/", url) or "://" in url:
        raise UserError(f"{url}: storage is a folder or s3://bucket/prefix")
    return Folder(url)


class Folder:
    """Storage in a folder of a local or shared file system."""

    def __init__(self, path: str) -> None:
        self.root = Path(path)
        self.url = path

    def read(self, key: str) -> bytes:
        """Return the object's bytes; raises MissingKey."""
        with self._failures(key):
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise MissingKey(key) from None

    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object: written beside it, then renamed."""
        path = self.root / key
        with self._failures(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # mkstemp makes files that only their owner reads; these are for whoever may read the folder.
                Path(name).chmod(0o666 & ~UMASK)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def exists(self, key: str) -> bool:
        """Return whether an object has this key."""
        with self._failures(key):
            return (self.root / key).is_file()

    def list(self, prefix: str) -> list[str]:
        """Return the sorted keys below the folder `prefix`."""
        with self._failures(prefix):
            # Path.rglob does not enter linked folders.
            tree = os.walk(self.root / prefix, onerror=_refused, followlinks=True)
            files = (Path(folder, name) for folder, _, names in tree for name in names if not _hidden(name))
            return sorted(path.relative_to(self.root).as_posix() for path in files if path.is_file())

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""
        with self._failures(key):
            (self.root / key).unlink(missing_ok=True)

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace the object only if it still holds `expected`, under a lock on the folder."""
        path = self.root / key
        with self._failures(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / f".writing-{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                current = path.read_bytes() if path.is_file() else None
                if current != expected:
                    return False
                self.write(key, data)
                return True

    @contextlib.contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        where = self.root / key
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise UserError(f"no permission for {where}: name another folder or change its rights") from error
            if isinstance(error, FileExistsError | NotADirectoryError):
                raise UserError(f"{where}: a file is where a folder must be: name another folder") from error
            raise MachineError(f"{where}: {error.strerror or error}") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


# Read once: to read it is to change it for a moment, for all threads.
UMASK = _umask()


def _refused(error: OSError) -> None:
    # A folder that is gone holds no files; those of one that cannot be read would be left out without a word.
    if isinstance(error, FileNotFoundError | NotADirectoryError) or Path(error.filename).name.startswith("."):
        return
    if isinstance(error, PermissionError):
        raise UserError(f"no permission for {error.filename}: change its rights or move it away") from error
    raise error


def _hidden(name: str) -> bool:
    return name.startswith(".writing-")


class S3:
    """Storage in a bucket, below a prefix."""

    def __init__(self, url: str) -> None:
        # boto3 takes a third of a second to import; a folder needs none of it.
        import boto3
        import botocore.config

        from jobs.common.meter import meter

        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise UserError(f"{url}: name a bucket, as in s3://bucket/prefix")
        self.url = url
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        config = botocore.config.Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=PARALLEL,
            # Servers that only resemble AWS do not all know the newer default checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # A session of its own: the default one keeps the credentials it first saw.
        self.client = self._call(lambda: boto3.session.Session().client("s3", config=config))
        meter(self.client.meta.events)

    def read(self, key: str) -> bytes:
        """Return the object's bytes; raises MissingKey."""
        return self._call(lambda: self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read(), key)

    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object."""
        self._call(lambda: self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data), key)

    def exists(self, key: str) -> bool:
        """Return whether an object has this key."""
        try:
            self._call(lambda: self.client.head_object(Bucket=self.bucket, Key=self.prefix + key), key)
        except MissingKey:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        """Return the sorted keys below the folder `prefix`."""
        below = self.prefix + (prefix.strip("/") + "/" if prefix.strip("/") else "")

        def keys() -> list[str]:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below)
            return [item["Key"].removeprefix(self.prefix) for page in pages for item in page.get("Contents", ())]

        return sorted(key for key in self._call(keys, prefix) if not key.endswith("/"))

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""
        self._call(lambda: self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key), key)

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace the object only if it still holds `expected`, by S3's conditional writes."""
        condition: dict[str, str] = {"IfNoneMatch": "*"}
        if expected is not None:

            def read() -> tuple[bytes, str]:
                found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
                return found["Body"].read(), found["ETag"]

            try:
                current, version = self._call(read, key)
            except MissingKey:
                return False
            if current != expected:
                return False
            condition = {"IfMatch": version}
        return (
            self._call(
                lambda: self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, **condition),
                key,
                lost=lambda: False,
            )
            is not False
        )

    def _call(self, request: Callable[[], Any], key: str = "", lost: Callable[[], Any] | None = None) -> Any:
        """Return what `request` returns, or raise what the failure means; `lost` answers a lost conditional write."""
        import botocore.exceptions as failures

        where = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            return request()
        except failures.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404", "NotFound"):
                raise MissingKey(key) from None
            if lost and code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return lost()
            if code == "NoSuchBucket":
                raise UserError(f"there is no bucket {self.bucket}: create it or name another") from error
            if code in DENIED:
                raise UserError(
                    f"{where}: access is denied ({code}): check the credentials and their rights"
                ) from error
            answer = f"{where}: the server answers {code}: {error.response['Error'].get('Message')}"
            if code in ELSEWHERE:
                raise UserError(f"{answer}: set AWS_DEFAULT_REGION to the bucket's region") from error
            raise MachineError(answer) from error
        except failures.ProfileNotFound as error:
            raise UserError(f"{where}: {error}: check AWS_PROFILE") from error
        except (failures.NoCredentialsError, failures.PartialCredentialsError) as error:
            raise UserError(f"{where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        except (failures.ParamValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{where}: {reason}") from error
        except (failures.BotoCoreError, OSError) as error:
            reason = " ".join(str(error).split())
            if isinstance(error, failures.SSLError) and any(words in reason for words in UNTRUSTED):
                raise UserError(
                    f"{where}: {reason}: set AWS_CA_BUNDLE to a file with the server's authority, "
                    "or check AWS_ENDPOINT_URL"
                ) from error
            raise MachineError(f"{where}: {reason}: check AWS_ENDPOINT_URL and the network") from error
