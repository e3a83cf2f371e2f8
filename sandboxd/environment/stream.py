"""One answer that is streamed: its bytes on their way from a runtime to the client that invoked it.

Room: service. May: hold a few pieces. May not: I/O.

Neither side is trusted to keep up or to stay: a runtime that is faster than its client is read no further until there
is room; what a client that went away would have read is dropped, and the function runs to its end, as at AWS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

_FULL = 64 * 1024  # bytes; the most that is held is this and one read of the runtime's connection
_PIECE = 64 * 1024


class Stream:
    """A pipe of bounded size, and of at most `limit` bytes in all: then it is `too_large`, and takes no more."""

    def __init__(self, limit: int) -> None:
        self._limit, self._buffer, self._total = limit, bytearray(), 0
        self._over = self._unread = self.too_large = False
        self.content_type = ""  # that the runtime gave it; none before it streams
        self._waiting: asyncio.Future[None] | None = None
        self._go_on: Callable[[], None] | None = None

    # from the runtime

    def write(self, data: bytes, go_on: Callable[[], None]) -> bool:
        """Take a piece; False: no more until `go_on` is called."""
        self._total += len(data)
        if self._total > self._limit:
            self.too_large = True
        if self.too_large or self._unread:
            return True
        self._buffer += data
        self._wake()
        if len(self._buffer) < _FULL:
            return True
        self._go_on = go_on
        return False

    def end(self) -> None:
        """There is no more."""
        self._over = True
        self._wake()

    # to the client

    async def begun(self) -> None:
        """Return when there is something to read, or there will be nothing."""
        while not (self._buffer or self._over):
            await self._wait()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What comes, until its end."""
        while True:
            await self.begun()
            if not self._buffer:
                return
            piece = bytes(self._buffer[:_PIECE])
            del self._buffer[:_PIECE]
            self._make_room()
            yield piece

    def close(self) -> None:
        """Nobody reads any more."""
        self._unread = True
        self._buffer.clear()
        self._make_room()

    def _make_room(self) -> None:
        if self._go_on is not None and len(self._buffer) < _FULL:
            go_on, self._go_on = self._go_on, None
            go_on()

    async def _wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
