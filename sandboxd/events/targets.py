"""Where records go that are no function's: files in a spool directory, HTTP endpoints, queues and topics.

Room: service. May: write below `service_dir/spool`, connect to endpoints that the configuration names.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from sandboxd.events.records import MESSAGE_BYTES, read_dead_letter
from sandboxd.model.destination import Destination, Spool
from sandboxd.model.endpoint import Endpoint
from sandboxd.model.event import Event
from sandboxd.services import Neighbours
from sandboxd.services.signed import ServiceError

# Of services that will not take this message at any time.
_HOPELESS = frozenset(("InvalidMessageContents", "InvalidParameterValue", "InvalidParameter", "UnsupportedOperation"))
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Undeliverable(OSError):
    """The target will never take this record."""


class Targets:
    """The destinations that the configuration names, by ARN, and the queues and topics of its services' endpoint.

    `floor`: bytes that stay free on the disk.
    """

    def __init__(
        self, destinations: Mapping[str, Destination], spool: Path, floor: int, neighbours: Neighbours
    ) -> None:
        self._destinations, self._floor, self._neighbours = destinations, floor, neighbours
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
                await self._post(endpoint, event)
            case None:
                try:
                    await self._send(event)
                except ServiceError as error:
                    kind = Undeliverable if error.code in _HOPELESS else OSError
                    raise kind(errno.EPROTO, f"the endpoint says {error}") from None

    def close(self) -> None:
        """Give back the directories' descriptors."""
        for directory in self._directories.values():
            os.close(directory)

    async def _post(self, endpoint: Endpoint, event: Event) -> None:
        """POST a record; any answer but 2xx is an OSError, and so is none."""
        headers = {"Content-Type": "application/json", "X-Sandboxd-Record-Id": event.request_id}
        async with self._neighbours.web.ask(endpoint, "POST", endpoint.path, headers, event.payload) as answer:
            if not 200 <= answer.status < 300:
                raise OSError(errno.EPROTO, f"the endpoint answered {answer.status}")

    async def _send(self, event: Event) -> None:
        """Hand a record to a queue or a topic: a dead letter as the event and attributes of the message."""
        service, sqs, sns = event.target.split(":")[2], self._neighbours.sqs, self._neighbours.sns
        body, attributes = read_dead_letter(event.payload) or (event.payload.decode(), {})
        if len(body.encode()) + _size(attributes) > MESSAGE_BYTES.get(service, math.inf):
            raise Undeliverable(errno.EMSGSIZE, "the record is larger than its target takes")
        if service == "sqs" and sqs is not None:
            await sqs.send(event.target, body, attributes)
        elif service == "sns" and sns is not None:
            await sns.publish(event.target, body, attributes)
        else:
            raise OSError(errno.ENOENT, "the configuration does not name this destination any more")

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


def _size(attributes: Mapping[str, Mapping[str, str]]) -> int:
    """What attributes count for in the size of a message."""
    texts = (text for name, value in attributes.items() for text in (name, *value.values()))
    return sum(len(text.encode()) for text in texts)
