"""Where records go that are no function's: files in a spool directory, and HTTP endpoints.

Room: service. May: write below `service_dir/spool`, connect to endpoints that the configuration names.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import httptools

from sandboxd.model.destination import Destination, Spool
from sandboxd.model.endpoint import Endpoint
from sandboxd.model.event import Event

_ANSWER_SECONDS = 30
_ANSWER_BYTES = 64 * 1024  # of an endpoint's answer that are looked at
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Targets:
    """The destinations that the configuration names, by ARN. `floor`: bytes that stay free on the disk."""

    def __init__(self, destinations: Mapping[str, Destination], spool: Path, floor: int) -> None:
        self._destinations, self._floor = destinations, floor
        self._directories: dict[str, int] = {}
        for destination in destinations.values():
            if isinstance(destination, Spool) and destination.name not in self._directories:
                (spool / destination.name).mkdir(mode=0o700, parents=True, exist_ok=True)
                self._directories[destination.name] = os.open(spool / destination.name, _DIRECTORY)

    async def deliver(self, event: Event) -> None:
        """Hand over a record: the target has it for good when this returns. Raises OSError."""
        match self._destinations.get(event.target):
            case Spool(name):
                await asyncio.to_thread(self._write, self._directories[name], f"{event.request_id}.json", event.payload)
            case Endpoint() as endpoint:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await _post(endpoint, event)
            case None:
                raise OSError(errno.ENOENT, "the configuration does not name this destination any more")

    def close(self) -> None:
        """Give back the directories' descriptors."""
        for directory in self._directories.values():
            os.close(directory)

    def _write(self, directory: int, name: str, record: bytes) -> None:
        """A file that is whole and durable or not there; written again, it is the same one."""
        disk = os.fstatvfs(directory)
        if disk.f_bavail * disk.f_frsize < self._floor:
            raise OSError(errno.ENOSPC, "the spool's disk is full")
        unfinished = f".{name}.{threading.get_ident()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(unfinished, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
            os.rename(unfinished, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=directory)
            raise
        os.fsync(directory)


class _Answer:
    """An answer's parser (httptools' callbacks)."""

    def __init__(self) -> None:
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.complete = True


async def _post(endpoint: Endpoint, event: Event) -> None:
    """POST a record; any answer but 2xx is an OSError, and so is none."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        lines = (
            f"POST {endpoint.path} HTTP/1.1",
            f"Host: {host}:{endpoint.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(event.payload)}",
            f"X-Sandboxd-Record-Id: {event.request_id}",
            "Connection: close",
        )
        writer.write("\r\n".join((*lines, "", "")).encode() + event.payload)
        await writer.drain()
        answer, read = _Answer(), 0
        while not answer.complete:
            data = await reader.read(_ANSWER_BYTES)
            read += len(data)
            if not data or read > _ANSWER_BYTES:
                raise OSError(errno.EPROTO, "the endpoint sent no HTTP answer")
            try:
                answer.parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise OSError(errno.EPROTO, f"the endpoint's answer is not HTTP: {error}") from None
        status = answer.parser.get_status_code()
        if not 200 <= status < 300:
            raise OSError(errno.EPROTO, f"the endpoint answered {status}")
    finally:
        writer.transport.abort()
