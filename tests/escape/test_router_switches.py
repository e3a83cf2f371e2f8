"""The switches of the network and the drops of IPv6 are missed when they are left out: taken away where a daemon runs,
tried by root inside an environment's network namespace, and put back.

The daemon runs in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from sandboxd.builder import egress
from tests.end_to_end.test_life_of_a_function import eventually
from tests.escape.test_router_rules import left_out
from tests.support import packages
from tests.support.network import OUTSIDE_IPV6, Namespace, NetworkedDaemon, World
from tests.support.packets import datagram, environment_of, overheard

STRICT, LOOSE, OFF = "1", "2", "0"
RP_FILTER = "ipv4/conf/{}/rp_filter"
IPV6_OFF = "ipv6/conf/{}/disable_ipv6"
needs_ipv6 = pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="a kernel without IPv6")
SPEAK_IPV6 = """
import socket
try:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"evil", ("ff02::1", 80, 0, socket.if_nametoindex("eth0")))
    result = True
except OSError:
    result = False
"""


@dataclass
class Place:
    """A daemon, the namespace of an attacker's environment, the router's, and the link between them there."""

    daemon: NetworkedDaemon
    inside: Namespace
    router: Namespace
    link: str
    address: str
    neighbour: str  # its address


@pytest.fixture(scope="module")
def place(machine: None) -> Iterator[Place]:
    """Who attacks may reach one network, its neighbour every public one."""
    with contextlib.closing(World()) as world, NetworkedDaemon(world) as daemon, contextlib.ExitStack() as stack:
        for name in ("attacker", "neighbour"):
            daemon.deploy(packages.load("evaluate"), name)
        neighbour, beside = environment_of(daemon, "neighbour")
        address, inside = environment_of(daemon, "attacker", "203.0.113.0/24", "203.0.113.5")
        for namespace in (beside, inside):
            stack.enter_context(contextlib.closing(namespace))
        (link,) = [link for link, one in daemon.inner_links().items() if one == str(address)]
        router = stack.enter_context(daemon.in_router())
        yield Place(daemon, inside, router, link, str(address), str(neighbour))


@contextlib.contextmanager
def switched(namespace: Namespace, name: str, meant: str, value: str) -> Iterator[None]:
    """With a switch otherwise than it is meant to be, and is."""
    assert namespace.switch(name) == meant, name
    namespace.switch(name, value)
    try:
        yield
    finally:
        namespace.switch(name, meant)


def send(namespace: Namespace, link: str, to: str, kind: int, data: bytes) -> None:
    """Put a packet on a link as root of its namespace; `to` is an Ethernet address."""
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as frames:
        frames.sendto(data, (link, kind, 0, 1, bytes.fromhex(to.replace(":", ""))))


def hardware(namespace: Namespace, link: str) -> str:
    """The Ethernet address of a link."""
    return namespace.run("ip", "-o", "link", "show", link).split("link/ether ")[1].split()[0]


# rp_filter


def arrives(place: Place, sender: str, destination: str) -> list[bytes]:
    """What gets out of a packet that says to be from somebody."""
    with overheard(place.daemon.world.outside, "world") as heard:
        send(place.inside, "eth0", hardware(place.router, place.link), 0x0800, datagram(sender, destination, 80))
    return [data for data in heard if b"evil" in data]


@pytest.mark.parametrize("name", ["all", "default"])
def test_the_router_believes_no_sender_but_the_links_own(place: Place, name: str) -> None:
    """A namespace begins with its host's values, of which systemd's is loose; the larger of link's and `all` counts."""
    assert not arrives(place, place.neighbour, "8.8.8.8")
    with switched(place.router, RP_FILTER.format(place.link if name == "default" else name), STRICT, LOOSE):
        assert arrives(place, place.neighbour, "8.8.8.8")


def test_the_host_believes_no_sender_but_the_router(place: Place) -> None:
    """It matters where the router's own address was not put in the sender's place."""
    with left_out(place.daemon, "-j SNAT"):
        assert not arrives(place, place.address, "203.0.113.5")
        with switched(place.daemon.world.server, RP_FILTER.format(place.daemon.uplink), STRICT, OFF):
            (data,) = arrives(place, place.address, "203.0.113.5")
    assert data[12:16] == socket.inet_aton(place.address)


# IPv6


@needs_ipv6
def test_the_link_inside_has_no_ipv6(place: Place) -> None:
    daemon, inside, router, link = place.daemon, place.inside, place.router, place.link
    with overheard(router, link) as heard:
        assert not daemon.call("attacker", {"code": SPEAK_IPV6})
    assert not heard
    inside.switch("ipv6/conf/eth0/accept_dad", "0")
    with switched(inside, IPV6_OFF.format("eth0"), "1", "0"), overheard(router, link) as heard:
        assert daemon.call("attacker", {"code": SPEAK_IPV6})
    assert any(b"evil" in data for data in heard)


def answers_ipv6(namespace: Namespace, link: str) -> bool:
    """Whether somebody at the other end of a link answers who asks all nodes for an echo."""
    with namespace.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        number = socket.if_nametoindex(link)
    with sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sock.settimeout(0.05)
        for _ in range(10):
            eventually(lambda: asked(sock, number))
            with contextlib.suppress(TimeoutError):
                while True:
                    if sock.recv(2048)[:1] == b"\x81":
                        return True
    return False


def asked(sock: socket.socket, link: int) -> bool:
    """An address is not there at once."""
    try:
        return sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 7, 7), ("ff02::1", 0, 0, link)) > 0
    except OSError as error:
        assert error.errno == errno.EADDRNOTAVAIL
        return False


def passes_ipv6(place: Place) -> bool:
    """Whether a packet comes through the router, which knows a way for it meanwhile."""
    daemon, router = place.daemon, place.router
    target = IPv6Address(OUTSIDE_IPV6)
    udp = struct.pack("!HHHH", 4444, 80, 12, 0) + b"evil"
    data = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + IPv6Address("2001:db8::77").packed + target.packed + udp
    router.run("ip", "-6", "route", "replace", f"{target}/128", "dev", "uplink")
    router.run("ip", "-6", "neigh", "replace", str(target), "lladdr", "02:00:00:00:00:01", "dev", "uplink")
    router.switch("ipv6/conf/all/forwarding", "1")
    with overheard(daemon.world.server, daemon.uplink) as heard:
        send(place.inside, "eth0", hardware(router, place.link), 0x86DD, data)
    router.switch("ipv6/conf/all/forwarding", "0")
    return any(b"evil" in data for data in heard)


DROPS = [line[1:].split()[0] for line in egress.NO_IPV6.splitlines() if line.startswith(":")]


@contextlib.contextmanager
def ipv6_held_by(place: Place, *locks: str) -> Iterator[None]:
    """With none of the router's locks on IPv6 but these, and an environment whose root has taken away that inside."""
    inside, router, link = place.inside, place.router, place.link
    said = router.run("ip6tables", "-S").splitlines()
    assert said == [f"-P {chain} DROP" for chain in DROPS]
    for namespace, name in ((inside, "eth0"), (router, link), (router, "uplink")):
        namespace.switch(f"ipv6/conf/{name}/accept_dad", "0")  # so that an address is there at once
    for chain in set(DROPS) - set(locks):
        router.run("ip6tables", "-P", chain, "ACCEPT")
    try:
        with (
            switched(inside, IPV6_OFF.format("eth0"), "1", "0"),
            switched(router, IPV6_OFF.format("all"), "1", "1" if "switch" in locks else "0"),
        ):
            assert router.switch(IPV6_OFF.format(link)) == router.switch(IPV6_OFF.format("all"))
            yield
    finally:
        for chain in DROPS:
            router.run("ip6tables", "-P", chain, "DROP")


@needs_ipv6
@pytest.mark.parametrize("lock", ["switch", "INPUT", "OUTPUT"])
def test_every_lock_alone_keeps_the_router_from_speaking_ipv6(place: Place, lock: str) -> None:
    with ipv6_held_by(place, lock):
        assert not answers_ipv6(place.inside, "eth0")
    with ipv6_held_by(place):
        assert answers_ipv6(place.inside, "eth0")


@needs_ipv6
def test_what_is_dropped_keeps_ipv6_from_passing(place: Place) -> None:
    """The switch does so too: while it is set, the router can have no route."""
    with ipv6_held_by(place, "FORWARD"):
        assert not passes_ipv6(place)
    with ipv6_held_by(place):
        assert passes_ipv6(place)


@needs_ipv6
def test_the_host_has_no_ipv6_on_its_link_to_the_router(place: Place) -> None:
    server, uplink = place.daemon.world.server, place.daemon.uplink
    server.switch(f"ipv6/conf/{uplink}/accept_dad", "0")
    with ipv6_held_by(place):
        assert not answers_ipv6(place.router, "uplink")
        with switched(server, IPV6_OFF.format(uplink), "1", "0"):
            assert answers_ipv6(place.router, "uplink")
