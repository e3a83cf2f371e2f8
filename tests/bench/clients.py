"""Clients that cost little: requests written, and signed, before their time begins; answers split by hand.

A client takes part in what it measures, because it has the same processors. One process with uvloop serves all clients
of a load, and the peers are measured by the same code.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.bench.figures import busy_ms
from tests.support.daemon import FUNCTIONS, Daemon

BODY = b'{"name": "bench"}'
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SECONDS = 120


@dataclass(frozen=True)
class Door:
    """Where requests go: a unix socket, which takes them unsigned, or a port and the key that they are signed with."""

    address: Path | int
    key: Credentials | None = None
    path: str = FUNCTIONS + "/{}/invocations"

    def request(self, name: str) -> bytes:
        """One whole request for a function."""
        host = "localhost" if isinstance(self.address, Path) else f"127.0.0.1:{self.address}"
        path = self.path.format(name)
        request = AWSRequest("POST", f"http://{host}{path}", data=BODY)
        if self.key:
            SigV4Auth(self.key, "lambda", "us-east-1").add_auth(request)
        fields = {"Host": host, "Content-Length": str(len(BODY)), **dict(request.headers)}
        head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
        return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + BODY

    def connect(self) -> socket.socket:
        """A connection, made ahead of the request."""
        if isinstance(self.address, Path):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_SECONDS)
            connection.connect(str(self.address))
            return connection
        connection = socket.create_connection(("127.0.0.1", self.address), _SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def signed(daemon: Daemon) -> Door:
    """The endpoint, as boto3 uses it."""
    return Door(daemon.port, Credentials(daemon.key["AccessKeyId"], daemon.key["SecretAccessKey"]))


def unsigned(daemon: Daemon) -> Door:
    """The unix socket, as the command line uses it."""
    return Door(daemon.socket)


def whole(data: bytes) -> bytes | None:
    """The body of an answer, if all of it is there. Raises RuntimeError for one that is no success."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    length = _LENGTH.search(head)
    if length is None or len(body) < int(length[1]):
        return None
    if not head.startswith(b"HTTP/1.1 200 ") or (b'"hello"' not in body and body != BODY):
        raise RuntimeError(f"{head.decode()} {body.decode()}")
    return body


class Caller:
    """One kept-alive connection that is asked one thing at a time."""

    def __init__(self, door: Door) -> None:
        self._door, self._socket = door, door.connect()

    def time_of(self, name: str, count: int) -> float:
        """Milliseconds from a request's first byte to its answer's last; the environment's `count`th invocation."""
        request, data, body = self._door.request(name), b"", None
        began = time.perf_counter_ns()
        self._socket.sendall(request)
        while body is None:
            more = self._socket.recv(65_536)
            if not more:
                raise RuntimeError(f"{name}: the connection was closed")
            data += more
            body = whole(data)
        took = (time.perf_counter_ns() - began) / 1e6
        if json.loads(body) != {"hello": "bench", "count": count}:
            raise RuntimeError(f"{name}: {body!r}, not the invocation number {count}")
        return took

    def close(self) -> None:
        self._socket.close()


@dataclass
class Load:
    """What came of many clients: milliseconds of each answer, the answers, seconds and CPU milliseconds of all."""

    times: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    seconds: float = 0
    cpu_ms: float = 0


class _Client(asyncio.Protocol):
    """Sends its requests one after the other, and again from the first while `goes_on` says so."""

    def __init__(self, requests: Sequence[bytes], goes_on: Callable[[], bool], load: Load) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._goes_on, self._load = requests, goes_on, load
        self._sent, self._began, self._data = 0, 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def send(self) -> None:
        """The next request."""
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        self._began = time.perf_counter_ns()
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            body = whole(self._data)
        except RuntimeError as error:
            self.connection_lost(error)
            return
        if body is None:
            return
        self._data = b""
        self._load.times.append((time.perf_counter_ns() - self._began) / 1e6)
        self._load.bodies.append(body)
        if self._sent < len(self._requests) or self._goes_on():
            self.send()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or RuntimeError("a connection was closed"))


def drive(door: Door, requests: Sequence[Sequence[bytes]], seconds: float = 0) -> Load:
    """A client for each list of requests, all at once: it asks each, and again for so long. Raises RuntimeError."""
    return uvloop.run(_drive(door, requests, seconds))


async def _drive(door: Door, requests: Sequence[Sequence[bytes]], seconds: float) -> Load:
    loop, load, end = asyncio.get_running_loop(), Load(), 0.0
    clients: list[_Client] = []
    for own in requests:
        make = partial(_Client, own, lambda: time.perf_counter() < end, load)
        connection = door.connect()
        connection.setblocking(False)
        if isinstance(door.address, Path):
            _, client = await loop.create_unix_connection(make, sock=connection)
        else:
            _, client = await loop.create_connection(make, sock=connection)
        clients.append(client)
    began, busy = time.perf_counter(), busy_ms()
    end = began + seconds
    for client in clients:
        client.send()
    try:
        await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + _SECONDS)
    except TimeoutError:
        raise RuntimeError(f"not all of {len(clients)} clients were answered in {_SECONDS} s") from None
    load.seconds, load.cpu_ms = time.perf_counter() - began, busy_ms() - busy
    for client in clients:
        client.close()
    return load
