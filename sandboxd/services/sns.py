"""SNS: messages to topics by their ARN, in its query protocol.

Room: service. May: ask the endpoint of the services.

Source: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode

from sandboxd.services.signed import ServiceError, Signed

MAX_MESSAGE_BYTES = 256 * 1024
_ANSWER_BYTES = 64 * 1024
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,128})</Code>")


class Sns:
    """The topics at the endpoint."""

    def __init__(self, signed: Signed) -> None:
        self._signed = signed

    async def publish(self, arn: str, message: str, attributes: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Tell a topic. Raises ServiceError with SNS's code, OSError for no answer."""
        members = {"Action": "Publish", "Version": "2010-03-31", "TopicArn": arn, "Message": message}
        for number, (name, value) in enumerate((attributes or {}).items(), 1):
            entry = f"MessageAttributes.entry.{number}."
            members[entry + "Name"] = name
            members |= {f"{entry}Value.{kind}": text for kind, text in value.items()}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        region, body = arn.split(":")[3], urlencode(members).encode()
        answer, data = await self._signed.call("sns", region, headers, body, _ANSWER_BYTES)
        if answer.status != 200:
            code = _CODE.search(data)
            raise ServiceError(code[1].decode() if code else f"Http{answer.status}", "", answer.status)
