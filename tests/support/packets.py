"""Packets made by hand, sent by root in the network namespace of an environment, and heard on any link."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import psutil

from tests.support.network import Namespace, NetworkedDaemon

REACH = """
import socket, time
kept = socket.create_connection((event.get("address", "8.8.8.8"), 80), 2)
result = kept.recv(100).decode()
"""


def environment_of(
    daemon: NetworkedDaemon, function: str, network: str = "0.0.0.0/0", place: str = "8.8.8.8"
) -> tuple[IPv4Address, Namespace]:
    """The address and the network namespace of a new environment of a function, which may reach port 80 of a network,
    and has been at one of its addresses."""
    daemon.permit(function, f"{network}:80")
    before = daemon.inner_links() if daemon.router() else {}
    daemon.call(function, {"code": REACH, "address": place})
    (address,) = set(daemon.inner_links().values()) - set(before.values())
    return IPv4Address(address), namespace_with(daemon, address)


def namespace_with(daemon: NetworkedDaemon, address: str) -> Namespace:
    """The network namespace that has an address."""
    for process in daemon.room("builder").children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            namespace = Namespace.of(process.pid)
            if f" {address}/32 " in namespace.run("ip", "-o", "addr"):
                return namespace
            namespace.close()
    raise AssertionError(f"no process has {address}")


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, socket.inet_aton(source),
        socket.inet_aton(destination),
    )  # fmt: skip
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def datagram(source: str, destination: str, port: int) -> bytes:
    """A UDP packet that says "evil"."""
    return packet(source, destination, socket.IPPROTO_UDP, struct.pack("!HHHH", 4444, port, 12, 0) + b"evil")


def ping(source: str, destination: str) -> bytes:
    """An echo request."""
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    return packet(source, destination, socket.IPPROTO_ICMP, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


@contextlib.contextmanager
def overheard(namespace: Namespace, link: str) -> Iterator[list[bytes]]:
    """Every IP packet that a link of a namespace receives meanwhile."""
    with namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
    sock.bind((link, 3))
    sock.setblocking(False)
    seen: list[bytes] = []
    with sock:
        yield seen
        time.sleep(0.2)
        with contextlib.suppress(BlockingIOError):
            while True:
                data, about = sock.recvfrom(2048)
                if about[1] in (0x0800, 0x86DD) and about[2] != socket.PACKET_OUTGOING:
                    seen.append(data)
