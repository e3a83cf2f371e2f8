"""A listening door and its connections.

Room: service. May: accept.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import Any

from sandboxd.http.protocol import HttpProtocol
from sandboxd.http.values import Admission, Budget, Handler, HttpLimits, Oversized, Refusal, Streaming, plain_refusal


@dataclass(slots=True)
class Server:
    """A listening door and its connections."""

    server: asyncio.Server
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
) -> Server:
    """Serve a listening socket (TCP or unix) that is already bound, and own it from now on.

    `oversized` answers a request whose body breaks the limit, from its head alone, before the rest is dropped;
    `admission` refuses, by its head alone, a request whose body is large or of unknown length, where it can, or says
    the most bytes that it may have; of a body of unknown length, `streaming` may name a sink that takes it as it comes,
    whatever its size.
    """
    connections: set[HttpProtocol] = set()
    factory = functools.partial(
        HttpProtocol, handler, limits, budget, connections, refusal, oversized, admission, streaming
    )
    server = await asyncio.get_running_loop().create_server(factory, sock=sock, backlog=backlog)
    return Server(server, connections)
