"""HTTP/1.1 for the two hot doors, the endpoint and the Runtime API: one asyncio protocol on httptools.

Room: service. May: parse and frame. May not: know what a path means.

A framework costs more than the whole warm path of an invocation (docs/architecture.md has the figures), so a request
goes from the parser to its handler in one call: no task, no copy of headers, no middleware. Bodies are buffered up to
the door's limit and against one budget for the whole host.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """One parsed request. Header names are lower-case; of a repeated header the last value counts, unless it is one
    of `HttpLimits.unique`, where a repetition is refused (a signature must not cover one value and serve another)."""

    method: str
    target: str  # path and query as sent
    headers: dict[str, str]
    body: bytes = b""
    peer: Any = None  # what the door knows of the connection: its transport's extra information


@dataclass(slots=True)
class Response:
    """One answer; Content-Length is added, Date is not (AWS's clients do not read it)."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Budget:
    """How many bytes of bodies may be buffered on the whole host at one time."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, count: int) -> bool:
        """Take bytes from the budget; False, and nothing taken, where they are not there."""
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Return bytes taken."""
        self.used -= count


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one door accepts: sizes in bytes, times in seconds."""

    body: int
    header: int = 16 * 1024
    request_seconds: float = 60  # from the first byte of a request to its last
    idle_seconds: float = 300  # a kept-alive connection without a request
    unique: frozenset[str] = frozenset({"host", "content-length", "authorization"})


Handler = Callable[[Request], Response | asyncio.Future[Response] | Coroutine[Any, Any, Response]]
Refusal = Callable[[int, str], Response]


def plain_refusal(status: int, reason: str) -> Response:
    """The answer to what is not HTTP or breaks a limit, where a door has no words of its own."""
    return Response(status, reason.encode() + b"\n", {"Content-Type": "text/plain"})


class HttpProtocol(asyncio.Protocol):
    """One connection. Requests are handled one after another, in order; reading pauses while one is handled."""

    __slots__ = (
        "_body",
        "_budget",
        "_buffered",
        "_closing",
        "_connections",
        "_deadline",
        "_handler",
        "_header_bytes",
        "_headers",
        "_idle",
        "_limits",
        "_loop",
        "_parser",
        "_pending",
        "_refusal",
        "_refused",
        "_target",
        "_task",
        "_timer",
        "_transport",
    )  # fmt: skip

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits,
        budget: Budget,
        connections: set[HttpProtocol],
        refusal: Refusal = plain_refusal,
    ) -> None:
        self._handler, self._limits, self._budget, self._refusal = handler, limits, budget, refusal
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before any other callback
        self._pending: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Future[Response] | None = None
        self._buffered = 0
        self._closing = self._refused = False
        self._idle = True
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self._deadline = self._loop.time() + self._limits.request_seconds
        self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connections.discard(self)
        self._budget.give_back(self._buffered)
        self._buffered = 0
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._idle:
            self._idle = False
            self._deadline = self._loop.time() + self._limits.request_seconds
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "upgrades are not spoken here")
        except httptools.HttpParserCallbackError as error:
            if not self._refused:
                raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            self._refuse(400, f"not HTTP/1.1: {error}")

    def eof_received(self) -> bool:
        self._closing = True
        return self._task is not None or bool(self._pending)

    # httptools' callbacks

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        key = name.decode("latin-1").lower()
        if key in self._headers and key in self._limits.unique:
            self._refuse(400, f"header {key} is repeated")
        self._headers[key] = value.decode("latin-1")

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > self._limits.header:
            self._refuse(431, f"request line and headers are larger than {self._limits.header} bytes")

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        length = self._headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limits.body:
            self._refuse(413, f"body of {length} bytes is larger than {self._limits.body}")
        elif self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        if sum(map(len, self._body)) + len(body) > self._limits.body:
            self._refuse(413, f"body is larger than {self._limits.body} bytes")
        elif not self._budget.take(len(body)):
            self._refuse(503, "too many bytes of requests are waiting")
        else:
            self._buffered += len(body)
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            b"".join(self._body),
            self._transport,
        )
        self._pending.append((request, self._parser.should_keep_alive()))
        self._reset()
        if self._task is None and len(self._pending) == 1:
            self._handle_next()
        else:
            self._transport.pause_reading()

    # answering

    def _handle_next(self) -> None:
        request, _ = self._pending[0]
        answer = self._handler(request)
        if isinstance(answer, Response):
            self._answer(answer)
            return
        self._task = answer if isinstance(answer, asyncio.Future) else self._loop.create_task(answer)
        self._task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Future[Response]) -> None:
        self._task = None
        if task.cancelled():
            self._transport.abort()
            return
        self._answer(task.result())

    def _answer(self, response: Response) -> None:
        if not self._pending or self._transport.is_closing():
            return
        request, keep_alive = self._pending.popleft()
        size = len(request.body)
        self._budget.give_back(size)
        self._buffered -= size
        keep_alive = keep_alive and not self._closing
        self._write(response, keep_alive)
        if not keep_alive:
            self._transport.close()
        elif self._pending:
            self._loop.call_soon(self._handle_next)
        else:
            self._idle = True
            self._deadline = self._loop.time() + self._limits.idle_seconds
            self._transport.resume_reading()

    def _write(self, response: Response, keep_alive: bool) -> None:
        head = [b"HTTP/1.1 %d %s\r\n" % (response.status, _REASONS.get(response.status, b"Unknown"))]
        for name, value in response.headers.items():
            head.append(f"{name}: {value}\r\n".encode("latin-1", "replace"))
        if response.status != 204:
            head.append(b"Content-Length: %d\r\n" % len(response.body))
        head.append(b"\r\n" if keep_alive else b"Connection: close\r\n\r\n")
        if len(response.body) <= 65_536:
            head.append(response.body)
            self._transport.write(b"".join(head))
        else:
            self._transport.write(b"".join(head))
            self._transport.write(response.body)

    def _refuse(self, status: int, reason: str) -> None:
        if self._refused:
            return
        self._refused = True
        if not self._transport.is_closing():
            self._write(self._refusal(status, reason), keep_alive=False)
            self._transport.close()

    def _on_timer(self) -> None:
        now = self._loop.time()
        if self._task is not None or self._pending:
            self._deadline = now + self._limits.idle_seconds
        elif now >= self._deadline:
            self._transport.abort()
            return
        self._timer = self._loop.call_at(self._deadline, self._on_timer)


@dataclass(slots=True)
class Server:
    """A listening door and its connections."""

    server: asyncio.Server
    connections: set[HttpProtocol]

    async def stop_listening(self) -> None:
        """Take no further connection; those that wait in the backlog stay there for whoever holds the socket next."""
        self.server.close()

    def abort(self) -> None:
        """End the door with every connection."""
        self.server.close()
        for connection in list(self.connections):
            connection._transport.abort()


async def serve(
    sock: Any,
    handler: Handler,
    limits: HttpLimits,
    budget: Budget,
    refusal: Refusal = plain_refusal,
    backlog: int = 128,
) -> Server:
    """Serve a listening socket (TCP or unix) that is already bound."""
    connections: set[HttpProtocol] = set()
    factory = functools.partial(HttpProtocol, handler, limits, budget, connections, refusal)
    server = await asyncio.get_running_loop().create_server(factory, sock=sock, backlog=backlog)
    return Server(server, connections)
