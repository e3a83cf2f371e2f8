"""Egress: a permission opens exactly what it names, nothing else is ever open, and the host gets everything back.

Every daemon here runs in a World: network namespaces of the test's own. No packet leaves the machine, and rules, links
and switches of the machine itself are not touched.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.network import (
    EVERYTHING,
    HOST,
    HOST_LAN,
    HOST_PUBLIC,
    HOST_WAN,
    OWN,
    PORTS,
    PUBLIC,
    NetworkedDaemon,
    World,
    knock,
    open_ones,
    reaches,
)  # fmt: skip
from tests.support.places import TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")


@pytest.fixture(scope="module")
def daemon(world: World) -> Iterator[NetworkedDaemon]:
    """One that many tests share; its API listens at every address of its host."""
    made = NetworkedDaemon(world)
    made.settings["api.listen"] = f"0.0.0.0:{made.port}"
    with made:
        yield made
        assert "Traceback" not in made.log(), made.log()


@pytest.fixture(scope="module")
def prober(daemon: NetworkedDaemon) -> str:
    return daemon.deploy(packages.load("prober"))


def named(addresses: tuple[str, ...], *ports: int) -> set[str]:
    """The places that are meant, by TCP and by UDP."""
    return {f"{kind} {address} {port}" for kind in ("tcp", "udp") for address in addresses for port in ports}


OPEN = {
    "0.0.0.0/0:80": named(PUBLIC, 80),
    "0.0.0.0/0:80-81": named(PUBLIC, 80, 81),
    "0.0.0.0/0:1-65535": named(PUBLIC, *PORTS),
    "0.0.0.0/0:443": set(),
    "8.8.8.8/32:80": named(("8.8.8.8",), 80),
    "128.0.0.0/1:81": named(("203.0.113.5", "203.0.113.6"), 81),
    "203.0.113.0/24:80": named(("203.0.113.5", "203.0.113.6"), 80),
    "10.0.0.0/8:80": named(("10.20.0.5", "10.21.0.5"), 80),
    "10.0.0.0/8:1-1024": named(("10.20.0.5", "10.21.0.5"), *PORTS),
    "10.20.0.0/24:81": named(("10.20.0.5",), 81),
    "172.16.0.0/12:80": named(("172.16.5.5",), 80),
    "169.254.169.254/32:80": named(("169.254.169.254",), 80),
    "10.20.0.5/32:80 0.0.0.0/0:81": named(("10.20.0.5",), 80) | named(PUBLIC, 81),
}


@pytest.mark.parametrize("rules", OPEN)
def test_a_permission_opens_exactly_what_it_names(
    world: World, daemon: NetworkedDaemon, prober: str, rules: str
) -> None:
    daemon.permit(prober, *rules.split())
    world.listeners.heard.clear()
    answers = knock(daemon, prober, *EVERYTHING)
    assert open_ones(answers) == OPEN[rules]
    assert {f"{kind} {place} {port}" for kind, place, port in world.listeners.heard} == OPEN[rules]
    callers = {text.partition(" to ")[2] for text in answers.values() if " to " in text}
    assert callers <= {HOST_WAN, HOST_LAN}, "outside, every packet comes from the host"
    assert len(answers) == len(EVERYTHING)


@pytest.mark.parametrize("address", [HOST_WAN, HOST_PUBLIC, HOST_LAN, "10.210.0.1"])
def test_an_address_of_the_host_opens_by_its_exact_name(
    world: World, daemon: NetworkedDaemon, prober: str, address: str
) -> None:
    daemon.permit(prober, f"{address}/32:80")
    world.listeners.heard.clear()
    answers = knock(daemon, prober, *(place for place in EVERYTHING if place[0] == "tcp"))
    assert open_ones(answers) == {f"tcp {address} 80"}
    assert world.listeners.heard == [("tcp", "host", 80)]


def test_refusals_are_told_at_once(daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, "0.0.0.0/0:80")
    places = [("tcp", f"10.9.0.{number}", 80) for number in range(40)]
    assert set(knock(daemon, prober, *places).values()) == {"EHOSTUNREACH"}
    assert set(knock(daemon, prober, ("udp", HOST_WAN, 80), ("udp", "8.8.8.8", 81)).values()) == {"EHOSTUNREACH"}


def test_the_daemons_own_door_is_closed(world: World, daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, f"0.0.0.0/0:{daemon.port}", f"10.0.0.0/8:{daemon.port}")
    places = [("tcp", address, daemon.port) for address in (*HOST, *OWN, "127.0.0.1")]
    answers = knock(daemon, prober, *places)
    assert set(answers.values()) <= {"EHOSTUNREACH", "silence", "ECONNREFUSED"}
    for address in (*HOST, "127.0.0.1"):
        with world.server.entered():
            listing = http.client.HTTPConnection(address, daemon.port, timeout=10 * TIME_FACTOR)
            listing.request("GET", "/2015-03-31/functions")
        with contextlib.closing(listing):
            assert listing.getresponse().status == 403, "it does listen there"


def test_an_address_that_the_host_takes_later_is_closed_too(world: World, daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, "0.0.0.0/0:80")
    assert open_ones(knock(daemon, prober, ("tcp", "8.8.8.8", 80)))
    world.server.run("ip", "addr", "add", "192.0.2.77/24", "brd", "+", "dev", "wan")
    world.server.run("ip", "route", "add", "local", "198.51.99.0/24", "dev", "lo")
    try:
        eventually(lambda: daemon.closed_by_host() >= {"192.0.2.77", "192.0.2.255", "198.51.99.0/24"}, seconds=1)
        world.listeners.heard.clear()
        places = [(k, a, 80) for k in ("tcp", "udp") for a in ("192.0.2.77", "192.0.2.255", "198.51.99.9")]
        assert set(knock(daemon, prober, *places).values()) == {"EHOSTUNREACH"}
        assert not world.listeners.heard
    finally:
        world.server.run("ip", "addr", "del", "192.0.2.77/24", "dev", "wan")
        world.server.run("ip", "route", "del", "local", "198.51.99.0/24", "dev", "lo")
    eventually(lambda: not daemon.closed_by_host() & {"192.0.2.77", "192.0.2.255", "198.51.99.0/24"}, seconds=1)
    assert reaches(daemon, prober)


def test_a_neighbour_is_out_of_reach(daemon: NetworkedDaemon, prober: str) -> None:
    neighbour = daemon.deploy(packages.load("prober"), "neighbour")
    daemon.permit(neighbour, "0.0.0.0/0:80")
    before = set(daemon.inner_links())
    assert reaches(daemon, neighbour)
    address = next(address for link, address in daemon.inner_links().items() if link not in before)
    daemon.permit(prober, f"{address}/32:8888", "10.0.0.0/8:8888", "0.0.0.0/0:8888")
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(daemon.invoke, neighbour, {"serve": [address, 8888, 1.5]})
        eventually(lambda: [r for r in daemon.environments(neighbour) if r["State"].upper() == "BUSY"] != [])
        time.sleep(0.3)
        answers = knock(daemon, prober, ("tcp", address, 8888), ("udp", address, 8888))
        heard = serving.result()
    assert open_ones(answers) == set()
    assert heard.json == [address], "only its own knock"
    daemon.delete(neighbour)


def test_inside_there_is_one_link_and_no_ipv6(daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, "0.0.0.0/0:80")
    seen = daemon.invoke(prober, {}).json
    assert seen["links"] == ["lo", "eth0"] and seen["ipv6"] == ["lo"]


def test_a_permission_taken_away(daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, "0.0.0.0/0:80", "10.0.0.0/8:80-81", "8.8.8.8/32:80", "0.0.0.0/0:1-65535")
    assert reaches(daemon, prober)
    eventually(lambda: len(daemon.inner_links()) == 1)
    assert len(daemon.permissions()) == 4 + 4 + 2 + 1
    daemon.permit(prober)
    seen = daemon.invoke(prober, {"knock": [("tcp", "8.8.8.8", 80)]}).json
    assert seen["links"] == ["lo"] and seen["answers"] == {"tcp 8.8.8.8 80": "ENETUNREACH"}
    eventually(lambda: daemon.permissions() == [] and daemon.inner_links() == {})


def test_an_environment_destroyed_leaves_nothing_in_the_router(daemon: NetworkedDaemon) -> None:
    name = daemon.deploy(packages.load("prober"), "short-lived")
    daemon.permit(name, "0.0.0.0/0:80")
    eventually(lambda: daemon.inner_links() == {})
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda _: reaches(daemon, name), range(3)))
    links = daemon.inner_links()
    assert len(links) >= 1 and len(daemon.permissions()) == 4 * len(links)
    assert len(set(links.values())) == len(links), "each its own address"
    daemon.delete(name)
    eventually(lambda: daemon.permissions() == [] and daemon.inner_links() == {})


def test_more_than_a_set_holds_is_an_error_and_leaves_nothing(daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, "0.0.0.0/0:80")
    assert reaches(daemon, prober)
    daemon.permit(prober, "10.0.0.0/8:1-1024")
    eventually(lambda: daemon.permissions() == [])
    with daemon.in_router() as router:
        for number in range(17):
            router.run("ipset", "add", "named", f"10.9.9.9,tcp:1-{65_535 if number < 16 else 15},10.{number}.0.0/16")
        answer = daemon.invoke(prober, {})
        assert answer.status == 500 and "network: No space left on device" in answer.message, answer
        eventually(lambda: daemon.inner_links() == {})
        assert "Number of entries: 1048575" in router.run("ipset", "list", "-terse", "named")
        router.run("ipset", "flush", "named")
    daemon.permit(prober, "0.0.0.0/0:80")
    assert reaches(daemon, prober)


def test_a_foreign_flush_opens_nothing_and_is_mended(world: World, daemon: NetworkedDaemon, prober: str) -> None:
    daemon.permit(prober, "0.0.0.0/0:80")
    assert reaches(daemon, prober)
    rules = world.server.rules()
    with ThreadPoolExecutor(1) as pool:  # the router is kept busy meanwhile
        other = daemon.deploy(packages.load("prober"), "other")
        churning = True

        def churn() -> None:
            number = 0
            while churning:
                number += 1
                daemon.permit(other, f"0.0.0.0/0:{number}")
                daemon.invoke(other, {})

        churner = pool.submit(churn)
        for table in ("raw", "mangle", "nat", "filter"):
            world.server.run("iptables", "-t", table, "-F")
            world.server.run("iptables", "-t", table, "-X")
        world.server.switch("ipv4/ip_forward", "0")
        flushed = time.monotonic()
        world.listeners.heard.clear()
        answers = knock(daemon, prober, *EVERYTHING)
        assert open_ones(answers) <= named(PUBLIC, 80)
        assert {f"{k} {place} {port}" for k, place, port in world.listeners.heard} <= named(PUBLIC, 80)
        eventually(lambda: world.server.rules() == rules)
        assert time.monotonic() - flushed < 5 * TIME_FACTOR
        assert reaches(daemon, prober)
        churning = False
        churner.result()
    daemon.delete(other)


def test_the_invoke_door(daemon: NetworkedDaemon) -> None:
    echo = daemon.deploy(packages.load("echo"))
    caller = daemon.deploy(packages.load("prober"), "caller")
    assert daemon.invoke(caller, {"invoke": echo}).json == {"endpoint": "", "refused": "ECONNREFUSED"}
    assert daemon.admin("PUT", f"/functions/{caller}/policy", {"AllowInvoke": True}).status == 200
    daemon.wait_settled(caller)
    sent = {"endpoint": "http://127.0.0.1:9002", "status": 200, "payload": {"sent": "ä"}}
    assert daemon.invoke(caller, {"invoke": echo}).json == sent
    seen = daemon.invoke(caller, {"knock": [("tcp", "8.8.8.8", 80)]}).json
    assert seen["links"] == ["lo"] and open_ones(seen["answers"]) == set(), "this door leads nowhere else"
    assert daemon.admin("PUT", f"/functions/{caller}/policy", {"AllowInvoke": False}).status == 200
    daemon.wait_settled(caller)
    assert daemon.invoke(caller, {"invoke": echo}).json == {"endpoint": "", "refused": "ECONNREFUSED"}
