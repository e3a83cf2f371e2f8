"""SQS: queues by their ARN, in its JSON protocol.

Room: service. May: ask the endpoint of the services. May not: trust what comes, or follow a queue's URL: it is handed
back to the endpoint as a name.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sandboxd.services.signed import ServiceError, Signed
from sandboxd.services.web import SECONDS

MAX_MESSAGES = 10
MAX_MESSAGE_BYTES = 1024 * 1024  # of one message, and of all that come at one time
_ANSWER_BYTES = 8 * MAX_MESSAGE_BYTES  # JSON writes some letters as six
_KNOWN_QUEUES = 1024
_GONE = "QueueDoesNotExist"

Attributes = Mapping[str, Mapping[str, str]]  # of a message: {"Name": {"DataType": "String", "StringValue": "..."}}
Message = dict[str, Any]  # MessageId, ReceiptHandle, Body, MD5OfBody, Attributes, MessageAttributes


class Sqs:
    """The queues at the endpoint. Every method raises ServiceError in SQS's words, and OSError for no answer."""

    def __init__(self, signed: Signed) -> None:
        self._signed = signed
        self._urls: dict[str, str] = {}

    async def send(self, arn: str, body: str, attributes: Attributes | None = None) -> str:
        """Put a message into a queue; its id."""
        members: dict[str, Any] = {"MessageBody": body}
        if attributes:
            members["MessageAttributes"] = attributes
        answer = await self._ask(arn, "SendMessage", members)
        return str(answer.get("MessageId", ""))

    async def receive(
        self, arn: str, limit: int = MAX_MESSAGES, wait: int = 20, visibility: int | None = None
    ) -> list[Message]:
        """Up to `limit` (10) messages; waits for the first for `wait` (20) seconds at most.

        Nobody else gets them for `visibility` seconds; None: for as long as the queue says.
        """
        members: dict[str, Any] = {
            "MaxNumberOfMessages": limit,
            "WaitTimeSeconds": wait,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        if visibility is not None:
            members["VisibilityTimeout"] = visibility
        answer = await self._ask(arn, "ReceiveMessage", members, wait + SECONDS)
        found = answer.get("Messages") or []
        if not isinstance(found, list) or len(found) > limit or not all(map(_is_message, found)):
            raise OSError(errno.EPROTO, "the endpoint's messages are none of SQS's")
        return found

    async def delete(self, arn: str, receipts: Sequence[str]) -> list[str]:
        """Remove up to 10 messages by their receipt handles; those handles with which it did not succeed."""
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
        return await self._batch(arn, "DeleteMessageBatch", entries)

    async def hide(self, arn: str, receipts: Sequence[str], seconds: int) -> list[str]:
        """Let nobody else get up to 10 messages for `seconds` from now (0: they may at once); those that it missed."""
        entries = [
            {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
            for number, receipt in enumerate(receipts)
        ]
        return await self._batch(arn, "ChangeMessageVisibilityBatch", entries)

    async def attributes(self, arn: str) -> dict[str, str]:
        """What a queue says of itself: VisibilityTimeout, ApproximateNumberOfMessages and so on."""
        found = (await self._ask(arn, "GetQueueAttributes", {"AttributeNames": ["All"]})).get("Attributes") or {}
        if not isinstance(found, dict):
            raise OSError(errno.EPROTO, "the endpoint's attributes are none of SQS's")
        return {str(name): str(value) for name, value in found.items()}

    async def _batch(self, arn: str, operation: str, entries: list[dict[str, Any]]) -> list[str]:
        if not entries:
            return []
        answer = await self._ask(arn, operation, {"Entries": entries})
        failed = answer.get("Failed") or []
        missed = {row.get("Id") for row in failed if isinstance(row, dict)} if isinstance(failed, list) else set()
        return [str(entry["ReceiptHandle"]) for entry in entries if entry["Id"] in missed]

    async def _ask(
        self, arn: str, operation: str, members: dict[str, Any], seconds: float | None = None
    ) -> dict[str, Any]:
        _, _, _, region, account, name = arn.split(":", 5)
        url = self._urls.get(arn)
        if url is None:
            wanted = {"QueueName": name, "QueueOwnerAWSAccountId": account}
            found = (await self._call(region, "GetQueueUrl", wanted, None)).get("QueueUrl")
            # A server that does not heed whose queue is asked for would give one account what is another's.
            if not isinstance(found, str) or len(found) > 2048 or not found.endswith(f"/{account}/{name}"):
                raise OSError(errno.EPROTO, f"the endpoint knows no queue {name} of the account {account}")
            if len(self._urls) >= _KNOWN_QUEUES:
                self._urls.clear()
            url = self._urls[arn] = found
        try:
            return await self._call(region, operation, {"QueueUrl": url} | members, seconds)
        except ServiceError as error:
            if error.code == _GONE:
                self._urls.pop(arn, None)
            raise

    async def _call(
        self, region: str, operation: str, members: dict[str, Any], seconds: float | None
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{operation}"}
        body = json.dumps(members).encode()
        answer, data = await self._signed.call("sqs", region, headers, body, _ANSWER_BYTES, seconds)
        try:
            document = json.loads(data or b"{}")
        except (ValueError, RecursionError):
            document = None
        if answer.status == 200 and isinstance(document, dict):
            return document
        if answer.status == 200 or not isinstance(document, dict):
            raise OSError(errno.EPROTO, f"the endpoint answered {answer.status}, and no JSON")
        code = str(document.get("__type", f"Http{answer.status}")).rpartition("#")[2]
        message = str(document.get("message", document.get("Message", "")))
        raise ServiceError(code, message, answer.status)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(
        isinstance(message.get(member), str) for member in ("MessageId", "ReceiptHandle", "Body")
    )
