"""The router's requests on the path of a first invocation, as the kernel reads them: a link, and entries of sets.

Room: root. May: netlink, in the network namespace that a socket was made in. pyroute2, which has all others, takes
0.4 ms of processor time to encode one of these.

The numbers are those of <linux/netlink.h>, rtnetlink.h, if_link.h, veth.h and netfilter/ipset/ip_set.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from itertools import islice
from typing import Any

from pyroute2.ipset import PortRange

_HEADER = struct.Struct("=IHHII")  # length, type, flags, number, sender
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, which of them count
_ADDRESS = struct.Struct("=BBBBI")  # family, length of the prefix, flags, scope, link
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of two prefixes, tos, table, protocol, scope, type, flags
_SET = struct.Struct("=BBH")  # family, version, resource
_PORT, _NUMBER, _MARK, _INDEX = struct.Struct("!H"), struct.Struct("!I"), struct.Struct("!II"), struct.Struct("=I")

ROUTES, FILTERS = socket.NETLINK_ROUTE, 12  # families
_NLMSG_ERROR, _ACKNOWLEDGED, _NEW = 2, 0x5, 0x600  # a request that is answered; create, and fail where it is there
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 18, 20, 24
_IFLA_OPERSTATE, _IF_OPER_UP = 16, 6
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_NESTED, _IN_NET_ORDER = 0x8000, 0x4000
ADD, DELETE = 0x609, 0x60A  # NFNL_SUBSYS_IPSET << 8, with IPSET_CMD_ADD and _DEL
_AT_ONCE = 64  # requests in one message: as many answers wait in the socket's queue


class Socket(socket.socket):
    """Requests of one family, each answered before the next is made."""

    def __init__(self, family: int) -> None:
        super().__init__(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)

    def ask(self, requests: Iterable[bytes]) -> None:
        """Make requests in their order; raises OSError with the errno (or ipset's number) of the first that failed."""
        rest = iter(requests)
        while together := list(islice(rest, _AT_ONCE)):
            self.sendto(b"".join(together), (0, 0))
            errors = [error for _ in together for error in self._answers()]
            if failed := next((error for error in errors if error), 0):
                raise OSError(failed, os.strerror(failed))

    def sends(self, index: int) -> bool:
        """Whether the kernel sends on a link here; being up is not enough."""
        self.sendto(
            _HEADER.pack(_HEADER.size + _LINK.size, _RTM_GETLINK, 1, 1, 0) + _LINK.pack(0, 0, index, 0, 0), (0, 0)
        )
        answer = self.recv(1 << 16, socket.MSG_DONTWAIT)
        end, kind, _, _, _ = _HEADER.unpack_from(answer)
        place = _HEADER.size + _LINK.size
        while kind == _RTM_NEWLINK and place < end:  # else there is no such link
            length, which = _ATTRIBUTE.unpack_from(answer, place)
            if which == _IFLA_OPERSTATE:
                return answer[place + _ATTRIBUTE.size] == _IF_OPER_UP
            place += max(length + -length % 4, _ATTRIBUTE.size)
        return False

    def _answers(self) -> Iterator[int]:
        """What one request came to: the kernel has answered before the system call that made it returned."""
        answer = self.recv(4096, socket.MSG_DONTWAIT)
        length, kind, _, _, _ = _HEADER.unpack_from(answer)
        if kind != _NLMSG_ERROR or length > len(answer):
            raise OSError("netlink: something else than an answer")
        yield -_ERROR.unpack_from(answer, _HEADER.size)[0]


def _request(kind: int, flags: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _HEADER.pack(_HEADER.size + len(body), kind, _ACKNOWLEDGED | flags, 1, 0) + body


def _attribute(kind: int, content: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def new_pair(name: str, peer: str, namespace: int) -> bytes:
    """A link here that is up, whose other end is another namespace's and is not."""
    other = _LINK.pack(0, 0, 0, 0, 0) + _attribute(3, peer.encode() + b"\0") + _attribute(28, _INDEX.pack(namespace))
    about = _attribute(1, b"veth") + _attribute(2, _attribute(1, other))
    up = _LINK.pack(0, 0, 0, 1, 1)
    return _request(_RTM_NEWLINK, _NEW, up, _attribute(3, name.encode() + b"\0"), _attribute(18, about))


def new_address(index: int, address: IPv4Address) -> bytes:
    """An address of a link here, without a network."""
    packed = address.packed
    head = _ADDRESS.pack(socket.AF_INET, 32, 0, 0, index)
    return _request(_RTM_NEWADDR, _NEW, head, _attribute(1, packed), _attribute(2, packed))


def new_route(address: IPv4Address, index: int) -> bytes:
    """The way to one address, by a link here."""
    head = _ROUTE.pack(socket.AF_INET, 32, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, 0)
    return _request(_RTM_NEWROUTE, _NEW, head, _attribute(1, address.packed), _attribute(4, _INDEX.pack(index)))


def entry(command: int, which: str, value: str | tuple[Any, ...], *, timeout: int = 0, mark: int = 0) -> bytes:
    """An entry of a set, to be added (whether or not it is there) or deleted (likewise); `value` as egress.Entry."""
    address, *more = (value,) if isinstance(value, str) else value
    data = _place(1, address)
    if more:
        ports, (network, _, size) = more[0], more[1].partition("/")
        first, last = (ports.begin, ports.end) if isinstance(ports, PortRange) else (ports.port, ports.port)
        data += b"".join(_attribute(kind | _IN_NET_ORDER, _PORT.pack(port)) for kind, port in ((4, first), (5, last)))
        data += _attribute(7 | _IN_NET_ORDER, bytes([ports.protocol]))
        data += _attribute(21 | _IN_NET_ORDER, bytes([int(size)])) if size else b""
        data += _place(20, network)
    data += _attribute(6 | _IN_NET_ORDER, _NUMBER.pack(timeout)) if timeout else b""
    data += _attribute(27 | _IN_NET_ORDER, _MARK.pack(mark, 0xFFFFFFFF)) if mark else b""
    head = _SET.pack(socket.AF_INET, 0, 0) + _attribute(1, b"\6") + _attribute(2, which.encode() + b"\0")
    return _request(command, 0, head, _attribute(7 | _NESTED, data))


def _place(kind: int, address: str) -> bytes:
    return _attribute(kind | _NESTED, _attribute(1 | _IN_NET_ORDER, socket.inet_aton(address)))
