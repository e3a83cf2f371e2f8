"""What destinations and dead-letter queues are told of an event, in AWS's forms.

Room: service. May: make bytes of values.

The function's own words are put into a record as they are, once they are known to be JSON: read and written again,
large numbers would change, and an answer of 6 MB would hold up the loop.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-dlq.html (now part of the same page)
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from sandboxd.model.arn import LATEST, parse_function_reference
from sandboxd.model.event import Event
from sandboxd.model.invocation import InvocationResult
from sandboxd.model.payload import check_json
from sandboxd.services import sns, sqs

MESSAGE_BYTES = {"sqs": sqs.MAX_MESSAGE_BYTES, "sns": sns.MAX_MESSAGE_BYTES}  # by the target's service
_LETTER = b'{"MessageId": '
_ERROR_MESSAGE = 1024  # bytes of an error's text that a dead letter repeats


class Condition(Enum):
    """How an event ended."""

    SUCCESS = "Success"
    RETRIES = "RetriesExhausted"
    AGE = "EventAgeExceeded"
    ZERO = "ZeroReservedConcurrency"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an event: how often its function was run, what it answered last, and as which version."""

    condition: Condition
    count: int
    result: InvocationResult | None = None
    executed_version: str = ""


def destination_record(event: Event, ending: Ending, now: float, limit: int | None = None) -> bytes:
    """AWS's invocation record, version 1.0; without the payloads where it would have more than `limit` bytes."""
    reference = parse_function_reference(event.target)
    qualified = event.target if reference and reference.qualifier else f"{event.target}:{LATEST}"
    context = {
        "requestId": event.request_id,
        "functionArn": qualified,
        "condition": ending.condition.value,
        "approximateInvokeCount": ending.count,
    }
    begin = {"version": "1.0", "timestamp": _timestamp(now), "requestContext": context}
    parts = [json.dumps(begin).encode()[:-1]]
    payloads = [b', "requestPayload": ' + event.payload]
    if ending.result is not None:
        response = {"statusCode": 200, "executedVersion": ending.executed_version}
        if ending.result.function_error is not None:
            response["functionError"] = ending.result.function_error
        parts.append(b', "responseContext": ' + json.dumps(response).encode())
        payloads.append(b', "responsePayload": ' + _as_json(ending.result.payload))
    whole = b"".join((parts[0], payloads[0], *parts[1:], *payloads[1:], b"}"))
    return whole if limit is None or len(whole) <= limit else b"".join((*parts, b"}"))


def dead_letter(event: Event, ending: Ending) -> bytes:
    """The event as a message of SQS's form, with the attributes that AWS gives a dead letter."""
    attributes = {
        "RequestID": {"DataType": "String", "StringValue": event.request_id},
        "ErrorCode": {"DataType": "Number", "StringValue": "429" if ending.result is None else "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": _error_message(ending)},
    }
    body = event.payload.decode()
    return json.dumps({"MessageId": str(uuid.uuid4()), "Body": body, "MessageAttributes": attributes}).encode()


def read_dead_letter(record: bytes) -> tuple[str, dict[str, dict[str, str]]] | None:
    """Body and attributes of a record that `dead_letter` made; None for another."""
    if not record.startswith(_LETTER):
        return None
    letter = json.loads(record)
    return letter["Body"], letter["MessageAttributes"]


def _error_message(ending: Ending) -> str:
    if ending.result is None:
        return ending.condition.value
    try:
        document = json.loads(ending.result.payload)
    except (ValueError, RecursionError):
        document = None
    text = document.get("errorMessage") if isinstance(document, dict) else None
    return str(text or ending.condition.value).encode()[:_ERROR_MESSAGE].decode(errors="ignore")


def _as_json(payload: bytes) -> bytes:
    """A function's answer as JSON: as it is, or as a text where it is none."""
    try:
        check_json(payload)
    except ValueError:
        return json.dumps(payload.decode(errors="replace")).encode()
    return payload


def _timestamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
