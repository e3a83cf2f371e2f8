"""Egress by host name: what a name leads to opens for its time, and no name leads to what is closed.

The daemon and its DNS server run in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import packages
from tests.support.nameserver import NameServer
from tests.support.network import PUBLIC, NetworkedDaemon, World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

HELPERS = """
import errno, socket, time

def addresses(name):
    try:
        return sorted({info[4][0] for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return error.strerror

def connect(address, port):
    try:
        with socket.create_connection((address, port), 2) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect((address, port))
        try:
            sock.send(b"x")
            return sock.recv(100).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
"""


@pytest.fixture(scope="module")
def world(machine: None) -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[NameServer]:
    with world.outside.entered():
        made = NameServer(PUBLIC[0])
    yield made
    made.close()


@pytest.fixture
def names(server: NameServer, world: World) -> NameServer:
    """The DNS server, which knows no name yet."""
    server.records, server.asked, server.before, server.silent = {}, [], lambda question: [], False
    world.listeners.heard.clear()
    return server


@pytest.fixture(scope="module")
def daemon(world: World, server: NameServer) -> Iterator[NetworkedDaemon]:
    with NetworkedDaemon(world, **{"network.resolvers": [PUBLIC[0]]}) as made:
        made.deploy(packages.load("evaluate"), Timeout=60)
        yield made
        assert "Traceback" not in made.log(), made.log()


def run(daemon: NetworkedDaemon, code: str, **event: Any) -> Any:
    """What `result` is after the code has run in the function."""
    return daemon.call("evaluate", {"code": HELPERS + code, **event})


def test_a_name_opens_what_it_leads_to_and_nothing_else(
    world: World, daemon: NetworkedDaemon, names: NameServer
) -> None:
    names.records["api.example.org"] = ["api.example.org 60 A 203.0.113.6"]
    names.records["a.b.wild.org"] = ["a.b.wild.org 60 CNAME edge.org", "edge.org 60 A 8.8.8.8"]
    daemon.permit("evaluate", "api.example.org:80", "*.wild.org:81")
    result = run(
        daemon,
        """
before = connect("203.0.113.6", 80)
found = addresses("API.example.org"), addresses("a.b.wild.org")
result = [before, found, [connect(a, p) for a in ("203.0.113.6", "8.8.8.8", "203.0.113.5") for p in (80, 81)],
          datagram("203.0.113.6", 80), datagram("203.0.113.6", 81)]
""",
    )
    no = "EHOSTUNREACH"
    assert result == [
        no, [["203.0.113.6"], ["8.8.8.8"]],
        ["203.0.113.6:80 to 203.0.113.1", no, no, "8.8.8.8:81 to 203.0.113.1", no, no],
        "203.0.113.6:80 to 203.0.113.1", no,
    ]  # fmt: skip
    assert names.asked == ["api.example.org", "a.b.wild.org"]
