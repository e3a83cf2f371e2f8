"""Messages as records, batches in pieces, and what a function's response says of its batch."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.model.queue_batch import Item, QueueSource, event, failed, item, pieces, record

SOURCE = QueueSource("arn:aws:sqs:eu-west-1:111111111111:jobs", 10)
MESSAGE: dict[str, Any] = {"MessageId": "m", "ReceiptHandle": "r", "Body": "hällo", "MD5OfBody": "x"}


def test_a_record_is_as_recorded_at_aws() -> None:
    message = MESSAGE | {
        "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "5"},
        "MessageAttributes": {"WeeksOn": {"StringValue": "6", "DataType": "Number"}},
        "MD5OfMessageAttributes": "y",
    }
    assert record(message, SOURCE) == {
        "messageId": "m",
        "receiptHandle": "r",
        "body": "hällo",
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "5"},
        "messageAttributes": {
            "WeeksOn": {"stringValue": "6", "stringListValues": [], "binaryListValues": [], "dataType": "Number"}
        },
        "md5OfMessageAttributes": "y",
        "md5OfBody": "x",
        "eventSource": "aws:sqs",
        "eventSourceARN": SOURCE.arn,
        "awsRegion": "eu-west-1",
    }
    assert json.loads(event([item(record(MESSAGE, SOURCE))]))["Records"][0]["messageAttributes"] == {}


@pytest.mark.parametrize(
    "change",
    [{"MessageId": None}, {"Body": 1}, {"ReceiptHandle": []}, {"Attributes": [1]}, {"MessageAttributes": {"a": "b"}}],
)
def test_what_is_no_message(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        record(MESSAGE | change, SOURCE)


@pytest.mark.parametrize("change", [{"Body": "\ud800"}, {"Attributes": {"a": float("nan")}}])
def test_what_no_event_can_hold(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        item(record(MESSAGE | change, SOURCE))


@given(st.lists(st.integers(1, 60), max_size=20), st.integers(15, 80))
def test_pieces_hold_every_item_that_fits_once_and_in_order(sizes: list[int], limit: int) -> None:
    items = [Item(str(index), "", "", b"1" * size) for index, size in enumerate(sizes)]
    found = list(pieces(items, limit))
    assert all(len(event(piece)) <= limit for piece in found)
    assert all(found)
    assert [i for piece in found for i in piece] == [i for i in items if len(i.data) + 15 <= limit]
    assert all(len(event([*one, other[0]])) >= limit for one, other in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html, "Success and failure conditions"
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({}, set()),
        (None, set()),
        (b"", set()),
        ({"batchItemFailures": [{"itemIdentifier": "b"}]}, {"b"}),
        ({"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "a"}]}, {"a", "b"}),
        (b"{", {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, {"a", "b"}),
        ({"batchItemFailures": [{"id": "a"}]}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": "c"}]}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": ["b"]}]}, {"a", "b"}),
        (b'{"batchItemFailures": [' + b"[" * 900 + b"]" * 900 + b"]}", {"a", "b"}),
        ({"batchItemFailures": "a"}, {"a", "b"}),
        ({"batchItemFailures": ["a"]}, {"a", "b"}),
        (["a"], {"a", "b"}),
        ("a", {"a", "b"}),
        (b"[" * 100_000, {"a", "b"}),
    ],
)
def test_what_a_response_says(response: Any, expected: set[str]) -> None:
    data = response if isinstance(response, bytes) else json.dumps(response).encode()
    assert failed(data, ["a", "b"]) == expected
