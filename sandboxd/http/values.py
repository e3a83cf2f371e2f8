"""What a door and its handlers pass one another.

Room: service. May: hold values, count bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol


class Sink(Protocol):
    """Who takes a request's body while it comes."""

    def write(self, data: bytes, go_on: Callable[[], None]) -> bool:
        """Take a piece; False: no more until `go_on` is called."""
        ...

    def abort(self) -> None:
        """The rest will not come."""
        ...


class CutShort(Exception):
    """What chunks raise where their maker knows that the body has no end: nothing to log."""


class Chunks(Protocol):
    """A body that is still being made."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces, none empty."""
        ...

    def close(self) -> None:
        """Nobody reads any further."""
        ...


@dataclass(slots=True)
class Request:
    """One parsed request. Header names are lower-case; the values of a repeated header are joined, as a signature joins
    them, unless it is one of `HttpLimits.unique`, where a repetition is refused. Trailers of a chunked body are among
    the headers."""

    method: str
    target: str  # path and query as sent
    headers: dict[str, str]
    body: bytes = b""
    peer: Any = None  # what the door knows of the connection: its transport's extra information
    sink: Sink | None = None  # has taken the body


@dataclass(slots=True)
class Response:
    """One answer; Content-Length is added, Date is not (AWS's clients do not read it). Each of `cookies` is a header of
    its own, Set-Cookie. With `chunks` the body is what they give, chunked; if they raise, the connection ends without
    its end."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Chunks | None = None
    cookies: tuple[str, ...] = ()


class Budget:
    """How many bytes of bodies may be buffered at one time: by one door, and behind it (`whole`) by the host."""

    def __init__(self, limit: int, whole: Budget | None = None) -> None:
        self.limit, self.used, self._whole = limit, 0, whole

    def take(self, count: int) -> bool:
        """Take bytes from the budget; False, and nothing taken, where they are not there."""
        if self.used + count > self.limit or (self._whole is not None and not self._whole.take(count)):
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Return bytes taken."""
        self.used -= count
        if self._whole is not None:
            self._whole.give_back(count)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one door accepts: sizes in bytes, times in seconds."""

    body: int
    header: int = 16 * 1024
    request_seconds: float = 60  # from the first byte of a request to its last
    idle_seconds: float = 300  # a kept-alive connection without a request
    unique: frozenset[str] = frozenset({"host", "content-length", "authorization"})
    connections: int = 0  # at one time; further ones are reset; 0: any number
    discard: int = 64 * 1024 * 1024  # of a refused body, read and dropped so that the peer comes to read the answer
    half_close: bool = True  # a peer that sent its last byte may still wait for its answer


Handler = Callable[[Request], Response | asyncio.Future[Response] | Coroutine[Any, Any, Response]]
Refusal = Callable[[int, str], Response]
Oversized = Callable[[Request], Response]
Admission = Callable[[Request], Response | int | None]
Streaming = Callable[[Request], Sink | None]


def plain_refusal(status: int, reason: str) -> Response:
    """The answer to what is not HTTP or breaks a limit, where a door has no words of its own."""
    return Response(status, reason.encode() + b"\n", {"Content-Type": "text/plain"})
