"""Spool files and HTTP endpoints: a record is there whole or it is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandboxd.config import Config
from sandboxd.events.targets import Targets
from sandboxd.model.destination import Destination, Spool
from sandboxd.model.endpoint import Endpoint
from sandboxd.model.event import Event
from sandboxd.services import Neighbours
from tests.events.world import QUEUE

EVENT = Event(QUEUE, 0.0, 0.0, "00000000-0000-4000-8000-000000000000", b'{"a": 1}')


NOBODY = Neighbours(Config())


def deliver(destination: Destination, spool: Path, floor: int = 0, times: int = 1) -> None:
    async def main() -> None:
        targets = Targets({QUEUE: destination}, spool, floor, NOBODY)
        try:
            for _ in range(times):
                await targets.deliver(EVENT)
        finally:
            targets.close()

    asyncio.run(main())


def test_a_file_of_its_own_and_only_one(tmp_path: Path) -> None:
    deliver(Spool("dead"), tmp_path, times=2)
    (file,) = (tmp_path / "dead").iterdir()
    assert file.name == f"{EVENT.request_id}.json" and file.read_bytes() == EVENT.payload
    assert (file.stat().st_mode & 0o777, (tmp_path / "dead").stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    with pytest.raises(OSError, match="the spool's disk is full"):
        deliver(Spool("dead"), tmp_path, floor=2 * disk.f_blocks * disk.f_frsize)
    assert list((tmp_path / "dead").iterdir()) == []


def test_a_directory_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dead").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        deliver(Spool("dead"), tmp_path)


def test_what_the_configuration_no_longer_names(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await Targets({}, tmp_path, 0, NOBODY).deliver(EVENT)

    asyncio.run(main())


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def post(serve: Serve, tmp_path: Path) -> None:
    async def main() -> None:
        served = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await serve(reader, writer)
            writer.close()
            served.set()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        targets = Targets({QUEUE: Endpoint("127.0.0.1", port, "/in?x=1")}, tmp_path, 0, NOBODY)
        try:
            await targets.deliver(EVENT)
        finally:
            await served.wait()
            server.close()
            await server.wait_closed()

    asyncio.run(main())


def answering(answer: bytes, requests: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len(EVENT.payload))
        if requests is not None:
            requests.extend((head, body))
        writer.write(answer)

    return serve


def test_posted(tmp_path: Path) -> None:
    seen: list[bytes] = []
    post(answering(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", seen), tmp_path)
    head, body = seen
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /in?x=1 HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:-2])
    assert headers["Content-Length"] == str(len(body)) and headers["Content-Type"] == "application/json"
    assert headers["X-Sandboxd-Record-Id"] == EVENT.request_id
    assert json.loads(body) == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://169.254.169.254/\r\n\r\n", "answered 301"),
        (b"SSH-2.0-OpenSSH\r\n", "is not HTTP"),
        (b"", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "no HTTP answer"),
    ],
)
def test_anything_but_success_is_an_error(tmp_path: Path, answer: bytes, reason: str) -> None:
    with pytest.raises(OSError, match=reason):
        post(answering(answer), tmp_path)


def test_an_endpoint_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NOBODY.web, "seconds", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(OSError):
        post(silent, tmp_path)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError):
        deliver(Endpoint("127.0.0.1", 1, "/"), tmp_path)
