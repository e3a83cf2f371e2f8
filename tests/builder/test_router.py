"""The router alone, as a builder that believed a lying service would use it: what it is asked to open, and what opens.

It runs in the server's namespace of a World; the environments are network namespaces with the child's side of a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from sandboxd.builder.egress import MAX_OPENED
from sandboxd.builder.network import ADMIT, OPEN, RELEASE, REPLY, REQUEST, RULE
from sandboxd.config import Config
from sandboxd.privsep.messages import OpenAddresses
from tests.support.network import (
    HOST_BRIDGE,
    HOST_LAN,
    HOST_PUBLIC,
    HOST_WAN,
    METADATA,
    PRIVATE,
    Namespace,
    World,
    router_namespace,
)  # fmt: skip
from tests.support.places import TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

ADDRESS = IPv4Address("10.210.0.8")
REFUSED = (errno.EHOSTUNREACH, errno.ENETUNREACH)


class Router:
    """The router's process, and the builder's end of its socket."""

    def __init__(self, world: World, run_dir: Path) -> None:
        self._world = world
        settings = os.memfd_create("config", 0)
        os.write(settings, pickle.dumps(Config(instance="trout", run_dir=run_dir)))
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with world.server.entered(), theirs:
            descriptors = (settings, theirs.fileno())
            command = [sys.executable, "-I", "-m", "sandboxd.builder.router", *map(str, descriptors)]
            self.process = subprocess.Popen(command, pass_fds=descriptors)
        os.close(settings)

    def admit(
        self,
        number: int,
        namespace: Namespace,
        *rules: tuple[str, int, int],
        denied: Sequence[tuple[str, int, int]] = (),
        partial: bool = False,
        hosts: bool = True,
    ) -> None:
        """Give a namespace a link as environment `number`; `partial`: addresses are not named as such."""
        packed = [
            RULE.pack(IPv4Network(text).network_address.packed, IPv4Network(text).prefixlen, *ports, closed, partial)
            for closed, part in ((False, rules), (True, denied))
            for text, *ports in part
        ]
        request = REQUEST.pack(ADMIT, number, ADDRESS.packed, hosts) + b"".join(packed)
        socket.send_fds(self.channel, [request], [namespace.descriptor])
        assert self.reply() == 0

    def release(self, number: int) -> None:
        self.channel.send(REQUEST.pack(RELEASE, number, ADDRESS.packed, False))
        assert self.reply() == 0

    def open(self, number: int, *addresses: str, port: int = 80, ttl: int = 60) -> int:
        """Ask for addresses to be opened; errno."""
        message = OpenAddresses(1, number, ttl, tuple(map(IPv4Address, addresses)), (port,))
        self.channel.send(REQUEST.pack(OPEN, number, bytes(4), True) + message.pack())
        return self.reply()

    def reply(self) -> int:
        return int(REPLY.unpack(self.channel.recv(REPLY.size))[2])

    @contextlib.contextmanager
    def namespace(self) -> Iterator[Namespace]:
        """The router's own, to look into."""
        with router_namespace(self.process.pid, self._world) as there:
            yield there

    def close(self) -> None:
        self.channel.close()
        assert self.process.wait(10 * TIME_FACTOR) == 0


@pytest.fixture(scope="module")
def world(machine: None) -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def router(world: World, tmp_path: Path) -> Iterator[Router]:
    world.listeners.heard.clear()
    made = Router(world, tmp_path)
    yield made
    made.close()


@pytest.fixture
def inside() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


def connects(namespace: Namespace, address: str, port: int = 80) -> bool:
    """Whether somebody answers there; what is refused is refused at once."""
    with namespace.entered(), socket.socket() as sock:
        sock.settimeout(2)
        try:
            sock.connect((address, port))
            return bool(sock.recv(100))
        except OSError as error:
            assert error.errno in REFUSED, error
            return False


def test_what_is_opened_is_open_at_its_port(router: Router, inside: Namespace) -> None:
    router.admit(1, inside)
    assert not connects(inside, "203.0.113.6")
    assert router.open(1, "203.0.113.6", "8.8.8.8") == 0
    assert connects(inside, "203.0.113.6") and connects(inside, "8.8.8.8")
    assert not connects(inside, "203.0.113.6", 81) and not connects(inside, "203.0.113.5")


def test_what_is_closed_stays_closed_whatever_the_router_is_asked(
    world: World, router: Router, inside: Namespace
) -> None:
    """No list knows the host's own addresses; those in closed ranges are put into the set itself, past every check."""
    router.admit(1, inside)
    closed = (*PRIVATE, *METADATA, HOST_LAN, HOST_BRIDGE, "10.210.0.1")
    assert router.open(1, HOST_WAN, HOST_PUBLIC) == 0
    assert all(router.open(1, "8.8.8.8", address) != 0 for address in closed)
    with router.namespace() as there:
        for address in closed:
            there.run("ipset", "add", "opened", f"{ADDRESS},tcp:80,{address}", "timeout", "60")
    for address in (HOST_WAN, HOST_PUBLIC, *closed, "8.8.8.8"):
        assert not connects(inside, address), address
    assert not world.listeners.heard


def test_only_who_was_admitted_with_hosts_has_addresses_opened(router: Router, inside: Namespace) -> None:
    router.admit(1, inside, ("8.8.8.0/24", 80, 80), hosts=False)
    assert router.open(1, "203.0.113.6") == router.open(2, "203.0.113.6") == errno.ENOENT
    assert connects(inside, "8.8.8.8") and not connects(inside, "203.0.113.6")


def test_what_is_denied_is_closed_whatever_else_opens_it(router: Router, inside: Namespace) -> None:
    wide, private, everything = ("8.0.0.0/8", 80, 81), ("10.0.0.0/8", 80, 80), ("203.0.113.0/24", 80, 81)
    exact = ("8.8.8.8/32", 80, 80)
    denied = (("10.21.0.0/16", 1, 65_535), ("203.0.113.6/32", 81, 81), exact)
    router.admit(1, inside, wide, private, everything, exact, denied=denied)
    assert connects(inside, "10.20.0.5") and not connects(inside, "10.21.0.5")
    assert connects(inside, "203.0.113.6") and not connects(inside, "203.0.113.6", 81)
    assert connects(inside, "203.0.113.5", 81)
    assert connects(inside, "8.8.8.8", 81) and not connects(inside, "8.8.8.8")
    assert router.open(1, "8.8.8.8") == router.open(1, "203.0.113.6", port=81) == 0, "a name leads there"
    assert not connects(inside, "8.8.8.8") and not connects(inside, "203.0.113.6", 81)
    router.release(1)
    with router.namespace() as there:
        assert "add denied" not in there.run("ipset", "save")
        assert len(there.run("ip", "rule").splitlines()) == 3 and "prohibit" not in there.run(
            "ip", "route", "show", "table", "all"
        )


def test_everything_may_be_denied_but_a_part(router: Router, inside: Namespace) -> None:
    router.admit(1, inside, ("0.0.0.0/0", 1, 65_535), denied=(("8.0.0.0/6", 1, 65_535),))
    assert connects(inside, "203.0.113.5", 81) and not connects(inside, "8.8.8.8")
    router.release(1)
    router.admit(1, inside, ("0.0.0.0/0", 80, 80), denied=(("0.0.0.0/0", 1, 65_535),))
    assert not connects(inside, "203.0.113.5") and not connects(inside, "8.8.8.8")


def test_an_address_of_a_network_is_closed_where_the_network_is(
    world: World, router: Router, inside: Namespace
) -> None:
    places = [(f"{address}/32", 80, 80) for address in ("8.8.8.8", "10.20.0.5", HOST_PUBLIC, HOST_LAN)]
    router.admit(1, inside, *places, partial=True)
    assert connects(inside, "8.8.8.8") and connects(inside, "10.20.0.5")
    assert not connects(inside, HOST_PUBLIC) and not connects(inside, HOST_LAN)


def test_so_many_are_open_at_one_time(router: Router, inside: Namespace) -> None:
    router.admit(1, inside)
    fitting, ttl = MAX_OPENED // 12, round(2 * TIME_FACTOR)
    for number in range(fitting):
        assert router.open(1, *(f"8.9.{number}.{last}" for last in range(12)), ttl=ttl) == 0
    more = [f"8.10.0.{last}" for last in range(12)]
    assert router.open(1, *more) == errno.ENOSPC
    assert router.open(1, *(f"8.9.0.{last}" for last in range(12)), ttl=60 + ttl) == 0, "what is open may stay so"
    time.sleep(ttl)
    assert router.open(1, *more) == 0, "the others' time is over"
    router.release(1)
    with router.namespace() as there:
        assert "add " not in there.run("ipset", "save", "opened") + there.run("ipset", "save", "numbers")


def test_a_flow_is_the_environments_that_began_it(world: World, router: Router, inside: Namespace) -> None:
    """The next owner of an address sends from the same port to the same place, while the kernel remembers the flow."""
    with inside.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(0.2)

    def outcome() -> str:
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # what is left of the time before
        for _ in range(20):
            try:
                sock.send(b"x")
                return "answered" if sock.recv(100) else ""
            except TimeoutError:
                continue
            except OSError as error:
                assert error.errno in REFUSED, error
                return "refused"
        return "silence"

    with sock:
        router.admit(1, inside)
        assert router.open(1, "203.0.113.6") == 0
        sock.bind((str(ADDRESS), 5555))
        sock.connect(("203.0.113.6", 80))
        assert outcome() == "answered"
        router.release(1)
        router.admit(2, inside)
        world.listeners.heard.clear()
        assert outcome() == "refused" and not world.listeners.heard
        router.release(2)
        router.admit(1, inside)
        assert outcome() == "answered", "it was remembered all the time: the number decided"
