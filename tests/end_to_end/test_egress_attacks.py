"""Attacks on the network: by root inside an environment's network namespace, by floods, by a service taken over.

Every daemon here runs in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

import pytest

from sandboxd.builder.egress import FLOWS_PER_ENVIRONMENT, NEW_FLOWS_PER_SECOND
from sandboxd.privsep.client import Client
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages, patched
from tests.support.nameserver import NameServer
from tests.support.network import (
    BROADCASTS,
    HOST,
    HOST_WAN,
    METADATA,
    OUTSIDE_IPV6,
    PRIVATE,
    PUBLIC,
    NetworkedDaemon,
    World,
)  # fmt: skip
from tests.support.packets import REACH, datagram, environment_of, overheard, packet, ping

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; beyond net.core.rmem_max


@pytest.fixture(scope="module")
def daemon(world: World) -> Iterator[NetworkedDaemon]:
    with NetworkedDaemon(world) as made:
        for name in ("attacker", "neighbour"):
            made.deploy(packages.load("evaluate"), name, Timeout=30, MemorySize=1792)
            made.permit(name, "0.0.0.0/0:80")
        yield made
        assert "Traceback" not in made.log(), made.log()


def test_root_inside_the_namespace_gets_no_further_than_the_function(world: World, daemon: NetworkedDaemon) -> None:
    """With every capability over its network, which no function has: forged sources, other protocols, other links."""
    attacker, inside = environment_of(daemon, "attacker")
    neighbour, beside = environment_of(daemon, "neighbour")
    mine, forged = str(attacker), (str(neighbour), "203.0.113.9", HOST_WAN, "10.210.0.2", "127.0.0.1", "0.0.0.0")
    closed = (*HOST, *PRIVATE, *METADATA, *BROADCASTS, str(neighbour), "10.210.0.1", "169.254.1.1", "224.0.0.1")
    world.listeners.heard.clear()
    with (
        overheard(world.outside, "world") as outside,
        overheard(world.server, daemon.uplink) as host,
        overheard(beside, "eth0") as next_door,
    ):
        with inside.entered():
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            frames = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        router = inside.run("ip", "neigh", "show", "169.254.1.1").split("lladdr ")[1].split()[0]
        target = ("eth0", 0x0800, 0, 1, bytes.fromhex(router.replace(":", "")))
        packets = [datagram(source, place, 80) for source in forged for place in (*PUBLIC, str(neighbour), HOST_WAN)]
        packets += [datagram(mine, place, 80) for place in closed]
        packets += [ping(source, place) for source in (mine, *forged) for place in (*PUBLIC, *closed)]
        packets += [packet(mine, place, protocol, b"12345678") for place in PUBLIC for protocol in (4, 41, 47, 50, 132)]
        with raw, frames:
            for data in packets:
                frames.sendto(data, target)
                if data[12:16] == bytes(4):
                    continue  # the kernel would put the true source in
                with contextlib.suppress(OSError):  # what has no route, or a source that is nobody's
                    raw.sendto(data, (socket.inet_ntoa(data[16:20]), 0))
    with overheard(world.outside, "world") as told:
        with inside.entered():
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            raw.sendto(datagram(mine, "8.8.8.8", 80), ("8.8.8.8", 0))
    assert [data for data in told if b"evil" in data], "what is permitted is heard by the same means"
    for data in (*outside, *host, *next_door):
        assert b"evil" not in data and b"12345678" not in data, data
        assert data[9] != socket.IPPROTO_ICMP or data[20] != 8, "an echo request came through"
    assert not [place for place in world.listeners.heard if place != ("udp", "8.8.8.8", 80)]
    inside.close()
    beside.close()


def test_root_inside_cannot_take_another_address_or_speak_ipv6(world: World, daemon: NetworkedDaemon) -> None:
    _, inside = environment_of(daemon, "attacker")
    neighbour, beside = environment_of(daemon, "neighbour")
    world.listeners.heard.clear()
    inside.run("ip", "addr", "add", f"{neighbour}/32", "dev", "eth0")
    inside.switch("ipv6/conf/all/disable_ipv6", "0")
    inside.switch("ipv6/conf/eth0/disable_ipv6", "0")
    inside.run("ip", "addr", "add", "2001:db8::77/64", "dev", "eth0", "nodad")
    inside.run("ip", "-6", "route", "add", "default", "dev", "eth0")
    places = [(socket.AF_INET, str(neighbour), PUBLIC[0]), (socket.AF_INET6, "2001:db8::77", OUTSIDE_IPV6)]
    for family, source, destination in places:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with inside.entered():
                sock = socket.socket(family, kind)
            with sock, contextlib.suppress(OSError):
                sock.settimeout(0.3)
                sock.bind((source, 0))
                sock.connect((destination, 80))
                sock.send(b"x")
                raise AssertionError(f"answered: {sock.recv(100)!r}")
    assert not world.listeners.heard
    inside.close()
    beside.close()
    daemon.permit("attacker", "0.0.0.0/0:80")  # another environment, with addresses of its own only


def test_an_address_that_the_host_takes_is_closed_before_the_router_knows(
    world: World, daemon: NetworkedDaemon
) -> None:
    assert daemon.call("neighbour", {"code": REACH})
    router = daemon.router()
    assert router is not None
    with daemon.in_router():  # it is not about the host's rules just now
        router.suspend()
    world.server.run("ip", "addr", "add", "8.8.8.8/32", "dev", "wan")
    try:
        world.listeners.heard.clear()
        code = """
import socket
result = ""
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect(("8.8.8.8", 80))
            sock.send(b"x")
            result += sock.recv(100).decode()
        except OSError:
            pass
"""
        assert daemon.call("neighbour", {"code": code}) == ""
        assert not world.listeners.heard
    finally:
        router.resume()
        world.server.run("ip", "addr", "del", "8.8.8.8/32", "dev", "wan")
    eventually(lambda: "8.8.8.8" not in daemon.closed_by_host())


FLOOD = """
import socket, time
kept, finished, datagrams = [], 0, 0
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
until = time.monotonic() + 3
while time.monotonic() < until:
    for number in range(200):
        datagrams += 1
        try:
            udp.sendto(b"x", (f"8.{datagrams >> 16 & 255}.{datagrams >> 8 & 255}.{datagrams & 255}", 80))
        except OSError:
            pass
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("203.0.113.5", 80))
    kept = [*kept[-400:], sock]
result = datagrams
"""
QUICK = """
import socket, time
finished, until = 0, time.monotonic() + 3
while time.monotonic() < until:
    try:
        with socket.create_connection(("203.0.113.5", 80), 0.5) as sock:
            finished += bool(sock.recv(100))
    except OSError:
        pass
result = finished
"""
STEADY = """
import socket, time
slowest, answers, until = 0, 0, time.monotonic() + 3
while time.monotonic() < until:
    began = time.monotonic()
    with socket.create_connection(("8.8.8.8", 80), 2) as sock:
        answers += b" to " in sock.recv(100)
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.05)
result = [answers, slowest]
"""


@pytest.mark.parametrize("flood", [FLOOD, QUICK], ids=["half-open", "finished"])
def test_a_flood_of_flows_leaves_the_neighbours_alone(daemon: NetworkedDaemon, flood: str) -> None:
    daemon.permit("attacker", "0.0.0.0/0:80")
    daemon.call("neighbour", {"code": REACH})
    before = flows(daemon)
    with ThreadPoolExecutor(2) as pool:
        flooding = pool.submit(daemon.call, "attacker", {"code": flood})
        answers, _ = daemon.call("neighbour", {"code": STEADY})
        sent = flooding.result()
    assert answers >= 10, "every connection of the neighbour's was made, or this had failed"
    more = flows(daemon) - before - answers
    if flood is FLOOD:
        assert sent > 10 * FLOWS_PER_ENVIRONMENT and more <= FLOWS_PER_ENVIRONMENT + 10
    else:  # what has ended is remembered for minutes
        assert sent <= more + 10 and more <= FLOWS_PER_ENVIRONMENT + NEW_FLOWS_PER_SECOND * 4


def flows(daemon: NetworkedDaemon) -> int:
    """How many the router remembers."""
    with daemon.in_router() as router:
        return int(router.switch("netfilter/nf_conntrack_count"))


def lie(room: str, argument: str) -> None:
    """In the service: ask for more than what the policy grants, as one that was taken over would."""
    if room == "sandboxd.service":
        honest = Client.open_addresses

        async def open_addresses(client, environment_id, addresses, ports, ttl):  # type: ignore[no-untyped-def]
            lies = {"port": (addresses, (*ports, 22), ttl), "address": ([IPv4Address("10.20.0.5")], ports, ttl)}
            await honest(client, environment_id, *lies[argument])

        Client.open_addresses = open_addresses  # type: ignore[method-assign]


@pytest.mark.parametrize("lied", ["port", "address"])
def test_a_service_that_asks_for_more_than_was_bound_is_ended(world: World, lied: str) -> None:
    with world.outside.entered():
        names = NameServer(PUBLIC[0])
    names.records["x.org"] = ["x.org 60 A 203.0.113.6"]
    daemon = NetworkedDaemon(world, **{"network.resolvers": [PUBLIC[0]]})
    daemon.launcher = patched.launcher("tests.end_to_end.test_egress_attacks:lie", lied)
    try:
        with daemon:
            daemon.deploy(packages.load("evaluate"), Timeout=10)
            daemon.permit("evaluate", "x.org:80")
            service = daemon.room("service")
            world.listeners.heard.clear()
            with contextlib.suppress(OSError, http.client.HTTPException):
                daemon.invoke("evaluate", {"code": "import socket; socket.getaddrinfo('x.org', 80)"})
            eventually(lambda: not service.is_running())
            assert "the service broke the protocol" in daemon.log()
            daemon.wait_ready()
            assert not world.listeners.heard
    finally:
        names.close()


def test_what_nobody_answers_is_one_flow(world: World, daemon: NetworkedDaemon) -> None:
    """Measurements and logs go out by UDP like this: the rate of new flows is none of theirs."""
    daemon.permit("attacker", "203.0.113.6:9")
    with world.outside.entered():
        receiving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiving:
        receiving.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 21)
        receiving.bind(("203.0.113.6", 9))
        receiving.settimeout(2)
        code = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for number in range(600):
        sock.sendto(b"x", ("203.0.113.6", 9))
        time.sleep(0.0005)
"""
        daemon.call("attacker", {"code": code})
        assert all(receiving.recv(9) for _ in range(600))
