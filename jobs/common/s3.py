"""S3 as storage. Messages never contain credentials or the headers that carry them."""

import io
import itertools
import logging
import os
import random
import re
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import boto3.s3.transfer
import botocore.config
import botocore.credentials
import botocore.exceptions as failures
import urllib3.exceptions

from jobs.common import again, keys, logs
from jobs.common.errors import MachineError, UserError
from jobs.common.meter import counters, meter
from jobs.common.storage import PARALLEL, MissingKey, Storage, Version

# Attempts of a request, and of reading its body. Before another attempt to read a body, the wait is random: at most
# BACKOFF_SECONDS, and twice as much each time, as in botocore for requests.
ATTEMPTS = 5
BACKOFF_SECONDS = 1.0

# Larger objects are uploaded in parts, several at once.
MULTIPART = boto3.s3.transfer.TransferConfig(
    multipart_threshold=32 * 2**20, multipart_chunksize=16 * 2**20, max_concurrency=4
)

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # the first that is set counts
# Variables that may contain accidental white space, such as a newline at the end of a file that a Secret was made from.
VARIABLES = (
    *ENDPOINTS,
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
    *("AWS_REGION", "AWS_DEFAULT_REGION"),
)

# Error codes of S3 or STS for credentials that are wrong, expired or without permission. For a response without a body,
# the code is the HTTP status.
DENIED = (
    *("AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403", "400", "SignatureDoesNotMatch"),
    *("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidSecurity"),
    *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidIdentityToken", "TokenRefreshRequired"),
)
# Error codes for a bucket in another region that boto3 could not determine.
ELSEWHERE = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "IllegalLocationConstraintException")
# Texts of permanent TLS errors: the certificate, the file with authorities, a server without TLS. Others may be
# temporary.
UNTRUSTED = (
    *("CERTIFICATE_VERIFY_FAILED", "doesn't match", "WRONG_VERSION_NUMBER"),
    *("No such file", "Permission denied", "Is a directory", "X509", "PEM"),
)
# The start of a header with credentials in a text; the text after it must not be shown.
HEADER = re.compile(r"(authorization|credential|signature|security-token)['\"]?\s*[:=]|AWS4-HMAC", re.IGNORECASE)


class _DeniedError(UserError):
    """The server refused the credentials."""


class ServerError(MachineError):
    """The server responded with an error; `code` is that of S3, or the HTTP status if there is none."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class _LostWriteError(MachineError):
    """Another writer changed the object before a conditional write."""


class S3(Storage):
    """Storage in a bucket, below a prefix."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise UserError(f"{url}: name a bucket, as in s3://bucket/prefix")
        self.url = url
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._secrets: list[str] = []
        _strip_variables()
        _check_endpoint(bucket)
        _check_proxies()
        config = botocore.config.Config(
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=10,
            read_timeout=60,
            # The threads of a transfer, the caller, and the one that reads an index.
            max_pool_connections=PARALLEL + 2,
            # Not all S3-compatible servers support the newer default checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # A separate session: the default session keeps its first credentials.
        session = self._call(boto3.session.Session)
        self._secrets = _checked(self._call(session.get_credentials))
        self.client = self._call(lambda: session.client("s3", config=config))
        meter(self.client.meta.events)
        # urllib3 would log a certificate of another host before the final error.
        logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

    def read(self, key: str) -> bytes:
        return self._get(key)[0]

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if not length:
            return b""
        try:
            data = self._get(key, Range=f"bytes={start}-{start + length - 1}")[0]
        except ServerError as error:
            # The object ends before `start`.
            if error.code in ("InvalidRange", "416"):
                return b""
            raise
        # A server that ignores ranges sends the whole object.
        return data if len(data) <= length else data[start : start + length]

    def write(self, key: str, data: bytes) -> None:
        if len(data) < MULTIPART.multipart_threshold:
            self._call(lambda: self.client.put_object(**self._object(key), Body=data), key)
        else:
            self._call(lambda: self.client.upload_fileobj(io.BytesIO(data), Config=MULTIPART, **self._object(key)), key)

    def exists(self, key: str) -> bool:
        try:
            self._call(lambda: self.client.head_object(**self._object(key)), key)
        except MissingKey:
            return False
        return True

    def versions(self, prefix: str) -> dict[str, Version]:
        below = self.prefix + (prefix.strip("/") + "/" if prefix.strip("/") else "")

        def objects() -> list[dict[str, Any]]:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below)
            return [item for page in pages for item in page.get("Contents", ())]

        try:
            found = again.twice(lambda: self._call(objects, prefix), f"the list of {self.url}", MissingKey)
        except MissingKey:
            raise UserError(
                f"s3://{self.bucket}: the server cannot list this bucket: {_endpoint_variable()} must end before "
                "the bucket name, which belongs in s3://bucket/prefix"
            ) from None
        return {
            item["Key"].removeprefix(self.prefix): Version(
                item["Size"], item.get("ETag") or str(item.get("LastModified"))
            )
            for item in found
            if not _is_folder(item)
        }

    def tidy(self, prefix: str) -> None:
        """Do nothing: an object is there when its upload has ended, or not at all."""

    def check_writable(self) -> None:
        key = keys.check(uuid.uuid4().hex)
        self.write(key, b"mrigan\n")
        self.delete(key)

    def delete(self, key: str) -> None:
        self._call(lambda: self.client.delete_object(**self._object(key)), key)

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        condition: dict[str, str] = {"IfNoneMatch": "*"}
        if expected is not None:
            try:
                current, version = self._get(key)
            except MissingKey:
                return False
            if current != expected:
                return False
            condition = {"IfMatch": version}
        try:
            self._call(lambda: self.client.put_object(**self._object(key), Body=data, **condition), key)
        except _LostWriteError:
            # Where the answer was lost, botocore's second try meets what the first one wrote.
            try:
                return self._get(key)[0] == data
            except MissingKey:
                return False
        return True

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _get(self, key: str, **asked: str) -> tuple[bytes, str]:
        """Return the object's bytes, or those of the Range in `asked`, and its ETag; raises MissingKey."""

        def request() -> tuple[bytes, str]:
            for attempt in itertools.count(1):
                # botocore retries only failures before the body, of an object or of an error.
                broken: tuple[type[Exception], ...] = (urllib3.exceptions.HTTPError,)
                try:
                    found = self.client.get_object(**self._object(key), **asked)
                    broken = (failures.BotoCoreError, urllib3.exceptions.HTTPError, OSError)
                    return found["Body"].read(), found.get("ETag", "")
                except broken:
                    if attempt == ATTEMPTS:
                        raise
                counters().retries.inc()
                time.sleep(random.random() * BACKOFF_SECONDS * 2 ** (attempt - 1))
            raise AssertionError

        return self._call(request, key)

    def _call(self, request: Callable[[], Any], key: str = "") -> Any:
        """Return the result of `request`, or raise the error of its failure; a refusal counts if it comes twice."""
        where = f"s3://{self.bucket}/{self.prefix}{key}"
        return again.twice(lambda: self._once(request, key, where), f"access to {where}", _DeniedError)

    def _once(self, request: Callable[[], Any], key: str, where: str) -> Any:
        """Return the result of `request` for the object `key`, or raise the error of its failure."""
        try:
            return request()
        except failures.ClientError as error:
            answer = error.response["Error"]
            # A server other than S3 may respond without a code.
            code = answer.get("Code") or str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
            said = f"{where}: the server responds with {code}: {self._plain(answer.get('Message'))}"
            if code in ("NoSuchKey", "404", "NotFound"):
                raise MissingKey(key) from None
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                raise _LostWriteError(said) from error
            if code == "NoSuchBucket":
                raise UserError(f"there is no bucket {self.bucket}: create it or use another one") from error
            if code == "InvalidObjectState":
                kind = f" ({answer['StorageClass']})" if answer.get("StorageClass") else ""
                raise UserError(
                    f"{where}: the object is archived{kind}: restore it first, as with aws s3api restore-object, "
                    "or move it out of the folder"
                ) from error
            if code in DENIED:
                advice = "check the credentials and their permissions"
                raise _DeniedError(f"{where}: access is denied ({code}): {advice}") from error
            if code in ELSEWHERE:
                raise UserError(f"{said}: set AWS_DEFAULT_REGION to the bucket's region") from error
            raise ServerError(said, code) from error
        except (failures.ProfileNotFound, failures.ConfigParseError) as error:
            raise UserError(f"{where}: {self._plain(error)}: check AWS_PROFILE and the AWS configuration") from error
        except (failures.NoCredentialsError, failures.PartialCredentialsError) as error:
            raise UserError(f"{where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        except failures.InvalidRegionError:
            raise UserError(
                f"{where}: the region is invalid: set AWS_DEFAULT_REGION to a region such as us-east-1"
            ) from None
        except failures.ParamValidationError as error:
            raise UserError(f"{where}: {self._plain(error)}") from error
        except ValueError:
            # The text of the error may contain a whole header.
            raise UserError(
                f"{where}: no request can be made with these settings: check AWS_ENDPOINT_URL, and the other AWS_ "
                "variables and files for characters that do not belong there"
            ) from None
        except (failures.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            reason = self._plain(error)
            if isinstance(error, failures.SSLError) and any(words in reason for words in UNTRUSTED):
                raise UserError(
                    f"{where}: {reason}: set AWS_CA_BUNDLE to a file with the server's authority, "
                    "or check AWS_ENDPOINT_URL"
                ) from error
            raise MachineError(f"{where}: {reason}: check AWS_ENDPOINT_URL and the network") from error

    def _plain(self, said: object) -> str:
        """Return a message of a library or the server on one line, without headers and credentials."""
        text = logs.redacted(" ".join(str(said).split()))
        for secret in self._secrets:
            text = text.replace(secret, "…")
        header = HEADER.search(text)
        return text[: header.start()] + "…" if header else text


def _strip_variables() -> None:
    """Remove the white space around the values of VARIABLES; a variable with only white space counts as not set."""
    for name in VARIABLES:
        value = os.environ.pop(name, "").strip()
        if value:
            os.environ[name] = value


def _endpoint_variable() -> str:
    return next((name for name in ENDPOINTS if name in os.environ), "AWS_ENDPOINT_URL")


def _check_endpoint(bucket: str) -> None:
    """Raise UserError if the endpoint is not an address, or contains the bucket."""
    name = _endpoint_variable()
    address = os.environ.get(name)
    if address is None:
        return
    parts = urllib.parse.urlsplit(address) if _is_address(address) else None
    if not parts or parts.scheme not in ("http", "https") or " " in address or not address.isprintable():
        raise UserError(f"{name}: must start with http:// or https://, without spaces, as in http://host:port")
    # A server that uses the path as the bucket can write and read there, but lists nothing.
    if parts.path.strip("/").rpartition("/")[2] == bucket:
        raise UserError(f"{name}: remove /{bucket} at the end: the bucket belongs in s3://{bucket}/prefix")


def _check_proxies() -> None:
    """Raise UserError if a proxy is not an address: the error of a library could contain its password."""
    proxies = urllib.request.getproxies_environment()
    for scheme in ("http", "https"):
        address = proxies.get(scheme, "//none")
        if not _is_address(address if "//" in address else f"//{address}"):
            raise UserError(
                f"{scheme.upper()}_PROXY: must be an address, as in http://user:password@host:port; in the password, "
                "write %2F for /, %40 for @, %23 for # and %3F for ?"
            )


def _is_address(text: str) -> bool:
    """Return whether `text` has a host, and a port that is a number if it has one."""
    try:
        parts = urllib.parse.urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        return False


def _checked(credentials: Any) -> list[str]:
    """Return the secret parts of `credentials`. Raises UserError for a character that is invalid in headers.

    Credentials that boto3 fetches and renews are not checked.
    """
    if type(credentials) is not botocore.credentials.Credentials:
        return []
    parts = (
        ("AWS_ACCESS_KEY_ID", "access key id", credentials.access_key),
        ("AWS_SECRET_ACCESS_KEY", "secret access key", credentials.secret_key),
        ("AWS_SESSION_TOKEN", "session token", credentials.token),
    )
    for variable, words, value in parts:
        if value and not value.isprintable():
            name = variable if credentials.method == "env" else f"the {words} in the AWS credentials file"
            raise UserError(f"{name}: remove the line break or another invisible character")
    # Shorter ones may be common words that also occur in addresses.
    return [value for _, _, value in parts if value and len(value) >= 8]


def _is_folder(item: dict[str, Any]) -> bool:
    """Return whether a listed object is only a placeholder for a folder, as created by consoles and Hadoop."""
    return item["Key"].endswith("/") or (item["Size"] == 0 and item["Key"].endswith("_$folder$"))
