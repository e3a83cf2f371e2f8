"""What destinations are told: AWS's form, whatever the function answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandboxd.events.records import Condition, Ending, dead_letter, destination_record
from sandboxd.model.event import Event
from sandboxd.model.invocation import InvocationResult, Outcome
from tests.events.world import BASE


def event(payload: bytes = b"{}", target: str = BASE + "f") -> Event:
    return Event(target, 0.0, 0.0, "r", payload)


def answered(payload: bytes, error: str | None = None) -> Ending:
    result = InvocationResult(Outcome.OK, payload, function_error=error)
    return Ending(Condition.RETRIES if error else Condition.SUCCESS, 1, result, "3")


def test_success() -> None:
    assert json.loads(destination_record(event(b'{"a": 1}', BASE + "f:live"), answered(b"[1]"), 0.25)) == {
        "version": "1.0",
        "timestamp": "1970-01-01T00:00:00.250Z",
        "requestContext": {
            "requestId": "r",
            "functionArn": BASE + "f:live",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"a": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "3"},
        "responsePayload": [1],
    }


@pytest.mark.parametrize(
    "hostile",
    [
        b'1, "requestContext": {"condition": "Success"}',
        b'1}, {"version": 2',
        b'"',
        b"",
        b"NaN",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": 1} trailing',
    ],
)
def test_an_answer_that_is_no_json_is_a_text(hostile: bytes) -> None:
    record = json.loads(destination_record(event(), answered(hostile, "Unhandled"), 0.0))
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["responsePayload"] == hostile.decode(errors="replace")


def test_numbers_stay_what_they_were() -> None:
    number = b"1" * 5000
    record = destination_record(event(b"[1.000, 1e999]"), answered(number), 0.0)
    assert b'"requestPayload": [1.000, 1e999]' in record and b'"responsePayload": ' + number + b"}" in record


def test_a_record_that_is_too_large_goes_without_payloads() -> None:
    ending = answered(json.dumps("x" * 1000).encode())
    whole = destination_record(event(), ending, 0.0)
    assert destination_record(event(), ending, 0.0, len(whole)) == whole
    small: dict[str, Any] = json.loads(destination_record(event(), ending, 0.0, len(whole) - 1))
    assert {*json.loads(whole)} - {*small} == {"requestPayload", "responsePayload"}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"errorMessage": "no"}', "no"),
        (json.dumps({"errorMessage": "\u00e9" * 1000}).encode(), "\u00e9" * 512),
        (b'{"errorMessage": {"a": 1}}', "{'a': 1}"),
        (b"[]", "RetriesExhausted"),
        (b"{", "RetriesExhausted"),
    ],
)
def test_a_dead_letter_says_what_was_wrong(payload: bytes, text: str) -> None:
    letter = json.loads(dead_letter(event(b'"\xc3\xa9"'), answered(payload, "Unhandled")))
    assert letter["Body"] == '"\u00e9"'
    assert letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == text
