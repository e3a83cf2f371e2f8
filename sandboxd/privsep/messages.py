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
from ipaddress import IPv4Address, IPv4Network
from typing import Any, ClassVar, Self, TypeVar

from sandboxd.errors import ProtocolViolation
from sandboxd.model.egress import MAX_RULES, EgressRule, check_bounds, is_closed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.layer import MAX_LAYERS

MAX_MESSAGE = 1024
MAX_DESCRIPTORS = 8

MAX_ADDRESSES = 12  # of one answer to a name: with any name, in 512 bytes
TTL_SECONDS = range(1, 3601)

# Network, ports, whether it is denied and whether it is one address of a network.
_EGRESS, _PORT, _ADDRESS = struct.Struct("!4sBHHBB"), struct.Struct("!H"), struct.Struct("!4s")
_DIGEST = struct.Struct("!32s")


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
    EMPTY = 13


@dataclass(frozen=True, slots=True)
class Bind(_Message):
    """Make an environment. Descriptors: the sealed memfd of its process (see `environment.guest_environ`)."""

    KIND = 1
    DESCRIPTORS = range(1, 2)
    FIXED = struct.Struct("!I32s32sIIIIBBBBB")
    spec: EnvironmentSpec

    def pack(self) -> bytes:
        s = self.spec
        head = self.FIXED.pack(
            s.environment_id, s.image_digest, s.code_digest, s.memory_mb, s.tmp_mb, s.pids, s.open_files,
            s.invoke_door, s.at_exec, len(s.layers), len(s.egress) + len(s.denied), len(s.host_ports),
        )  # fmt: skip
        rules = (
            _EGRESS.pack(r.network.network_address.packed, r.network.prefixlen, r.port_first, r.port_last, d, r.partial)
            for d, r in (*((False, rule) for rule in s.egress), *((True, rule) for rule in s.denied))
        )
        return head + b"".join((*s.layers, *rules, *map(_PORT.pack, s.host_ports)))

    @classmethod
    def unpack(cls, body: bytes) -> Bind:
        if len(body) < cls.FIXED.size:
            raise ProtocolViolation("bind: too short")
        *numbers, door, at_exec, layer_count, count, port_count = cls.FIXED.unpack_from(body)
        environment_id, image, code, memory_mb, tmp_mb, pids, files = numbers
        layers_end = cls.FIXED.size + layer_count * _DIGEST.size
        rules_end = layers_end + count * _EGRESS.size
        if len(body) != rules_end + port_count * _PORT.size or door > 1 or at_exec > 1:
            raise ProtocolViolation("bind: a count or flag out of bounds")
        layers = tuple(digest for (digest,) in _DIGEST.iter_unpack(body[cls.FIXED.size : layers_end]))
        if len(layers) > MAX_LAYERS or len(set(layers)) != len(layers):
            raise ProtocolViolation("bind: too many layers, or one named twice")
        if not (environment_id and 16 <= memory_mb <= 1 << 20 and 1 <= tmp_mb <= 10_240):
            raise ProtocolViolation("bind: environment id, memory or /tmp out of bounds")
        if not (16 <= pids <= 32_768 and 64 <= files <= 65_536):
            raise ProtocolViolation("bind: pids or open files out of bounds")
        rules: tuple[list[EgressRule], list[EgressRule]] = [], []
        for address, prefix, first, last, denied, partial in _EGRESS.iter_unpack(body[layers_end:rules_end]):
            try:
                network = IPv4Network((address, prefix))
            except ValueError as error:
                raise ProtocolViolation(f"bind: {error}") from error
            if not 0 < first <= last or denied > 1 or partial > 1 or partial > (prefix == 32):
                raise ProtocolViolation("bind: a rule out of order")
            rules[denied].append(EgressRule(network, first, last, bool(partial)))
        permitted, closed = rules
        ports = _ports(body[rules_end:])
        check_bounds(permitted, ports, closed)
        return cls(
            EnvironmentSpec(
                environment_id, image, code, memory_mb, tmp_mb, pids, files, bool(door), bool(at_exec),
                tuple(permitted), ports, layers, tuple(closed),
            )
        )  # fmt: skip


def _ports(body: bytes) -> tuple[int, ...]:
    ports = tuple(port for (port,) in _PORT.iter_unpack(body))
    if 0 in ports or len(set(ports)) != len(ports):
        raise ProtocolViolation("port 0, or one named twice")
    return ports


@dataclass(frozen=True, slots=True)
class Bound(_Message):
    """The environment runs. Descriptors, in this order: `BOUND_DESCRIPTORS`, then the invoke door where asked for,
    then the resolver's sockets, UDP and TCP, where hosts are permitted."""

    KIND = 2
    DESCRIPTORS = range(5, MAX_DESCRIPTORS + 1)
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
        return cls(environment_id, errno, step.rstrip(b"\0").decode("ascii"))


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
    """The package is in place and sealed (status OK), or refused and gone. `size` in bytes, unpacked; `files` with
    directories."""

    KIND = 8
    FIXED = struct.Struct("!IBQI")
    request_id: int
    status: UnpackStatus
    size: int = 0
    files: int = 0

    @classmethod
    def unpack(cls, body: bytes) -> Unpacked:
        request_id, status, size, files = cls._numbers(body)
        return cls(request_id, UnpackStatus(status), size, files)


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
    """Functions use this image: boot a few runtimes of it ahead. Descriptors: the sealed memfd of their environ.

    `memory_mb` is that of the functions that they can be given, where it is told a runtime as it boots; else 0.
    """

    KIND = 12
    DESCRIPTORS = range(1, 2)
    FIXED = struct.Struct("!32sI")
    image_digest: bytes
    memory_mb: int

    @classmethod
    def unpack(cls, body: bytes) -> WarmImage:
        image_digest, memory_mb = cls._numbers(body)
        if memory_mb and not 16 <= memory_mb <= 1 << 20:
            raise ProtocolViolation("warm image: memory out of bounds")
        return cls(image_digest, memory_mb)


@dataclass(frozen=True, slots=True)
class OpenAddresses(_Message):
    """A permitted name of an environment led to these addresses: open them, at these of its ports, for `ttl` seconds.

    None may lie in a closed range; the router checks its sets once more with every packet.
    """

    KIND = 13
    FIXED = struct.Struct("!IIIBB")
    request_id: int
    environment_id: int
    ttl: int
    addresses: tuple[IPv4Address, ...]
    ports: tuple[int, ...]

    def pack(self) -> bytes:
        head = (self.request_id, self.environment_id, self.ttl, len(self.addresses), len(self.ports))
        addresses = b"".join(address.packed for address in self.addresses)
        return self.FIXED.pack(*head) + addresses + b"".join(map(_PORT.pack, self.ports))

    @classmethod
    def unpack(cls, body: bytes) -> OpenAddresses:
        if len(body) < cls.FIXED.size:
            raise ProtocolViolation("open addresses: too short")
        request_id, environment_id, ttl, count, port_count = cls.FIXED.unpack_from(body)
        end = cls.FIXED.size + count * _ADDRESS.size
        if len(body) != end + port_count * _PORT.size or ttl not in TTL_SECONDS:
            raise ProtocolViolation("open addresses: counts or time out of bounds")
        if not (0 < count <= MAX_ADDRESSES and 0 < port_count <= MAX_RULES):
            raise ProtocolViolation("open addresses: none, or too many")
        addresses = tuple(IPv4Address(packed) for (packed,) in _ADDRESS.iter_unpack(body[cls.FIXED.size : end]))
        if any(map(is_closed, addresses)):
            raise ProtocolViolation("open addresses: one lies in a closed range")
        return cls(request_id, environment_id, ttl, addresses, _ports(body[end:]))


@dataclass(frozen=True, slots=True)
class AddressesOpened(_Message):
    """They are open (errno 0), or not all of them."""

    KIND = 14
    FIXED = struct.Struct("!Ii")
    request_id: int
    errno: int


@dataclass(frozen=True, slots=True)
class Ping(_Message):
    """Say that you are ready."""

    KIND = 15
    FIXED = struct.Struct("!")


@dataclass(frozen=True, slots=True)
class Ready(_Message):
    """The builder takes requests; said first, and whenever it is asked."""

    KIND = 10
    FIXED = struct.Struct("!")


Request = Bind | InitEnded | Destroy | Unpack | RemoveCode | WarmImage | Ping | OpenAddresses
Answer = Ready | Bound | BindFailed | Exited | Destroyed | Unpacked | AddressesOpened
Message = Request | Answer

REQUESTS: dict[int, type[Request]] = {
    m.KIND: m for m in (Bind, InitEnded, Destroy, Unpack, RemoveCode, WarmImage, Ping, OpenAddresses)
}
ANSWERS: dict[int, type[Answer]] = {
    m.KIND: m for m in (Ready, Bound, BindFailed, Exited, Destroyed, Unpacked, AddressesOpened)
}


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
