"""Counts the S3 requests of a boto3 client, by botocore's events."""

import functools
import io
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from jobs.common import metrics

OPERATIONS = {
    "GetObject": "read",
    "PutObject": "write",
    "CreateMultipartUpload": "write",
    "UploadPart": "write",
    "CompleteMultipartUpload": "write",
    "AbortMultipartUpload": "write",
    "HeadObject": "head",
    "ListObjectsV2": "list",
    "DeleteObject": "delete",
}
# A missing key, and a conditional write that lost against another one, are not errors.
ANSWERS = (404, 409, 412)


@functools.cache
def counters() -> SimpleNamespace:
    """Return the counters of S3: requests (by operation), errors, retries, bytes (by direction), seconds."""
    counter = metrics.counter
    return SimpleNamespace(
        requests=counter("mrigan_s3_requests_total", "Requests.", operation=tuple(dict.fromkeys(OPERATIONS.values()))),
        errors=counter("mrigan_s3_errors_total", "Requests that failed after all retries."),
        retries=counter("mrigan_s3_retries_total", "Retries of requests."),
        bytes=counter("mrigan_s3_bytes_total", "Bytes of object bodies transferred.", direction=("received", "sent")),
        seconds=counter("mrigan_s3_request_seconds_total", "Duration of requests, in seconds."),
    )


def meter(events: Any) -> None:
    """Count the `events` of a client (`client.meta.events`)."""
    count = counters()

    def before(params: dict[str, Any], context: dict[str, Any], **rest: Any) -> None:
        context["mrigan_began"] = time.monotonic()
        body = params["body"]
        count.bytes.labels("sent").inc(len(body.getbuffer()) if isinstance(body, io.BytesIO) else len(body))

    def tried(request: Any, **rest: Any) -> None:
        count.retries.inc(request.context.get("retries", {}).get("attempt", 1) > 1)

    def ended(context: dict[str, Any], event_name: str) -> None:
        operation = event_name.rpartition(".")[2]
        if operation in OPERATIONS:
            count.requests.labels(OPERATIONS[operation]).inc()
        count.seconds.inc(time.monotonic() - context["mrigan_began"])

    def after(
        http_response: Any, parsed: dict[str, Any], context: dict[str, Any], event_name: str, **rest: Any
    ) -> None:
        ended(context, event_name)
        count.errors.inc(http_response.status_code >= 400 and http_response.status_code not in ANSWERS)
        if "Body" in parsed:
            # botocore emits the event once the headers of an object have arrived; the caller reads the body later.
            parsed["Body"].read = reading(parsed["Body"].read)

    def reading(read: Callable[..., bytes]) -> Callable[..., bytes]:
        def metered(*arguments: Any) -> bytes:
            began = time.monotonic()
            try:
                data = read(*arguments)
            except Exception:
                count.errors.inc()
                raise
            finally:
                count.seconds.inc(time.monotonic() - began)
            count.bytes.labels("received").inc(len(data))
            return data

        return metered

    def failed(context: dict[str, Any], event_name: str, **rest: Any) -> None:
        ended(context, event_name)
        count.errors.inc()

    events.register("before-call.s3", before)
    events.register("request-created.s3", tried)
    events.register("after-call.s3", after)
    events.register("after-call-error.s3", failed)
