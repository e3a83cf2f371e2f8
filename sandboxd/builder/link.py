"""An environment's link to the router: its own end, and when the kernel begins to send on it.

Room: root, the router. May: ioctl, netlink. Environments without a permission have loopback only and never come here.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from ipaddress import IPv4Address

from sandboxd.builder import linux, netlink

LINK = "eth0"
GATEWAY = IPv4Address("169.254.1.1")  # of every link, on the router's end; routes are /32, so no two meet

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_PATIENCE_SECONDS = 0.5  # less than what a lost packet costs
_ONE = IPv4Address("255.255.255.255")
_IFF_UP, _RTF_UP, _RTF_GATEWAY, _RTF_HOST = 0x1, 0x1, 0x2, 0x4


def configure_here(address: IPv4Address) -> None:
    """Give the link of the namespace that the caller stands in its address and a default route by the router."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        name = LINK.encode()
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, _sockaddr(address)))
        fcntl.ioctl(control, _SIOCSIFNETMASK, struct.pack("16s16s8x", name, _sockaddr(_ONE)))
        request = struct.pack("16sh22x", name, 0)
        flags = struct.unpack_from("16xh", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name, flags | _IFF_UP))
        _add_route(control, GATEWAY, None)
        _add_route(control, IPv4Address(0), GATEWAY)


def wait_until_it_sends(asking: netlink.Socket, index: int) -> None:
    """Return when the kernel sends on a link whose other end has just come up, or after a while.

    It hears of that in a moment of its own (linkwatch), and drops until then: the answer to a first connection, which
    is asked for again only a second later. Kernels from 6.8 on hear of it when they are asked.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while not asking.sends(index) and time.monotonic() < until:
        time.sleep(0.0005)


def _sockaddr(address: IPv4Address) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, address.packed)


def _add_route(control: socket.socket, destination: IPv4Address, gateway: IPv4Address | None) -> None:
    """A host route on the link, or the default route by a gateway."""
    flags = _RTF_UP | (_RTF_GATEWAY if gateway else _RTF_HOST)
    mask = IPv4Address(0) if gateway else _ONE
    linux.add_route(
        control.fileno(), LINK, _sockaddr(destination), _sockaddr(gateway or IPv4Address(0)), _sockaddr(mask), flags
    )
