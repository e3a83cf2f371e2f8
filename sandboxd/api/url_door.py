"""Requests to functions' URLs: known by their Host, whoever sends them, and answered by the function.

Room: service. May: authenticate, invoke, answer. May not: tell a stranger anything but what the function says.

Source: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html and urls-auth.html
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from sandboxd.api import url_cors, url_payload
from sandboxd.api.errors import ErrorWriter, request_too_large
from sandboxd.api.function_urls import Addresses
from sandboxd.api.handlers import Handlers
from sandboxd.api.invoke import new_request_id, new_trace_id
from sandboxd.api.sessions import Session
from sandboxd.api.sigv4 import Verifier
from sandboxd.api.stream import Begun
from sandboxd.api.url_payload import HEAD_BYTES, NO_BODY, PRELUDE_END, PRELUDE_TYPE, Arrival, Malformed
from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.http import CutShort, Request, Response
from sandboxd.model.invocation import Invocation
from sandboxd.store.urls import FunctionUrl, Places

_HASHED_HERE = 1 << 20  # bytes; a larger body is hashed on a thread
_FORBIDDEN = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)
_JSON = {"Content-Type": "application/json"}
_PORTS = {"http": 80, "https": 443}

Verify = Callable[[Request, str], str | Session]


class UrlDoor:
    """Serves the URLs of every account. `account` gives an account's handlers, `verify` says who signed a request with
    a body of that SHA-256, or raises ApiError."""

    def __init__(
        self,
        config: Config,
        places: Places,
        account: Callable[[str], Handlers],
        errors: ErrorWriter,
        verify: Verify,
        verifier: Verifier,
    ) -> None:
        self._places, self._account, self._errors = places, account, errors
        self._verify, self._verifier = verify, verifier
        self._open = config.api_auth == "none"
        self._limit = config.limits.sync_payload_bytes
        self._addresses = Addresses.of(config)

    def admit(self, request: Request) -> Response | int:
        """The refusal of a request, known by its head alone, or the most bytes that its body may have."""
        found = self._find(request)
        if found is None:
            return _nowhere(new_request_id())
        account, url = found
        length = request.headers.get("content-length", "0")
        try:
            if not url.public and not self._open:
                self._verifier.check_head(request.headers)
            elif not self._open:
                self._account(account).authorizer.check_url(None, url, account, request)
            if not length.isdigit() or int(length) > self._limit:
                raise request_too_large(self._limit, "InvokeFunction")
        except ApiError as error:
            return self._told(url, request, self._failed(error, new_request_id()))
        return self._limit

    def oversized(self, request: Request) -> Response:
        """The answer to a request whose body is larger than `admit` said."""
        error = request_too_large(self._limit, "InvokeFunction")
        return self._errors.response(error, new_request_id())

    async def handle(self, request: Request, request_id: str) -> Response:
        """Answer a request whose Host is an address, or looks like one."""
        found = self._find(request)
        if found is None:
            return _nowhere(request_id)
        account, url = found
        if url.cors and url_cors.is_preflight(request):
            return url_cors.preflight(url.cors, request, request_id)
        try:
            response = await self._answer(self._account(account), url, request, request_id)
        except Malformed:
            response = _bad_gateway(request_id)
        except ApiError as error:
            response = self._failed(error, request_id)
        return self._told(url, request, response)

    async def _answer(self, account: Handlers, url: FunctionUrl, request: Request, request_id: str) -> Response:
        if not request.target.startswith("/"):
            return _refusal(400, "Bad Request", request_id)
        caller = None if self._open else await self._caller(account, url, request)
        if len(request.body) > self._limit:
            raise request_too_large(self._limit, "InvokeFunction")
        trace_id = new_trace_id(request.headers.get("x-amzn-trace-id"))
        event = url_payload.event(request, self._arrival(url, request, request_id, trace_id), caller)
        invocation = account.invoke.of_url(url.function, url.qualifier, event, request_id, trace_id)
        if url.streams:
            response = await _streamed(await account.invoke.begin(invocation), request.method)
        else:
            response = await _whole(account, invocation)
        response.headers |= {"x-amzn-RequestId": request_id, "X-Amzn-Trace-Id": trace_id}
        return response

    async def _caller(self, account: Handlers, url: FunctionUrl, request: Request) -> dict[str, str] | None:
        """Who asks, as an event says it; None: anybody. Raises ApiError unless such a one may."""
        who = None
        if not url.public:
            body = request.body
            large = len(body) > _HASHED_HERE
            digest = await asyncio.to_thread(hashlib.sha256, body) if large else hashlib.sha256(body)
            who = self._verify(request, digest.hexdigest())
        account.authorizer.check_url(who, url, account.names.account, request)
        if who is None:
            return None
        arn, number = account.authorizer.caller(who)
        name = arn.rpartition("/")[2]
        key_id = request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        return {"accessKey": key_id, "accountId": number, "callerId": name, "userArn": arn, "userId": name}

    def _find(self, request: Request) -> tuple[str, FunctionUrl] | None:
        return self._places.find(self._addresses.id(request.headers["host"]))

    def _arrival(self, url: FunctionUrl, request: Request, request_id: str, trace_id: str) -> Arrival:
        addresses = self._addresses
        peer = request.peer.get_extra_info("peername") if request.peer is not None else None
        return Arrival(
            url.id,
            url.id + addresses.suffix,
            addresses.scheme,
            addresses.port or _PORTS[addresses.scheme],
            str(peer[0]) if peer else "",
            time.time(),
            request_id,
            trace_id,
        )

    def _failed(self, error: ApiError, request_id: str) -> Response:
        """What a caller is told of a request that was not answered by its function."""
        if error.code in ("AccessDeniedException", "MissingAuthenticationTokenException"):
            return _refusal(403, _FORBIDDEN, request_id, "AccessDeniedException")
        if error.status >= 500:
            return _bad_gateway(request_id)
        return self._errors.response(error, request_id)

    def _told(self, url: FunctionUrl, request: Request, response: Response) -> Response:
        if url.cors:
            url_cors.tell(url.cors, request, response)
        return response


async def _whole(account: Handlers, invocation: Invocation) -> Response:
    result = await account.invoke.run(invocation)
    if result.function_error is not None:
        raise Malformed(result.function_error)
    return url_payload.answer(result.payload)


async def _streamed(begun: Begun, method: str) -> Response:
    """The answer whose function has begun to stream it. Raises Malformed where it failed before that."""
    try:
        return await _begun(begun, method)
    except BaseException:
        begun.stream.close()
        raise


async def _begun(begun: Begun, method: str) -> Response:
    stream, task = begun
    pieces = stream.pieces()
    first = await anext(pieces, b"")
    if not first:
        result = await asyncio.shield(task)
        if result.function_error is not None or stream.content_type == PRELUDE_TYPE:
            raise Malformed("nothing was streamed")
        kind = stream.content_type or result.content_type
        return Response(200, result.payload, {"Content-Type": url_payload.header_value(kind)})
    if stream.content_type == PRELUDE_TYPE:
        while PRELUDE_END not in first:
            more = await anext(pieces, b"")
            if not more or len(first) > HEAD_BYTES:
                raise Malformed("no prelude")
            first += more
        text, _, first = first.partition(PRELUDE_END)
        response = url_payload.prelude(text)
    else:
        response = Response(200, b"", {"Content-Type": url_payload.header_value(stream.content_type)})
    if response.status in NO_BODY or method == "HEAD":
        stream.close()
    else:
        response.chunks = _Rest(begun, first, pieces)
    return response


class _Rest:
    """What is streamed behind the head (http.Chunks)."""

    def __init__(self, begun: Begun, first: bytes, pieces: AsyncIterator[bytes]) -> None:
        self._begun, self._first, self._pieces = begun, first, pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        async for piece in self._pieces:
            yield piece
        try:
            result = await asyncio.shield(self._begun.task)
        except ApiError as error:
            raise CutShort(error.code) from None
        if result.function_error is not None:
            raise CutShort(result.function_error)

    def close(self) -> None:
        """Nobody reads any further."""
        self._begun.stream.close()


def _nowhere(request_id: str) -> Response:
    return _refusal(403, None, request_id, "AccessDeniedException")


def _bad_gateway(request_id: str) -> Response:
    """What AWS says of every function that failed, or answered with what is no answer: these words, and no JSON."""
    return Response(502, b"Internal Server Error", _JSON | {"x-amzn-RequestId": request_id})


def _refusal(status: int, message: str | None, request_id: str, code: str = "") -> Response:
    headers: dict[str, Any] = _JSON | {"x-amzn-RequestId": request_id}
    if code:
        headers["x-amzn-ErrorType"] = code
    return Response(status, json.dumps({"Message": message}, separators=(",", ":")).encode(), headers)
