"""What egress takes from the host: a link, two rules with a chain, a switch; and that the host gets it all back.

Every daemon here runs in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from sandboxd.builder.network import ADMIT, RELEASE, REPLY, REQUEST, RULE
from sandboxd.config import Config
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.network import EVERYTHING, Namespace, NetworkedDaemon, World, knock, open_ones, reaches

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

LINGER = 16  # seconds: the router's own, and the time between two looks of it
NewDaemon = Callable[..., NetworkedDaemon]


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


DOCKER = (
    "-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-N DOCKER",
    "-A DOCKER ! -i docker0 -o docker0 -j DROP", "-A FORWARD -j DOCKER-USER", "-A FORWARD -o docker0 -j DOCKER",
    "-t nat -N DOCKER", "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
)  # fmt: skip

UFW = (
    "-P INPUT DROP", "-N ufw-before-input", "-N ufw-before-forward", "-N ufw-reject-forward",
    "-A ufw-before-input -i lo -j ACCEPT", "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw-before-input -m conntrack --ctstate INVALID -j DROP", "-A INPUT -j ufw-before-input",
    "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -j ufw-before-forward",
    "-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable", "-A FORWARD -j ufw-reject-forward",
    "-t raw -A PREROUTING -p tcp --dport 21 -j ACCEPT",
)  # fmt: skip


def test_the_host_lends_and_gets_back(own_world: World, new_daemon: NewDaemon) -> None:
    """From no permission to one and back, on a host where Docker and ufw have rules."""
    server = own_world.server
    for rule in (*DOCKER, *UFW):
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
    assert len([rule for rule in lent if daemon.instance in rule]) == 6
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
    assert open_ones(knock(daemons[0], "prober", ("tcp", "10.211.0.1", 80), ("tcp", "10.211.0.8", 80))) == set()
    assert not own_world.listeners.heard, "the other's uplink is an address of the host"
    daemons[0].stop()
    assert server.switch("ipv4/ip_forward") == "1" and reaches(daemons[1], "prober")
    daemons[1].stop()
    assert server.switch("ipv4/ip_forward") == "0" and server.rules() == rules


def test_the_router_gives_back_whatever_was_said_last(own_world: World, tmp_path: Path) -> None:
    """A builder that goes without reading the last reply resets the connection instead of ending it."""
    server, inside = own_world.server, Namespace()
    rules, links = server.rules(), server.links()
    settings = os.memfd_create("config", 0)
    os.write(settings, pickle.dumps(Config(instance="trout", run_dir=tmp_path)))
    builder_end, router_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with builder_end, router_end, server.entered():
        descriptors = (settings, router_end.fileno())
        command = [sys.executable, "-I", "-m", "sandboxd.builder.router", *map(str, descriptors)]
        router = subprocess.Popen(command, pass_fds=descriptors, stderr=subprocess.PIPE)
        os.close(settings)
        router_end.close()
        admit = REQUEST.pack(ADMIT, 1, IPv4Address("10.210.0.8").packed, False) + RULE.pack(
            bytes(4), 0, 80, 80, False, False
        )
        socket.send_fds(builder_end, [admit], [inside.descriptor])
        assert REPLY.unpack(builder_end.recv(REPLY.size))[:3] == (ADMIT, 1, 0)
        assert len(server.rules()) == len(rules) + 6
        builder_end.send(REQUEST.pack(RELEASE, 1, bytes(4), False))
        select.select([builder_end], [], [], 5)
    assert (router.communicate(timeout=10)[1], router.returncode) == (b"", 0)
    assert server.rules() == rules and server.links() == links and server.switch("ipv4/ip_forward") == "0"
    inside.close()


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
    assert len(left) == 6 and server.switch("ipv4/ip_forward") == "1", "rules are no process's: they stay"

    seen = daemon.cli_at_server("gc", "--dry-run", "--output", "json")
    rows = [row for row in json.loads(seen.stdout) if row["kind"] == "host network"]
    assert len(rows) == 6 and not any(row["removed"] for row in rows)
    assert {"net.ipv4.ip_forward"} < {row["name"] for row in rows}
    assert len([rule for rule in server.rules() if rule not in rules]) == 6, "a dry run removes nothing"

    daemon.start()
    assert server.rules() == rules and server.switch("ipv4/ip_forward") == "0", "the next start gives it back"
    assert reaches(daemon, "prober")
    router, builder = daemon.router(), daemon.room("builder")
    assert router is not None
    router.suspend()
    builder.kill()
    # the next builder gives back what the killed one lent
    eventually(lambda: not builder.is_running() and (server.rules(), server.switch("ipv4/ip_forward")) == (rules, "0"))
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
