"""The closed table of messages between the service and the builder.

Room: both sides of the door. May: pack and unpack bytes. May not: any I/O.

A message is one SOCK_SEQPACKET datagram: one byte of kind, a fixed part, a bounded tail, and exactly as many
descriptors as the table says. Whatever does not fit is a ProtocolViolation: it ends the peer, not the host
(model: OpenSSH monitor.c). Requests carry ids chosen by the service; every answer carries the id of its request.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from ipaddress import IPv4Network
from typing import Any, ClassVar, Self, TypeVar

from sandboxd.errors import ProtocolViolation
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.function import EgressRule

MAX_MESSAGE = 1024
MAX_EGRESS = 64
MAX_DESCRIPTORS = 8

_EGRESS = struct.Struct("!4sBHH")


class _Message:
    """A message of fixed size: its fields, in order, in the struct's order."""

    __slots__ = ()
    KIND: ClassVar[int]
    DESCRIPTORS = range(1)  # how many may come with it; by default none
    FIXED: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        return self.FIXED.pack(*(getattr(self, field.name) for field in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        return cls(*cls._numbers(body))

    @classmethod
    def _numbers(cls, body: bytes) -> tuple[Any, ...]:
        if len(body) != cls.FIXED.size:
            raise ProtocolViolation(f"{cls.__name__}: {len(body)} bytes instead of {cls.FIXED.size}")
        return cls.FIXED.unpack(body)


class UnpackStatus(IntEnum):
    """How unpacking a code package ended; every refusal has a number of its own."""

    OK = 0
    NOT_A_ZIP = 1
    ABSOLUTE_NAME = 2
    PARENT_NAME = 3
    LINK = 4
    SPECIAL_FILE = 5
    TOO_MANY_ENTRIES = 6
    TOO_LARGE = 7
    DUPLICATE_NAME = 8
    BAD_NAME = 9
    CORRUPT = 10
    DISK_FULL = 11
    FAILED = 12


@dataclass(frozen=True, slots=True)
class Bind(_Message):
    """Make an environment. Descriptors: the sealed memfd of its process (see `environment.guest_environ`)."""

    KIND = 1
    DESCRIPTORS = range(1, 2)
    FIXED = struct.Struct("!I32s32sIIIIBBB")
    spec: EnvironmentSpec

    def pack(self) -> bytes:
        s = self.spec
        head = self.FIXED.pack(
            s.environment_id, s.image_digest, s.code_digest, s.memory_mb, s.tmp_mb, s.pids, s.open_files,
            s.invoke_door, s.at_exec, len(s.egress),
        )  # fmt: skip
        return head + b"".join(
            _EGRESS.pack(r.network.network_address.packed, r.network.prefixlen, r.port_first, r.port_last)
            for r in s.egress
        )

    @classmethod
    def unpack(cls, body: bytes) -> Bind:
        if len(body) < cls.FIXED.size:
            raise ProtocolViolation("bind: too short")
        *numbers, door, at_exec, count = cls.FIXED.unpack_from(body)
        environment_id, image, code, memory_mb, tmp_mb, pids, files = numbers
        tail = body[cls.FIXED.size :]
        if count > MAX_EGRESS or len(tail) != count * _EGRESS.size or door > 1 or at_exec > 1:
            raise ProtocolViolation("bind: egress count or flag out of bounds")
        if not (environment_id and 16 <= memory_mb <= 1 << 20 and 1 <= tmp_mb <= 10_240):
            raise ProtocolViolation("bind: environment id, memory or /tmp out of bounds")
        if not (16 <= pids <= 32_768 and 64 <= files <= 65_536):
            raise ProtocolViolation("bind: pids or open files out of bounds")
        rules = []
        for address, prefix, first, last in _EGRESS.iter_unpack(tail):
            try:
                network = IPv4Network((address, prefix))
            except ValueError as error:
                raise ProtocolViolation(f"bind: {error}") from error
            if not 0 < first <= last:
                raise ProtocolViolation("bind: port range out of order")
            rules.append(EgressRule(network, first, last))
        return cls(
            EnvironmentSpec(
                environment_id, image, code, memory_mb, tmp_mb, pids, files, bool(door), bool(at_exec), tuple(rules)
            )
        )


@dataclass(frozen=True, slots=True)
class Bound(_Message):
    """The environment runs. Descriptors, in this order: `BOUND_DESCRIPTORS`, then the invoke door where asked for."""

    KIND = 2
    DESCRIPTORS = range(5, 7)
    FIXED = struct.Struct("!I")
    environment_id: int


BOUND_DESCRIPTORS = ("runtime_api", "log", "freeze", "frozen_events", "memory_stat")


@dataclass(frozen=True, slots=True)
class BindFailed(_Message):
    """The environment could not be made, and what was half-built is gone. `step` names the step, `errno` the reason."""

    KIND = 3
    FIXED = struct.Struct("!Ii32s")
    environment_id: int
    errno: int
    step: str

    def pack(self) -> bytes:
        return self.FIXED.pack(self.environment_id, self.errno, self.step.encode("ascii")[:32])

    @classmethod
    def unpack(cls, body: bytes) -> BindFailed:
        environment_id, errno, step = cls._numbers(body)
        return cls(environment_id, errno, step.rstrip(b"\0").decode("ascii", "replace"))


@dataclass(frozen=True, slots=True)
class Exited(_Message):
    """Unasked: an environment's runtime process ended. `status` is waitpid's, `out_of_memory` the cgroup's word."""

    KIND = 4
    FIXED = struct.Struct("!Ii?")
    environment_id: int
    status: int
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Destroy(_Message):
    """End an environment with everything in it."""

    KIND = 5
    FIXED = struct.Struct("!I")
    environment_id: int


@dataclass(frozen=True, slots=True)
class Destroyed(_Message):
    """Nothing of the environment is left."""

    KIND = 6
    FIXED = struct.Struct("!I")
    environment_id: int


@dataclass(frozen=True, slots=True)
class Unpack(_Message):
    """Unpack a code package under its digest. Descriptors: the zip, positioned anywhere, read-only or sealed."""

    KIND = 7
    DESCRIPTORS = range(1, 2)
    FIXED = struct.Struct("!I32sQI")
    request_id: int
    code_digest: bytes
    max_bytes: int
    max_entries: int

    @classmethod
    def unpack(cls, body: bytes) -> Unpack:
        message = cls(*cls._numbers(body))
        if not (message.max_bytes <= 1 << 34 and message.max_entries <= 1 << 20):
            raise ProtocolViolation("unpack: limits out of bounds")
        return message


@dataclass(frozen=True, slots=True)
class Unpacked(_Message):
    """The package is in place and sealed (status OK), or refused and gone. `size` in bytes, unpacked;
    0 for a package that was there already."""

    KIND = 8
    FIXED = struct.Struct("!IBQ")
    request_id: int
    status: UnpackStatus
    size: int

    @classmethod
    def unpack(cls, body: bytes) -> Unpacked:
        request_id, status, size = cls._numbers(body)
        return cls(request_id, UnpackStatus(status), size)


@dataclass(frozen=True, slots=True)
class RemoveCode(_Message):
    """No function version needs this package any more."""

    KIND = 9
    FIXED = struct.Struct("!32s")
    code_digest: bytes


@dataclass(frozen=True, slots=True)
class InitEnded(_Message):
    """The init phase is over: CPU in proportion to memory from now on (while it lasts, a whole CPU, as on AWS)."""

    KIND = 11
    FIXED = struct.Struct("!I")
    environment_id: int


@dataclass(frozen=True, slots=True)
class WarmImage(_Message):
    """Functions use this image: boot a few runtimes of it ahead. Descriptors: the sealed memfd of their environ."""

    KIND = 12
    DESCRIPTORS = range(1, 2)
    FIXED = struct.Struct("!32s")
    image_digest: bytes


@dataclass(frozen=True, slots=True)
class Ready(_Message):
    """The builder takes requests; said once, first."""

    KIND = 10
    FIXED = struct.Struct("!")


Request = Bind | InitEnded | Destroy | Unpack | RemoveCode | WarmImage
Answer = Ready | Bound | BindFailed | Exited | Destroyed | Unpacked
Message = Request | Answer

REQUESTS: dict[int, type[Request]] = {m.KIND: m for m in (Bind, InitEnded, Destroy, Unpack, RemoveCode, WarmImage)}
ANSWERS: dict[int, type[Answer]] = {m.KIND: m for m in (Ready, Bound, BindFailed, Exited, Destroyed, Unpacked)}


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The datagram of a message."""
    return bytes((message.KIND,)) + message.pack()


def decode(table: Mapping[int, type[M]], datagram: bytes, descriptors: int) -> M:
    """The message of a datagram that came with so many descriptors; ProtocolViolation where the table knows none."""
    kind = table.get(datagram[0]) if datagram else None
    if kind is None:
        raise ProtocolViolation(f"message kind {datagram[:1].hex() or 'none'} is not in the table")
    if descriptors not in kind.DESCRIPTORS:
        raise ProtocolViolation(f"{kind.__name__}: {descriptors} descriptors")
    try:
        return kind.unpack(datagram[1:])  # type: ignore[return-value]
    except (ValueError, struct.error) as error:
        raise ProtocolViolation(f"{kind.__name__}: {error}") from error
