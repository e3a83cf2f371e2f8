"""S3: objects, as a stream.

Room: service. May: ask the endpoint of the services. May not: trust the name of a bucket or an object, or what comes.
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

from sandboxd.services.signed import ServiceError, Signed
from sandboxd.services.web import SECONDS, Answer, within

_ERROR_BYTES = 64 * 1024
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,128})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{0,4096})</Message>")
_DOTS = re.compile(r"(^|/)\.{1,2}(/|$)")


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object, or a version of one."""

    bucket: str
    key: str
    version: str | None = None

    @property
    def target(self) -> str:
        """Its path at an endpoint that has all buckets. Raises ValueError where a path cannot say it for certain.

        A key with a segment of dots is another object to a server, or a proxy before it, that resolves them.
        """
        if _DOTS.search(self.key) or _DOTS.search(self.bucket):
            raise ValueError("a name with a segment . or ..")
        path = f"/{quote(self.bucket, safe='')}/{quote(self.key, safe='/~')}"
        return path if self.version is None else f"{path}?versionId={quote(self.version, safe='')}"


class S3:
    """The buckets at the endpoint, as of one region."""

    def __init__(self, signed: Signed, region: str) -> None:
        self._signed, self._region = signed, region

    @contextlib.asynccontextmanager
    async def get(self, wanted: S3Object) -> AsyncIterator[Answer]:
        """An object: its size is `headers["content-length"]`, if it is told, and its bytes are `pieces()`.

        Raises ServiceError in S3's words, OSError where there is no answer, ValueError (see S3Object.target).
        """
        async with self._signed.ask("s3", self._region, "GET", wanted.target) as answer:
            if answer.status != 200:
                async with within(SECONDS):
                    raise _error(answer.status, await answer.body(_ERROR_BYTES))
            yield answer


def _error(status: int, body: bytes) -> ServiceError:
    text = body.decode(errors="replace")
    code, message = _CODE.search(text), _MESSAGE.search(text)
    return ServiceError(
        code[1] if code else f"Http{status}",
        html.unescape(message[1]) if message else f"The endpoint answered {status}.",
        status,
    )
