"""The Runtime API 2018-06-01: the turns that one runtime takes through its door.

Room: service. May: speak HTTP with the function, which is a hostile client. May not: believe it: what comes out of turn
gets a 4xx and changes nothing.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html and, for words and status codes,
github.com/aws/aws-lambda-runtime-interface-emulator (lambda/rapi).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from sandboxd.http import Budget, HttpLimits, Request, Response, Server, serve
from sandboxd.model.invocation import ResponseStream

# What AWS grants an answer beyond the payload's limit (interop.MaxPayloadSize).
ENVELOPE_BYTES = 100

# awslambdaric sends the whole stack trace of an error as a header of up to 1 MiB.
_HEADER_BYTES = 1024 * 1024 + 64 * 1024
_CONNECTIONS = 8
_BACKLOG = 8

_NEXT = "/2018-06-01/runtime/invocation/next"
_INIT_ERROR = "/2018-06-01/runtime/init/error"
_ANSWER = re.compile(r"/2018-06-01/runtime/invocation/([^/?]{1,128})/(response|error)")

_JSON = {"Content-Type": "application/json"}
_ACCEPTED = Response(202, b'{"status":"OK"}\n', _JSON)
_NOT_FOUND = Response(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
_TRUNCATED = b'{"errorMessage": "The response was truncated", "errorType": "Runtime.TruncatedResponse"}'
_KNOWN_ERROR_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]{1,64}")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


class Turn(Enum):
    """Whose turn it is; the values are AWS's names of the runtime's states."""

    STARTED = "Started"
    INIT_ERROR = "InitError"
    WAITING = "Ready"  # a GET /next may be outstanding (its connection can have gone away since)
    RUNNING = "Running"
    STREAMING = "ResponseStreaming"
    ANSWERED = "ResponseSent"


@dataclass(frozen=True, slots=True)
class Event:
    """What GET /next is answered with. `deadline_ms` is in milliseconds since the epoch."""

    request_id: str
    deadline_ms: int
    invoked_arn: str
    trace_id: str
    client_context: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runtime posted: a response, or the error that its handler raised (`is_error`). `too_large`: it broke the
    limit, and was dropped. `streamed`: the body has gone its way already, but for an error that ended it."""

    body: bytes
    content_type: str = "application/json"
    is_error: bool = False
    too_large: bool = False
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class InitError:
    """What a runtime posted instead of asking for its first event."""

    body: bytes
    error_type: str


class Listener(Protocol):
    """Who hears of the runtime's turns: its environment."""

    def runtime_asked(self) -> None:
        """The runtime waits for an event (again)."""

    def runtime_answered(self, answer: Answer) -> bool:
        """The invocation in flight was answered; False where its time was over."""

    def stream(self) -> ResponseStream | None:
        """Where the answer to the invocation in flight is streamed to; None where it is wanted as a whole."""

    def runtime_failed_to_start(self, error: InitError) -> None:
        """The runtime reported that it could not load the function."""


class _StreamedAnswer:
    """The body of one response while it comes (http.Sink)."""

    __slots__ = ("_api", "_stream")

    def __init__(self, api: RuntimeApi, stream: ResponseStream) -> None:
        self._api, self._stream = api, stream

    def write(self, data: bytes, go_on: Callable[[], None]) -> bool:
        more = self._stream.write(data, go_on)
        if self._stream.too_large:
            self.end(Answer(b"", too_large=True, streamed=True))
        return more

    def abort(self) -> None:
        self.end(Answer(_TRUNCATED, is_error=True, streamed=True))

    def end(self, answer: Answer) -> bool:
        """The last byte is there, or will not come; False where the invocation is over already."""
        self._stream.end()
        return self._api.end_stream(answer)


class RuntimeApi:
    """One runtime's door. Its turns: next, then response or error for that event, then next."""

    __slots__ = ("_listener", "_loop", "_max_body", "_request_id", "_turn", "_waiting")

    def __init__(self, listener: Listener, max_payload: int) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._max_body = max_payload + ENVELOPE_BYTES
        self._turn = Turn.STARTED
        self._request_id = ""
        self._waiting: asyncio.Future[Response] | None = None

    async def serve(self, listening: int, budget: Budget) -> Server:
        """Serve the listening socket `listening`, owned by the server from now on."""
        limits = HttpLimits(
            body=self._max_body, header=_HEADER_BYTES, request_seconds=30, idle_seconds=60, connections=_CONNECTIONS,
            half_close=False,
        )  # fmt: skip
        sock = socket.socket(fileno=listening)
        own = Budget(self._max_body + _HEADER_BYTES, whole=budget)
        return await serve(
            sock, self.handle, limits, own, _refusal, _BACKLOG, oversized=self._oversized, admission=self._refused,
            streaming=self._streamed, paced=True,
        )  # fmt: skip

    @property
    def waiting(self) -> bool:
        """Whether an event would be taken right now."""
        return self._waiting is not None and not self._waiting.done()

    def deliver(self, event: Event) -> None:
        """Answer the outstanding GET /next; only while `waiting`."""
        assert self._waiting is not None
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": event.request_id,
            "Lambda-Runtime-Deadline-Ms": str(event.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": event.invoked_arn,
            "Lambda-Runtime-Trace-Id": event.trace_id if _PRINTABLE.fullmatch(event.trace_id) else "",
        }
        if event.client_context:
            headers["Lambda-Runtime-Client-Context"] = _header_json(event.client_context)
        self._turn, self._request_id = Turn.RUNNING, event.request_id
        self._waiting.set_result(Response(200, event.payload, headers))
        self._waiting = None

    def handle(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer one request of the runtime."""
        path = request.target.partition("?")[0]
        if path == _NEXT:
            return self._next() if request.method == "GET" else _not_allowed("GET")
        if match := _ANSWER.fullmatch(path):
            if request.method != "POST":
                return _not_allowed("POST")
            return self._answer(match[1], match[2] == "error", request)
        if path == _INIT_ERROR:
            return self._init_error(request) if request.method == "POST" else _not_allowed("POST")
        return _NOT_FOUND

    def _next(self) -> Response | asyncio.Future[Response]:
        if self._turn in (Turn.RUNNING, Turn.STREAMING, Turn.INIT_ERROR) or self.waiting:
            return self._out_of_turn(Turn.WAITING.value)
        self._turn, self._request_id = Turn.WAITING, ""
        waiting = self._waiting = self._loop.create_future()
        self._listener.runtime_asked()
        return waiting

    def _refused(self, request: Request) -> Response | None:
        """The refusal of a request whose body need not be read: one that is out of turn whatever it says."""
        path = request.target.partition("?")[0]
        if match := _ANSWER.fullmatch(path):
            return self._out_of_order(match[1], match[2] == "error")
        if path == _INIT_ERROR:
            return None if self._turn is Turn.STARTED else self._out_of_turn(Turn.INIT_ERROR.value)
        return _not_allowed("GET") if path == _NEXT and request.method != "GET" else None

    def _out_of_order(self, request_id: str, is_error: bool) -> Response | None:
        if not self._request_id or request_id != self._request_id:
            return _error(400, "InvalidRequestID", "Invalid request ID")
        if self._turn is not Turn.RUNNING:
            return self._out_of_turn("InvocationErrorResponse" if is_error else "InvocationResponse")
        return None

    def _streamed(self, request: Request) -> _StreamedAnswer | None:
        """Who takes a response as it comes, where both the runtime and its caller want that."""
        match = _ANSWER.fullmatch(request.target.partition("?")[0])
        wanted = request.headers.get("lambda-runtime-function-response-mode") == "streaming"
        if not match or match[2] == "error" or not wanted or (stream := self._listener.stream()) is None:
            return None
        self._turn, stream.content_type = Turn.STREAMING, _content_type(request)
        return _StreamedAnswer(self, stream)

    def end_stream(self, answer: Answer) -> bool:
        """A streamed response is over; False where it was before."""
        if self._turn is not Turn.STREAMING:
            return False
        self._turn = Turn.ANSWERED
        return self._listener.runtime_answered(answer)

    def _answer(self, request_id: str, is_error: bool, request: Request, too_large: bool = False) -> Response:
        if isinstance(request.sink, _StreamedAnswer):
            failed = "lambda-runtime-function-error-type" in request.headers  # in the trailers
            answer = Answer(_error_body(request) if failed else b"", is_error=failed, streamed=True)
            return _ACCEPTED if request.sink.end(answer) else self._out_of_turn("InvocationResponse")
        if refused := self._out_of_order(request_id, is_error):
            return refused
        if request.headers.get("lambda-runtime-function-response-mode", "streaming") != "streaming":
            return _error(400, "InvalidFunctionResponseMode", "Invalid function response mode")
        self._turn = Turn.ANSWERED
        body = request.body
        if is_error and not body and not too_large:
            body = json.dumps({"errorType": _error_type(request)}).encode()
        if not self._listener.runtime_answered(Answer(body, _content_type(request), is_error, too_large)):
            return self._out_of_turn("InvocationResponse")
        return _ACCEPTED

    def _init_error(self, request: Request) -> Response:
        if self._turn is not Turn.STARTED:
            return self._out_of_turn(Turn.INIT_ERROR.value)
        self._turn = Turn.INIT_ERROR
        self._listener.runtime_failed_to_start(InitError(request.body, _error_type(request)))
        return _ACCEPTED

    def _oversized(self, request: Request) -> Response:
        """Answer a request whose body breaks the limit: an answer in its turn ends the invocation all the same."""
        match = _ANSWER.fullmatch(request.target.partition("?")[0])
        if match and request.method == "POST":
            answer = self._answer(match[1], match[2] == "error", request, too_large=True)
            if answer is not _ACCEPTED:
                return answer
        return _error(413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({self._max_body} bytes).")

    def _out_of_turn(self, wanted: str) -> Response:
        message = (
            f"State transition from {self._turn.value} to {wanted} failed for runtime. "
            "Error: State transition is not allowed"
        )
        return _error(403, "InvalidStateTransition", message)


def _error(status: int, error_type: str, message: str) -> Response:
    body = json.dumps({"errorMessage": message, "errorType": error_type}, separators=(",", ":")).encode() + b"\n"
    return Response(status, body, _JSON)


def _refusal(status: int, reason: str) -> Response:
    return _error(status, "InvalidRequest", reason)


def _not_allowed(method: str) -> Response:
    return Response(405, b"", {"Allow": method})


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")[:128] or "application/octet-stream"


def _error_type(request: Request) -> str:
    """The error type that a runtime names, where it is one of AWS's forms (fatalerror.go): it goes into the log."""
    named = request.headers.get("lambda-runtime-function-error-type", "")
    return named if _KNOWN_ERROR_TYPE.fullmatch(named) else "Runtime.Unknown"


def _error_body(request: Request) -> bytes:
    """The error in the trailers of a streamed response."""
    try:
        body = base64.b64decode(request.headers.get("lambda-runtime-function-error-body", ""), validate=True)
    except binascii.Error:
        body = b""
    return body or json.dumps({"errorType": _error_type(request)}).encode()


def _header_json(text: str) -> str:
    """JSON as one line of ASCII, fit for a header; what is no JSON loses the characters that no header can hold."""
    if _PRINTABLE.fullmatch(text):
        return text
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))
    except ValueError:
        return re.sub(r"[^\x20-\x7e]", "?", text)
