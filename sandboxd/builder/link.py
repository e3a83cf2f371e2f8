"""An environment's own end of its link to the router.

Room: root, child side. May: ioctl. Environments without a permission have loopback only and never come here.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Address

from sandboxd.builder import linux

LINK = "eth0"
GATEWAY = IPv4Address("169.254.1.1")  # of every link, on the router's end; routes are /32, so no two meet

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_ONE = IPv4Address("255.255.255.255")
_IFF_UP, _RTF_UP, _RTF_GATEWAY, _RTF_HOST = 0x1, 0x1, 0x2, 0x4


def configure_link_in_child(address: IPv4Address) -> None:
    """Give the new namespace's link its address and a default route by the router."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        name = LINK.encode()
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, _sockaddr(address)))
        fcntl.ioctl(control, _SIOCSIFNETMASK, struct.pack("16s16s8x", name, _sockaddr(_ONE)))
        request = struct.pack("16sh22x", name, 0)
        flags = struct.unpack_from("16xh", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name, flags | _IFF_UP))
        _add_route(control, GATEWAY, None)
        _add_route(control, IPv4Address(0), GATEWAY)


def _sockaddr(address: IPv4Address) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, address.packed)


def _add_route(control: socket.socket, destination: IPv4Address, gateway: IPv4Address | None) -> None:
    """A host route on the link, or the default route by a gateway."""
    flags = _RTF_UP | (_RTF_GATEWAY if gateway else _RTF_HOST)
    mask = IPv4Address(0) if gateway else _ONE
    linux.add_route(
        control.fileno(), LINK, _sockaddr(destination), _sockaddr(gateway or IPv4Address(0)), _sockaddr(mask), flags
    )
