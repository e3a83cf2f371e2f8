"""One connection.

Room: service. May: parse and frame.

One class of some length because it is one state machine: parser callbacks, transport callbacks and answers of a
connection share its state, and reading them apart would not be easier.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from http import HTTPStatus
from typing import Any

import httptools

from sandboxd.http.values import (
    Admission,
    Budget,
    Chunks,
    CutShort,
    Handler,
    HttpLimits,
    Oversized,
    Refusal,
    Request,
    Response,
    Sink,
    Streaming,
    plain_refusal,
)

log = logging.getLogger(__name__)

_SMALL = 4096  # pieces of a body below this are joined at once: an object of its own each would cost 30 times its size
_BIG_READ = 32 * 1024  # who sends faster than it is read would otherwise be read without end: others get a turn first
_MAX_PIPELINED = 32  # requests in one read; no client of AWS's sends a second before the first is answered
_UNREAD = 64 * 1024  # bytes of answers that a client may leave unread while it asks for more
_FIELD_COST = 128  # bytes that a field counts beyond its own: two strings and their place in a dictionary take as much
_EARLY = 64 * 1024  # a body above this is judged by its head; a smaller one costs less than a new connection
_STREAMED_CHUNK = 4  # bytes that a chunk has on average at least where it is sent on as it comes: a token is no more
_MAX_HEADER_PIECES = 1024  # the parser copies a header's beginning with every further piece of it
_LINGER_SECONDS = 5.0  # how long a refused peer has to finish what it sends and read the answer

# https://www.rfc-editor.org/rfc/rfc9113#section-8.2.3: a comma may be a part of a cookie
_JOINTS = {"cookie": "; "}
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class HttpProtocol(asyncio.Protocol):
    """One connection. Requests are handled one after another, in order; reading pauses while one is handled."""

    __slots__ = (
        "_admission", "_body", "_budget", "_buffered", "_chunks", "_closing", "_connections", "_deadline",
        "_discarded", "_full", "_handler", "_header_begun", "_header_bytes", "_header_charged", "_header_pieces",
        "_header_unparsed", "_headers", "_idle", "_in_header", "_limits", "_loop", "_messages", "_most", "_oversized",
        "_parser", "_pending", "_refusal", "_refused", "_sink", "_size", "_streaming", "_target", "_task", "_timer",
        "_transport", "_writable",
    )  # fmt: skip

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits,
        budget: Budget,
        connections: set[HttpProtocol],
        refusal: Refusal = plain_refusal,
        oversized: Oversized | None = None,
        admission: Admission | None = None,
        streaming: Streaming | None = None,
    ) -> None:
        self._streaming = streaming
        self._sink: Sink | None = None  # takes the body that is coming
        self._full = False  # it takes no more at the moment
        self._writable: asyncio.Future[None] | None = None  # while a peer does not read
        self._handler, self._limits, self._budget, self._refusal = handler, limits, budget, refusal
        self._oversized, self._admission, self._connections = oversized, admission, connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before any other callback
        self._pending: deque[tuple[Request, bool, int]] = deque()
        self._task: asyncio.Future[Any] | None = None  # makes the answer, or sends one that is still being made
        self._buffered = self._discarded = 0
        self._closing = self._refused = self._in_header = self._header_begun = False
        self._idle = True
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = self._header_unparsed = self._header_pieces = self._header_charged = 0
        self._size = self._chunks = 0
        self._most = self._limits.body
        self._body: list[bytes | bytearray] = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclass of asyncio.Transport
        self._deadline = self._loop.time() + self._limits.request_seconds
        self._timer = self._loop.call_at(self._deadline, self._on_timer)
        if self._limits.connections and len(self._connections) >= self._limits.connections:
            self._refused = True
            self._transport.abort()
            return
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connections.discard(self)
        self._budget.give_back(self._buffered)
        self._buffered = 0
        self._pending.clear()
        self._forget_parser()
        self._abort_sink()
        if self._task is not None:
            self._task.cancel()

    def _abort_sink(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.abort()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        assert self._writable is not None
        if not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._discarded += len(data)
            if self._discarded > self._limits.discard:
                self._transport.abort()
            return
        if self._idle:
            self._idle = False
            self._deadline = self._loop.time() + self._limits.request_seconds
        self._header_begun, self._messages = False, 0
        if len(data) >= _BIG_READ:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            assert self._refused
        except httptools.HttpParserCallbackError as error:
            if not self._refused:
                raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            self._refuse(400, f"not HTTP/1.1: {error}")
        if self._in_header and not self._refused:
            self._count_unparsed(len(data))
        if self._refused:
            self._forget_parser()

    def _count_unparsed(self, count: int) -> None:
        """The parser says nothing of a field before it is whole: without this count a header could be endless."""
        self._header_pieces += not self._header_begun
        # Of a read that begins with another request it is not known how much is this one's.
        self._header_unparsed += min(count, self._limits.header) if self._messages else count
        if self._header_unparsed > self._limits.header or self._header_pieces > _MAX_HEADER_PIECES:
            self._refuse(431, f"headers are larger than {self._limits.header} bytes or in too many pieces")
        else:
            self._charge_header(self._header_bytes + self._header_unparsed)

    def _forget_parser(self) -> None:
        """It holds the header that it was in, whatever its size, and in a cycle with this object it would hold it until
        the collector comes, which counts objects and not bytes."""
        self._parser = None  # type: ignore[assignment]  # nothing is parsed any more

    def _read_on(self) -> None:
        if len(self._pending) < 2 and not self._full and not self._transport.is_closing():
            self._transport.resume_reading()

    def _on_room(self) -> None:
        self._full = False
        self._read_on()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def finish(self) -> None:
        """Close behind the next answer."""
        self._closing = True

    def close_idle(self) -> None:
        """Close unless a request has begun."""
        if self._idle:
            self._transport.close()

    def eof_received(self) -> bool:
        self._closing = True
        return self._limits.half_close and (self._task is not None or bool(self._pending))

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._in_header = self._header_begun = True

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + _FIELD_COST)
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        if key in self._headers:
            if key in self._limits.unique:
                self._refuse(400, f"header {key} is repeated")
            text = f"{self._headers[key]}{_JOINTS.get(key, ',')}{text}"
        self._headers[key] = text

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > self._limits.header:
            self._refuse(431, f"request line and headers are larger than {self._limits.header} bytes")

    def _charge_header(self, held: int) -> None:
        """Take what a header holds by now from the budget: its request may wait long for its end, or for its answer."""
        more = held - self._header_charged
        if more <= 0:
            return
        if self._budget.take(more):
            self._header_charged += more
            self._buffered += more
        else:
            self._refuse(503, "too many bytes of requests are waiting")

    def on_headers_complete(self) -> None:
        self._in_header = False
        if not self._refused:
            self._charge_header(self._header_bytes)
        if self._refused:
            return
        if self._parser.should_upgrade():  # the parser would go no further
            self._refuse(400, "upgrades are not spoken here")
            return
        length = self._headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limits.body:
            self._refuse_body(f"body of {length} bytes is larger than {self._limits.body}")
        elif (int(length) > _EARLY or "transfer-encoding" in self._headers) and (refused := self._judge_head()):
            self._refuse(refused.status, "", refused)
        elif self._streaming and "transfer-encoding" in self._headers and not self._pending:
            self._sink = self._streaming(self._head())
        elif self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _judge_head(self) -> Response | None:
        """The refusal of a request that is known by its head, before its body is read."""
        verdict = self._admission(self._head()) if self._admission is not None and not self._pending else None
        if isinstance(verdict, int):
            self._most = verdict
            return None
        return verdict

    def _head(self) -> Request:
        method, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
        return Request(method, target, self._headers, b"", self._transport)

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > 1024 + self._size // (64 if self._sink is None else _STREAMED_CHUNK):
            self._refuse(400, "chunks are too small")

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        self._size += len(body)
        if self._sink is not None:
            if not self._sink.write(body, self._on_room):
                self._full = True
                self._transport.pause_reading()
        elif self._size > self._most:
            self._refuse_body(f"body is larger than {self._most} bytes")
        elif not self._budget.take(len(body)):
            self._refuse(503, "too many bytes of requests are waiting")
        else:
            self._buffered += len(body)
            last = self._body[-1] if self._body else None
            if isinstance(last, bytearray) and len(last) < _SMALL:
                last += body
            else:
                self._body.append(body if len(body) >= _SMALL or last is None else bytearray(body))

    def on_message_complete(self) -> None:
        if self._refused or self._transport.is_closing():
            return
        self._messages += 1
        if self._messages > _MAX_PIPELINED or self._transport.get_write_buffer_size() > _UNREAD:
            self._refuse(400, "too many requests at once")
            return
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),  # type: ignore[arg-type]
            self._transport,
            self._sink,
        )
        self._sink = None
        self._pending.append((request, self._parser.should_keep_alive(), self._header_charged))
        self._reset()
        if self._task is None and len(self._pending) == 1:
            self._handle_next()
        else:
            self._transport.pause_reading()

    # answering

    def _handle_next(self) -> None:
        request = self._pending[0][0]
        try:
            answer = self._handler(request)
        except Exception:
            log.exception("%s %s failed", request.method, request.target)
            answer = self._refusal(500, "internal error")
        if isinstance(answer, Response):
            self._answer(answer)
            return
        self._task = answer if isinstance(answer, asyncio.Future) else self._loop.create_task(answer)
        self._task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Future[Response]) -> None:
        self._task = None
        if task.cancelled():
            self._transport.abort()
        elif error := task.exception():
            log.error("a handler failed", exc_info=error)
            self._answer(self._refusal(500, "internal error"))
        else:
            self._answer(task.result())

    def _answer(self, response: Response) -> None:
        if not self._pending or self._transport.is_closing():
            if response.chunks is not None:
                response.chunks.close()
            return
        request, keep_alive, header_charged = self._pending.popleft()
        held = len(request.body) + header_charged
        self._budget.give_back(held)
        self._buffered -= held
        keep_alive = keep_alive and not self._closing
        self._write(response, keep_alive, request.method)
        if response.chunks is None:
            self._go_on(keep_alive)
        else:
            self._task = self._loop.create_task(self._stream(response.chunks))
            self._task.add_done_callback(functools.partial(self._on_streamed, keep_alive))

    async def _stream(self, chunks: Chunks) -> None:
        """Send a body as fast as it is made and read."""
        try:
            async for chunk in chunks:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                if self._writable is not None:
                    async with asyncio.timeout(self._limits.idle_seconds):
                        await self._writable
            self._transport.write(b"0\r\n\r\n")
        except TimeoutError:  # nothing was read for so long
            self._transport.abort()
        finally:
            chunks.close()

    def _on_streamed(self, keep_alive: bool, task: asyncio.Future[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is None:
            if not self._transport.is_closing():
                self._go_on(keep_alive)
            return
        if not task.cancelled() and not isinstance(task.exception(), CutShort):
            log.error("an answer was cut short", exc_info=task.exception())
        self._transport.abort()

    def _go_on(self, keep_alive: bool) -> None:
        """An answer is on its way: to the next request."""
        if not keep_alive:
            self._transport.close()
        elif self._pending:
            self._loop.call_soon(self._handle_next)
        else:
            self._idle = True
            self._deadline = self._loop.time() + self._limits.idle_seconds
            self._transport.resume_reading()

    def _write(self, response: Response, keep_alive: bool, method: str) -> None:
        status, body = response.status, response.body
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in response.headers.items()]
        lines += [f"Set-Cookie: {cookie}\r\n" for cookie in response.cookies]
        if response.chunks is not None:
            lines.append("Transfer-Encoding: chunked\r\n")
        elif status != 204:
            lines.append(f"Content-Length: {len(body)}\r\n")
        lines.append("\r\n" if keep_alive else "Connection: close\r\n\r\n")
        head = "".join(lines).encode("latin-1", "replace")
        if method == "HEAD":  # a body would be taken for the next answer
            self._transport.write(head)
        elif len(body) <= 65_536:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def _refuse_body(self, reason: str) -> None:
        answer = None
        if self._oversized is not None and not self._pending:
            answer = self._oversized(self._head())
        self._refuse(413, reason, answer)

    def _refuse(self, status: int, reason: str, answer: Response | None = None) -> None:
        if self._refused:
            return
        self._refused = True
        self._abort_sink()
        if self._pending:  # an answer now would be taken for that of the request before
            self._transport.abort()
        elif not self._transport.is_closing():
            self._budget.give_back(self._buffered)
            self._buffered, self._body = 0, []
            method = self._parser.get_method().decode("latin-1")
            self._write(answer or self._refusal(status, reason), keep_alive=False, method=method)
            # Closing while bytes lie unread makes the kernel send a reset, which can overtake the answer.
            self._timer.cancel()
            self._timer = self._loop.call_later(_LINGER_SECONDS, self._transport.close)
            self._transport.write_eof()

    def _on_timer(self) -> None:
        now = self._loop.time()
        when = now + self._limits.idle_seconds
        if self._task is None and not self._pending and self._sink is None:  # whose end is its reader's to decide
            if now >= self._deadline:
                self._transport.abort()
                return
            # A deadline can come nearer (idle, then a request): look again no later than a request may take.
            when = min(self._deadline, now + self._limits.request_seconds)
        self._timer = self._loop.call_at(when, self._on_timer)
