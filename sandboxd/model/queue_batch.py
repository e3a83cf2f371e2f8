"""A queue as an event source: what is asked of it, its messages as records of an event, what a response says of them.

Room: model.
Source: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandboxd.model.event_filter import Pattern

FIFO = ".fifo"
_BEGIN, _BETWEEN, _END = b'{"Records":[', b",", b"]}"


@dataclass(frozen=True, slots=True)
class QueueSource:
    """An event source mapping of a queue, as far as polling needs it. `window` in seconds."""

    arn: str
    batch: int
    window: float = 0
    concurrency: int = 1  # batches that run at one time
    partial: bool = False  # the function says which items of a batch failed
    patterns: tuple[Pattern, ...] = ()  # none: every message is of interest

    @property
    def region(self) -> str:
        """Where the queue is."""
        return self.arn.split(":")[3]

    @property
    def fifo(self) -> bool:
        """Whether the messages of one group come in their order, each after the one before it."""
        return self.arn.endswith(FIFO)


@dataclass(frozen=True, slots=True)
class Item:
    """A message on its way: `data` is its record in JSON."""

    id: str
    receipt: str
    group: str  # of a FIFO queue
    data: bytes


def record(message: Mapping[str, Any], source: QueueSource) -> dict[str, Any]:
    """The record that a function gets of a message of SQS. Raises ValueError where it is none."""
    attributes, own = message.get("Attributes") or {}, message.get("MessageAttributes") or {}
    texts = [message.get(name) for name in ("MessageId", "ReceiptHandle", "Body")]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(m, dict) for m in (attributes, own)):
        raise ValueError("a message without id, receipt handle or body")
    found = {
        "messageId": texts[0],
        "receiptHandle": texts[1],
        "body": texts[2],
        "attributes": attributes,
        "messageAttributes": {name: _attribute(value) for name, value in own.items()},
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": source.arn,
        "awsRegion": source.region,
    }
    if message.get("MD5OfMessageAttributes"):
        found["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return found


def item(found: Mapping[str, Any]) -> Item:
    """A record on its way. Raises ValueError for half a character, which is no UTF-8, and for NaN, which is no JSON."""
    data = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Item(found["messageId"], found["receiptHandle"], str(found["attributes"].get("MessageGroupId", "")), data)


def pieces(items: Iterable[Item], limit: int) -> Iterator[list[Item]]:
    """The items in their order, in events of no more than `limit` bytes; one that is larger alone is left out."""
    found: list[Item] = []
    size = around = len(_BEGIN) + len(_END)
    for each in items:
        more = len(each.data) + len(_BETWEEN)
        if around + more > limit:
            continue
        if size + more > limit:
            yield found
            found, size = [], around
        found.append(each)
        size += more
    if found:
        yield found


def event(items: Iterable[Item]) -> bytes:
    """The event that a function gets."""
    return _BEGIN + _BETWEEN.join(each.data for each in items) + _END


def failed(response: bytes, ids: Collection[str]) -> set[str]:
    """Which of a batch's messages a function says it failed on; all of them where it cannot be understood.

    As documented: nothing, null, and an object without failures are a success; an identifier that is empty, null, under
    another key or not of the batch is a complete failure.
    """
    everything = set(ids)
    try:
        document = json.loads(response or b"null")
    except (ValueError, RecursionError):
        return everything
    if document is None:
        return set()
    failures = document.get("batchItemFailures") if isinstance(document, dict) else everything
    if failures is None:
        return set()
    if not isinstance(failures, list):
        return everything
    named = [entry.get("itemIdentifier") if isinstance(entry, dict) else None for entry in failures]
    known = {name for name in named if isinstance(name, str)}
    return known if known <= everything and all(isinstance(name, str) for name in named) else everything


def _attribute(value: Any) -> Any:
    """A message attribute with names as a function gets them: `stringValue`, `dataType`, and two empty lists."""
    if not isinstance(value, dict):
        raise ValueError("a message attribute that is no object")
    lists: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    return {name[:1].lower() + name[1:]: part for name, part in value.items()} | lists
