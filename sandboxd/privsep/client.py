"""The service's end of the door: ask the builder, await its answer.

Room: service. May: ask. May not: anything that an answer of the builder does not grant.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from sandboxd.errors import PackageRejected, ProtocolViolation, SandboxdError, StepFailed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.layer import Unzipped
from sandboxd.privsep import channel as door
from sandboxd.privsep.messages import (
    ANSWERS,
    AddressesOpened,
    Answer,
    Bind,
    BindFailed,
    Bound,
    Destroy,
    Destroyed,
    Exited,
    InitEnded,
    OpenAddresses,
    Ping,
    Ready,
    RemoveCode,
    Request,
    Unpack,
    Unpacked,
    UnpackStatus,
    WarmImage,
    decode,
    encode,
)


class BuilderGone(SandboxdError):
    """The builder ended: every environment is gone with it and the keeper starts both rooms again."""


class Client:
    """Asks the builder over its end of the channel. Single-threaded: use from one running event loop.

    `on_exited` hears of runtimes that ended; `on_gone` that the builder did.
    """

    def __init__(
        self, channel: socket.socket, *, on_exited: Callable[[Exited], None], on_gone: Callable[[str], None]
    ) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._on_exited, self._on_gone = on_exited, on_gone
        self._waiting: dict[tuple[str, int], asyncio.Future[list[int]]] = {}
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._request_ids = itertools.count(1)
        self._ready = self._loop.create_future()
        self._heard = self._loop.create_future()
        self._loop.add_reader(channel.fileno(), self._on_readable)

    async def ready(self) -> None:
        """Return once the builder takes requests."""
        await asyncio.shield(self._ready)

    async def answers(self) -> None:
        """Return when the builder has said anything from now on; it is asked to."""
        self._heard = self._loop.create_future()
        self._send(Ping())
        await self._heard

    async def bind(self, spec: EnvironmentSpec, process_environ: int) -> list[int]:
        """Have an environment made; its descriptors in the order of `messages.Bound`.

        Raises StepFailed where a step of the isolation could not be set up, BuilderGone where the builder ended.
        """
        future = self._expect("environment", spec.environment_id)
        self._send(Bind(spec), (process_environ,))
        return await future

    def warm_image(self, image_digest: bytes, memory_mb: int, environ: int) -> None:
        """Have runtimes of an image booted ahead, with this environ (see WarmImage); nothing comes back."""
        self._send(WarmImage(image_digest, memory_mb), (environ,))

    def init_ended(self, environment_id: int) -> None:
        """Have the function's own share of CPU set, now that its init phase is over; nothing comes back."""
        self._send(InitEnded(environment_id))

    async def destroy(self, environment_id: int) -> None:
        """Have an environment ended; returns when nothing of it is left."""
        future = self._expect("destroyed", environment_id)
        self._send(Destroy(environment_id))
        await future

    async def unpack(self, code_digest: bytes, package: int, *, max_bytes: int, max_entries: int) -> Unzipped:
        """Have a package unpacked; what it takes then.

        Raises PackageRejected with the reason's name.
        """
        request_id = next(self._request_ids)
        future = self._expect("unpacked", request_id)
        self._send(Unpack(request_id, code_digest, max_bytes, max_entries), (package,))
        return Unzipped(*await future)

    async def open_addresses(
        self, environment_id: int, addresses: Sequence[IPv4Address], ports: Sequence[int], ttl: int
    ) -> None:
        """Have addresses opened to an environment, at these of its ports, for so many seconds.

        Raises StepFailed where they are not: it has as many open as it may, or is gone.
        """
        request_id = next(self._request_ids)
        future = self._expect("opened", request_id)
        self._send(OpenAddresses(request_id, environment_id, ttl, tuple(addresses), tuple(ports)))
        await future

    def remove_code(self, code_digest: bytes) -> None:
        """Have a package removed that no version needs any more; nothing comes back."""
        self._send(RemoveCode(code_digest))

    def close(self) -> None:
        """Leave the door; the builder then ends every environment and itself."""
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()

    def _expect(self, kind: str, number: int) -> asyncio.Future[list[int]]:
        future: asyncio.Future[list[int]] = self._loop.create_future()
        self._waiting[kind, number] = future
        return future

    def _send(self, message: Request, descriptors: Sequence[int] = ()) -> None:
        # The queue of a SEQPACKET pair holds some 200 datagrams; a burst beyond that waits here, with descriptors
        # of its own, because the caller closes its own when it likes.
        if self._channel.fileno() < 0:  # this room is ending, and nobody will hear an answer
            return
        datagram = encode(message)
        if not self._outbox:
            try:
                door.send(self._channel, datagram, descriptors)
                return
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._on_writable)
            except ConnectionError as error:
                self._lose(str(error))
                return
        self._outbox.append((datagram, [socket.dup(d) for d in descriptors]))

    def _on_writable(self) -> None:
        while self._outbox:
            datagram, descriptors = self._outbox[0]
            try:
                door.send(self._channel, datagram, descriptors)
            except BlockingIOError:
                return
            except ConnectionError as error:
                self._lose(str(error))
                break
            self._outbox.popleft()
            door.close_all(descriptors)
        self._loop.remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        while True:
            try:
                datagram, descriptors = door.receive(self._channel)
            except BlockingIOError:
                return
            except (OSError, ProtocolViolation) as error:  # out of descriptors: an answer is lost, and all with it
                datagram, descriptors = b"", []
                reason = str(error)
            else:
                reason = "the builder closed its end"
            if not datagram:
                self._lose(reason)
                return
            if not self._heard.done():
                self._heard.set_result(None)
            self._take(decode(ANSWERS, datagram, len(descriptors)), descriptors)

    def _take(self, answer: Answer, descriptors: list[int]) -> None:
        match answer:
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(None)
            case Bound(environment_id):
                self._resolve("environment", environment_id, descriptors)
            case BindFailed(environment_id, errno, step):
                self._resolve("environment", environment_id, StepFailed(step, errno))
            case Destroyed(environment_id):
                self._resolve("destroyed", environment_id, [])
            case Unpacked(request_id, status, size, files):
                ok = status is UnpackStatus.OK
                self._resolve("unpacked", request_id, [size, files] if ok else PackageRejected(status.name))
            case AddressesOpened(request_id, errno):
                self._resolve("opened", request_id, StepFailed("open addresses", errno) if errno else [])
            case Exited():
                self._on_exited(answer)

    def _resolve(self, kind: str, number: int, value: list[int] | SandboxdError) -> None:
        future = self._waiting.pop((kind, number), None)
        if future is None or future.done():
            if kind == "environment" and isinstance(value, list):
                door.close_all(value)
        elif isinstance(value, SandboxdError):
            future.set_exception(value)
        else:
            future.set_result(value)

    def _lose(self, reason: str) -> None:
        self._loop.remove_reader(self._channel.fileno())
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(BuilderGone(reason))
        self._on_gone(reason)
