"""Requests to the neighbouring services, signed as AWS's clients sign, and their errors.

Room: service. May: sign with the configuration's key.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sandboxd.errors import SandboxdError
from sandboxd.model.endpoint import Endpoint
from sandboxd.services.web import Answer, Web, within


class ServiceError(SandboxdError):
    """A service refused: its error's code and message, in printable letters and not long, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int) -> None:
        self.code, self.message, self.status = _printable(code, 128), _printable(message, 1024), status
        super().__init__(f"{self.code}: {self.message}")


class Signed:
    """The endpoint of all services, with the key that requests are signed by."""

    def __init__(self, web: Web, endpoint: Endpoint, key_id: str, secret: str) -> None:
        # Brings urllib3 along: 5 MB that only those pay who have neighbours. A plain import below them would be late.
        from botocore.auth import S3SigV4Auth, SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import ReadOnlyCredentials

        self._web, self._endpoint, self._request = web, endpoint, AWSRequest
        self._credentials = ReadOnlyCredentials(key_id, secret, None)
        self._signers: dict[str, Any] = {"s3": S3SigV4Auth}
        self._signer = SigV4Auth

    @contextlib.asynccontextmanager
    async def ask(
        self,
        service: str,
        region: str,
        method: str,
        target: str = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float | None = None,
    ) -> AsyncIterator[Answer]:
        """`Web.ask` for a service, signed. Raises OSError."""
        url = f"{self._endpoint.scheme}://{self._endpoint.authority}{target}"
        request = self._request(method, url, dict(headers or {}) | {"Host": self._endpoint.authority}, body)
        self._signers.get(service, self._signer)(self._credentials, service, region).add_auth(request)
        async with self._web.ask(self._endpoint, method, target, dict(request.headers), body, seconds) as answer:
            yield answer

    async def call(
        self,
        service: str,
        region: str,
        headers: Mapping[str, str],
        body: bytes,
        limit: int,
        seconds: float | None = None,
    ) -> tuple[Answer, bytes]:
        """POST to a service; its whole answer within `seconds`, of `limit` bytes at most. Raises OSError."""
        async with (
            within(seconds or self._web.seconds),
            self.ask(service, region, "POST", "/", headers, body, seconds) as answer,
        ):
            return answer, await answer.body(limit)


def _printable(text: str, limit: int) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:limit])
