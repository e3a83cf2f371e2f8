"""Egress: a permission opens exactly what it names, nothing else is ever open, and the host gets everything back.

Every daemon here runs in a World: network namespaces of the test's own. No packet leaves the machine, and rules, links
and switches of the machine itself are not touched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import network, packages
from tests.support.network import (
    BROADCASTS,
    HOST,
    HOST_IPV6,
    HOST_LAN,
    HOST_PUBLIC,
    HOST_WAN,
    METADATA,
    OUTSIDE_IPV6,
    PORTS,
    PRIVATE,
    PUBLIC,
    NetworkedDaemon,
    World,
)  # fmt: skip

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

OWN = ("10.210.0.1", "10.210.0.2", "10.210.0.3", "169.254.1.1")  # both ends of the uplink, its broadcast, the gateway
EVERY_ADDRESS = (
    *PUBLIC, *PRIVATE, *METADATA, *HOST, *BROADCASTS, *OWN, OUTSIDE_IPV6, HOST_IPV6,
    "192.0.0.8", "224.0.0.1", "240.0.0.1", "255.255.255.255", "0.0.0.0",
)  # fmt: skip
EVERYTHING = [(kind, address, port) for kind in ("tcp", "udp") for address in EVERY_ADDRESS for port in PORTS]
LINGER = 16  # seconds: the router's own, and the time between two looks of it
NewDaemon = Callable[..., NetworkedDaemon]


@pytest.fixture(scope="module")
def world(machine: None) -> Iterator[World]:
    """One that many tests share."""
    made = World()
    yield made
    made.close()


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


@pytest.fixture
def own_world(machine: None) -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def new_daemon(own_world: World) -> Iterator[NewDaemon]:
    """Makes started daemons in a world of the test's own."""
    made: list[NetworkedDaemon] = []

    def make(**settings: object) -> NetworkedDaemon:
        made.append(NetworkedDaemon(own_world, **settings))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def knock(daemon: NetworkedDaemon, function: str, *places: tuple[str, str, int]) -> dict[str, str]:
    """What a function gets from every place."""
    answer = daemon.invoke(function, {"knock": places})
    assert answer.status == 200 and "x-amz-function-error" not in answer.headers, answer
    return dict(answer.json["answers"])


def open_ones(answers: dict[str, str]) -> set[str]:
    return {key for key, text in answers.items() if " to " in text}


def named(addresses: tuple[str, ...], *ports: int) -> set[str]:
    """The places that are meant, by TCP and by UDP."""
    return {f"{kind} {address} {port}" for kind in ("tcp", "udp") for address in addresses for port in ports}


def reaches(daemon: NetworkedDaemon, function: str) -> bool:
    return bool(open_ones(knock(daemon, function, ("tcp", "8.8.8.8", 80))))


OPEN = {
    "0.0.0.0/0:80": named(PUBLIC, 80),
    "0.0.0.0/0:80-81": named(PUBLIC, 80, 81),
    "0.0.0.0/0:1-65535": named(PUBLIC, *PORTS),
    "0.0.0.0/0:443": set(),
    "8.8.8.8/32:80": named(("8.8.8.8",), 80),
    "128.0.0.0/1:81": named(("203.0.113.5", "203.0.113.6"), 81),
    "203.0.113.0/24:80": named(("203.0.113.5", "203.0.113.6"), 80),
    "10.0.0.0/8:80": named(("10.20.0.5", "10.21.0.5"), 80),
    "10.0.0.0/8:1-65535": named(("10.20.0.5", "10.21.0.5"), *PORTS),
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
        listing = world.server.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                                   f"http://{address}:{daemon.port}/2015-03-31/functions")  # fmt: skip
        assert listing == "403", "it does listen there"


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
    daemon.permit(prober, *(f"10.{number}.0.0/16:1-65535" for number in range(9)))
    eventually(lambda: daemon.permissions() == [])
    answer = daemon.invoke(prober, {})
    assert answer.status == 500 and "network: No space left on device" in answer.message, answer
    eventually(lambda: daemon.permissions() == [] and daemon.inner_links() == {})
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
        world.server.run("iptables", "-F")
        world.server.run("iptables", "-t", "nat", "-F")
        world.server.run("iptables", "-X")
        world.server.switch("ipv4/ip_forward", "0")
        flushed = time.monotonic()
        world.listeners.heard.clear()
        answers = knock(daemon, prober, *EVERYTHING)
        assert open_ones(answers) <= named(PUBLIC, 80)
        assert {f"{k} {place} {port}" for k, place, port in world.listeners.heard} <= named(PUBLIC, 80)
        eventually(lambda: world.server.rules() == rules)
        assert time.monotonic() - flushed < 5
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


DOCKER = (
    "-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-N DOCKER",
    "-A DOCKER ! -i docker0 -o docker0 -j DROP", "-A FORWARD -j DOCKER-USER", "-A FORWARD -o docker0 -j DOCKER",
    "-t nat -N DOCKER", "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
)  # fmt: skip


def test_the_host_lends_and_gets_back(own_world: World, new_daemon: NewDaemon) -> None:
    """From no permission to one and back, on a host where somebody else has rules."""
    server = own_world.server
    for rule in DOCKER:
        server.run("iptables", *rule.split())
    rules, links = server.rules(), server.links()

    def as_before() -> bool:
        return (server.rules(), server.links(), server.switch("ipv4/ip_forward")) == (rules, links, "0")

    daemon = new_daemon()
    plain = daemon.deploy(packages.load("prober"))
    seen = daemon.invoke(plain, {"knock": EVERYTHING, "wait": 0.1}).json
    assert seen["links"] == ["lo"] and open_ones(seen["answers"]) == set()
    assert as_before() and daemon.router() is None, "without a permission nothing is made"

    directory = str(packages.FUNCTIONS / "prober")
    options = ["--runtime", "python3.13", "--handler", "app.handler", "--allow-egress", "8.8.8.8/32:80"]
    done = daemon.cli("function", "create", "permitted", "--dir", directory, *options)
    assert done.returncode == 0, done.stderr
    assert reaches(daemon, "permitted"), "in spite of the others' policy"
    lent = server.rules()
    assert [rule for rule in lent if daemon.instance not in rule] == rules, "others' rules are theirs"
    assert len([rule for rule in lent if daemon.instance in rule]) == 5
    assert server.links() == links | {daemon.uplink} and server.switch("ipv4/ip_forward") == "1"
    assert daemon.invoke(plain, {}).json["links"] == ["lo"]

    daemon.permit("permitted")
    assert not as_before(), "rules do not come and go with every environment"
    eventually(as_before, seconds=LINGER)
    daemon.permit("permitted", "8.8.8.8/32:80")
    assert reaches(daemon, "permitted"), "and a second time"
    assert daemon.stop() == 0
    assert as_before()


def test_two_daemons_share_a_hosts_switch(own_world: World, new_daemon: NewDaemon) -> None:
    server, daemons = own_world.server, []
    rules = server.rules()
    for number in range(2):
        daemons.append(new_daemon(**{"network.pool": f"10.{210 + number}.0.0/16"}))
        daemons[-1].deploy(packages.load("prober"))
        daemons[-1].permit("prober", "0.0.0.0/0:80", "10.0.0.0/8:80")
        assert reaches(daemons[-1], "prober")
    own_world.listeners.heard.clear()
    assert open_ones(knock(daemons[0], "prober", ("tcp", "10.211.0.1", 80), ("tcp", "10.211.0.4", 80))) == set()
    assert not own_world.listeners.heard, "the other's uplink is an address of the host"
    daemons[0].stop()
    assert server.switch("ipv4/ip_forward") == "1" and reaches(daemons[1], "prober")
    daemons[1].stop()
    assert server.switch("ipv4/ip_forward") == "0" and server.rules() == rules


def test_what_a_killed_daemon_lent_is_given_back(own_world: World, new_daemon: NewDaemon) -> None:
    server = own_world.server
    rules, links = server.rules(), server.links()
    daemon = new_daemon()
    daemon.deploy(packages.load("prober"))
    daemon.permit("prober", "8.8.8.8/32:80")
    assert reaches(daemon, "prober")
    daemon.end_suddenly()
    eventually(lambda: server.links() == links)
    left = [rule for rule in server.rules() if rule not in rules]
    assert len(left) == 5 and server.switch("ipv4/ip_forward") == "1", "rules are no process's: they stay"

    seen = daemon.cli_at_server("gc", "--dry-run", "--output", "json")
    rows = [row for row in json.loads(seen.stdout) if row["kind"] == "host network"]
    assert len(rows) == 5 and not any(row["removed"] for row in rows)
    assert {"net.ipv4.ip_forward"} < {row["name"] for row in rows}
    assert len([rule for rule in server.rules() if rule not in rules]) == 5, "a dry run removes nothing"

    daemon.start()
    assert server.rules() == rules and server.switch("ipv4/ip_forward") == "0", "the next start gives it back"
    assert reaches(daemon, "prober")
    router, builder = daemon.router(), daemon.room("builder")
    assert router is not None
    router.suspend()
    builder.kill()
    eventually(lambda: not builder.is_running() and server.rules() == rules)
    assert server.switch("ipv4/ip_forward") == "0", "the next builder gives back what the killed one lent"
    daemon.wait_ready()
    assert reaches(daemon, "prober")
    daemon.end_suddenly()
    done = daemon.cli_at_server("gc", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert all(row["removed"] for row in json.loads(done.stdout))
    assert server.rules() == rules and server.links() == links and server.switch("ipv4/ip_forward") == "0"


def test_without_iptables_only_permissions_fail(own_world: World, new_daemon: NewDaemon) -> None:
    """A host that cannot do what the router wants refuses the one function; the daemon and the others live on."""
    server = own_world.server
    server.run("ip", "link", "add", "foreign", "type", "veth", "peer", "name", "foreign2")
    daemon = new_daemon()
    server.run("ip", "link", "set", "foreign", "name", daemon.uplink)  # somebody has taken the uplink's name
    daemon.deploy(packages.load("prober"))
    plain = daemon.deploy(packages.load("hello"))
    builder = daemon.room("builder").pid
    daemon.permit("prober", "0.0.0.0/0:80")
    for _ in range(2):
        answer = daemon.invoke("prober", {})
        assert answer.status == 500 and "network: File exists" in answer.message, answer
    assert daemon.invoke(plain).status == 200
    assert daemon.room("builder").pid == builder
    server.run("ip", "link", "set", daemon.uplink, "name", "foreign")
    assert reaches(daemon, "prober"), "and it works as soon as the host can"
    assert network.HOST_WAN in server.run("ip", "addr")
