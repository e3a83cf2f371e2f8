"""A listening door and its connections.

Room: service. May: accept.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sandboxd.http.protocol import HttpProtocol
from sandboxd.http.values import Admission, Budget, Handler, HttpLimits, Oversized, Refusal, Streaming, plain_refusal

_BURST, _PER_SECOND = 100.0, 400.0  # connections that a paced door takes


class Listening(Protocol):
    """What takes connections until it is closed."""

    def close(self) -> None: ...


class _Paced:
    """Takes one connection in a turn of the loop, and so many in a second.

    libuv takes all that wait, and goes on for as long as more come (uv__server_io): whoever connects as fast as it can
    would have the loop for itself.
    """

    __slots__ = ("_beginning", "_credit", "_factory", "_loop", "_since", "_socket", "_timer")

    def __init__(self, sock: socket.socket, factory: Callable[[], HttpProtocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket, self._factory = sock, factory
        self._credit, self._since = _BURST, self._loop.time()
        self._beginning: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it went away meanwhile, or there are too many descriptors
            connection, _ = self._socket.accept()
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._factory, connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        now = self._loop.time()
        self._credit = min(_BURST, self._credit + (now - self._since) * _PER_SECOND) - 1
        self._since = now
        if self._credit < 1:
            self._loop.remove_reader(self._socket.fileno())
            self._timer = self._loop.call_later(4 / _PER_SECOND, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Take no further connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()


@dataclass(slots=True)
class Server:
    """A listening door and its connections."""

    server: Listening
    connections: set[HttpProtocol]

    def stop_listening(self) -> None:
        """Take no further connection; those that wait in the backlog stay there for whoever holds the socket next."""
        self.server.close()

    async def finish(self, last: float) -> None:
        """Answer each connection once more and close it, an idle one after `last` seconds; return when all are."""
        for connection in self.connections:
            connection.finish()
        await asyncio.sleep(last if self.connections else 0)
        while self.connections:
            for connection in list(self.connections):
                connection.close_idle()
            await asyncio.sleep(0.01)

    def abort(self) -> None:
        """End the door with every connection."""
        self.server.close()
        for connection in list(self.connections):
            connection.abort()


async def serve(
    sock: Any,
    handler: Handler,
    limits: HttpLimits,
    budget: Budget,
    refusal: Refusal = plain_refusal,
    backlog: int = 128,
    oversized: Oversized | None = None,
    admission: Admission | None = None,
    streaming: Streaming | None = None,
    paced: bool = False,
) -> Server:
    """Serve a listening socket (TCP or unix) that is already bound, and own it from now on.

    `oversized` answers a request whose body breaks the limit, from its head alone, before the rest is dropped;
    `admission` refuses, by its head alone, a request whose body is large or of unknown length, where it can, or says
    the most bytes that it may have; of a body of unknown length, `streaming` may name a sink that takes it as it comes,
    whatever its size. A `paced` door is one whose clients may be hostile and have a loop of others' to wait for.
    """
    connections: set[HttpProtocol] = set()
    factory = functools.partial(
        HttpProtocol, handler, limits, budget, connections, refusal, oversized, admission, streaming
    )
    server: Listening
    if paced:
        sock.listen(backlog)
        server = _Paced(sock, factory)
    else:
        server = await asyncio.get_running_loop().create_server(factory, sock=sock, backlog=backlog)
    return Server(server, connections)
