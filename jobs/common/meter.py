"""Counts the S3 requests of a boto3 client, by botocore's events."""

import io
import time
from collections.abc import Callable
from typing import Any

from jobs.common import metrics

OPERATIONS = {
    "GetObject": "read",
    "PutObject": "write",
    "HeadObject": "head",
    "ListObjectsV2": "list",
    "DeleteObject": "delete",
}
# A missing key, and a conditional write that lost against another one, are not errors.
ANSWERS = (404, 409, 412)


def meter(events: Any) -> None:
    """Count the `events` of a client (`client.meta.events`) in jobs.common.metrics.s3."""
    counters = metrics.s3()

    def before(params: dict[str, Any], context: dict[str, Any], **rest: Any) -> None:
        context["mrigan_began"] = time.monotonic()
        body = params["body"]
        counters.bytes.labels("sent").inc(len(body.getbuffer()) if isinstance(body, io.BytesIO) else len(body))

    def tried(request: Any, **rest: Any) -> None:
        counters.retries.inc(request.context.get("retries", {}).get("attempt", 1) > 1)

    def ended(context: dict[str, Any], event_name: str) -> None:
        operation = event_name.rpartition(".")[2]
        if operation in OPERATIONS:
            counters.requests.labels(OPERATIONS[operation]).inc()
        counters.seconds.inc(time.monotonic() - context["mrigan_began"])

    def after(
        http_response: Any, parsed: dict[str, Any], context: dict[str, Any], event_name: str, **rest: Any
    ) -> None:
        ended(context, event_name)
        counters.errors.inc(http_response.status_code >= 400 and http_response.status_code not in ANSWERS)
        if "Body" in parsed:
            # botocore emits the event once the headers of an object have arrived; the caller reads the body later.
            parsed["Body"].read = reading(parsed["Body"].read)

    def reading(read: Callable[..., bytes]) -> Callable[..., bytes]:
        def metered(*arguments: Any) -> bytes:
            began = time.monotonic()
            try:
                data = read(*arguments)
            except Exception:
                counters.errors.inc()
                raise
            finally:
                counters.seconds.inc(time.monotonic() - began)
            counters.bytes.labels("received").inc(len(data))
            return data

        return metered

    def failed(context: dict[str, Any], event_name: str, **rest: Any) -> None:
        ended(context, event_name)
        counters.errors.inc()

    events.register("before-call.s3", before)
    events.register("request-created.s3", tried)
    events.register("after-call.s3", after)
    events.register("after-call-error.s3", failed)
