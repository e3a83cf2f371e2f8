"""Invoke: the hot path from a parsed HTTP request to an Invocation, and back.

Room: service. May: resolve, hand to the scheduler, answer. May not: anything that every invocation would pay for.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import NamedTuple
from urllib.parse import unquote

from sandboxd.api.errors import (
    function_not_found,
    in_state,
    invalid_parameter,
    not_offered_member,
    request_too_large,
)
from sandboxd.api.names import Names
from sandboxd.api.protocols import Events, Scheduler
from sandboxd.api.reclaim import Reclaimer
from sandboxd.api.routes import read_query
from sandboxd.api.service_model import Operation
from sandboxd.api.stream import CONTENT_TYPE, Begun, EventStream, Streams
from sandboxd.api.validation import take_members
from sandboxd.errors import ApiError
from sandboxd.http import Request, Response
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult
from sandboxd.model.limits import Limits
from sandboxd.model.payload import check_json
from sandboxd.store.store import Store

_WHOLE = ("/2015-03-31/functions/", "/invocations")
_STREAMED = ("/2021-11-15/functions/", "/response-streaming-invocations")
_TRACE_LENGTH = 1024
_CLIENT_CONTEXT_LENGTH = 3583  # https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html


class Target(NamedTuple):
    """What a request line that invokes asks for: the function (still encoded), the query, and how the answer comes."""

    function: str
    query: str
    streamed: bool


def invoke_target(method: str, target: str) -> Target | None:
    """What a request line asks to invoke, or None."""
    if method != "POST":
        return None
    path, _, query = target.partition("?")
    for prefix, suffix in (_WHOLE, _STREAMED):
        if path.startswith(prefix) and path.endswith(suffix):
            return Target(path[len(prefix) : -len(suffix)], query, suffix is _STREAMED[1])
    return None


def new_request_id() -> str:
    """A version 4 UUID; uuid.uuid4 takes three times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class InvokeApi:
    """The operation Invoke."""

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        events: Events,
        reclaimer: Reclaimer,
        names: Names,
        limits: Limits,
        operation: Operation,
    ) -> None:
        self._functions, self._aliases = store.functions, store.aliases
        self._scheduler, self._events, self._reclaimer = scheduler, events, reclaimer
        self._names, self._limits, self._operation = names, limits, operation
        self._streams = Streams(self.run, limits.stream_payload_bytes)

    async def handle(self, target: Target, request: Request, request_id: str) -> Response:
        """Answer an Invoke whose sender may invoke. Raises ApiError."""
        name, query, streamed = target
        version = None if query else self._functions.resolve(name)
        arn = ""
        if version is None:
            version, arn = self._resolve(name, query, request)
        headers = request.headers
        limit = self._limits.sync_payload_bytes
        if len(request.body) > limit:
            raise request_too_large(limit, "InvokeFunction")
        if "x-amz-tenant-id" in headers or "x-amz-durable-execution-name" in headers:
            raise not_offered_member("TenantId" if "x-amz-tenant-id" in headers else "DurableExecutionName")
        dry = event = False
        mode = headers.get("x-amz-invocation-type")
        if mode is not None and mode != "RequestResponse":
            dry, event = _check_mode(mode, streamed)
        if event and len(request.body) > self._limits.async_payload_bytes:
            raise _event_too_large(len(request.body), self._limits.async_payload_bytes)
        if version.state != "Active":
            raise in_state(version.state)
        payload = request.body
        if payload:
            _check_payload(payload)
        if dry:
            return Response(204, b"", {"x-amzn-RequestId": request_id})
        tail = headers.get("x-amz-log-type") == "Tail"
        context = headers.get("x-amz-client-context")
        trace_id = new_trace_id(headers.get("x-amzn-trace-id"))
        invocation = Invocation(
            request_id,
            version,
            arn or version.arn,
            payload or b"{}",  # AWS hands a function that is invoked without a payload an empty object
            _client_context(context) if context else "",
            trace_id,
            tail,
        )
        if event:
            await self._events.accept(invocation)
            return Response(202, b"", {"x-amzn-RequestId": request_id, "X-Amzn-Trace-Id": trace_id})
        answer = {
            "x-amzn-RequestId": request_id,
            "X-Amz-Executed-Version": version.version,
            "X-Amzn-Trace-Id": trace_id,
        }
        if streamed:
            chunks = EventStream(await self._streams.begin(invocation), tail)
            return Response(200, b"", answer | {"Content-Type": CONTENT_TYPE}, chunks)
        result = await self.run(invocation)
        answer["Content-Type"] = result.content_type
        if result.function_error is not None:
            answer["X-Amz-Function-Error"] = result.function_error
        if tail:
            answer["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode()
        return Response(200, result.payload, answer)

    def of_url(self, name: str, qualifier: str, payload: bytes, request_id: str, trace_id: str) -> Invocation:
        """The invocation that a request to the URL of a function, or of an alias of it, is. Raises ApiError."""
        if len(payload) > self._limits.sync_payload_bytes:
            raise request_too_large(self._limits.sync_payload_bytes, "InvokeFunction")
        version, arn = self._version(name, qualifier or None, runs=True)
        if version.state != "Active":
            raise in_state(version.state)
        return Invocation(request_id, version, arn, payload, trace_id=trace_id)

    async def begin(self, invocation: Invocation) -> Begun:
        """Run an invocation, to take its answer while it is made. Raises ApiError where it does not come to run."""
        return await self._streams.begin(invocation)

    async def run(self, invocation: Invocation) -> InvocationResult:
        """Run an invocation, and keep the files of its version for as long."""
        self._reclaimer.began(invocation.function)
        try:
            return await self._scheduler.invoke(invocation)
        finally:
            self._reclaimer.ended(invocation.function)

    def _resolve(self, name: str, query: str, request: Request) -> tuple[FunctionVersion, str]:
        """The version and the ARN that were asked for, where the path holds more than the name of a function."""
        labels = {"FunctionName": unquote(name)}
        members = take_members(self._operation, labels, read_query(query), request.headers, b"")
        plain, qualifier = self._names.resolve(labels["FunctionName"], members.get("Qualifier"), "InvokeFunction")
        # Weights are of what runs: an event is drawn for with each of its attempts.
        runs = request.headers.get("x-amz-invocation-type") not in ("DryRun", "Event")
        return self._version(plain, qualifier, runs)

    def _version(self, name: str, qualifier: str | None, runs: bool) -> tuple[FunctionVersion, str]:
        """The version that a qualifier means, by an alias too, and the ARN."""
        choose = self._aliases.draw if runs else self._aliases.version
        number = choose(name, qualifier) if qualifier else None
        version = self._functions.resolve(name, number or qualifier)
        if version is None:
            raise function_not_found(self._names.arn(name, qualifier or LATEST))
        return version, self._names.arn(name, qualifier)


def _check_mode(mode: str, streamed: bool) -> tuple[bool, bool]:
    """Whether an invocation type other than RequestResponse is DryRun, and whether it is Event."""
    modes = ("RequestResponse", "DryRun") if streamed else ("Event", "RequestResponse", "DryRun")
    if mode not in modes:
        raise ApiError(
            "ValidationException",
            f"1 validation error detected: Value '{mode[:200]}' at 'invocationType' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(modes)}]",
        )
    return mode == "DryRun", mode == "Event"


def _event_too_large(size: int, limit: int) -> ApiError:
    text = f"{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"
    return ApiError("RequestEntityTooLargeException", text, 413)


def _check_payload(payload: bytes) -> None:
    try:
        check_json(payload)
    except ValueError as error:
        text = f"Could not parse request body into json: {error}"
        raise ApiError("InvalidRequestContentException", text) from None


def _client_context(text: str) -> str:
    """The context's JSON on one line of ASCII: it goes to the runtime as a header."""
    try:
        if len(text) > _CLIENT_CONTEXT_LENGTH:
            raise invalid_parameter(f"Client context must be no more than {_CLIENT_CONTEXT_LENGTH} bytes.")
        document = json.loads(base64.b64decode(text, validate=True))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return json.dumps(document)
    except (binascii.Error, ValueError, RecursionError):
        text = "Client context must be a valid Base64-encoded JSON object."
        raise ApiError("InvalidRequestContentException", text) from None


def new_trace_id(sent: str | None) -> str:
    """The caller's trace header, or a new one.

    Source: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    """
    if sent and len(sent) <= _TRACE_LENGTH and sent.isascii() and sent.isprintable():
        return sent
    digits = os.urandom(24).hex()
    return f"Root=1-{digits[:8]}-{digits[8:32]};Parent={digits[32:]};Sampled=0"
