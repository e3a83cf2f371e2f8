"""Roles that are kept here and the network: what one permits opens, what it denies is closed, at once when it changes.

The daemon and its DNS server run in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.nameserver import NameServer
from tests.support.network import HOST_LAN, HOST_PUBLIC, PUBLIC, NetworkedDaemon, World, knock, open_ones

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

PLACES = "arn:sandboxd:network:::"
NAMES = """
import errno, socket
result = []
for name, port in event["places"]:
    try:
        with socket.create_connection((name, port), 2) as connection:
            result.append(connection.recv(100).decode().partition(" ")[0])
    except socket.gaierror:
        result.append("no such name")
    except OSError as error:
        result.append(errno.errorcode.get(error.errno, str(error)))
"""


def connect(effect: str, *places: str) -> dict[str, Any]:
    return {"Effect": effect, "Action": "sandboxd:Connect", "Resource": [PLACES + place for place in places]}


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[NameServer]:
    with world.outside.entered():
        made = NameServer(PUBLIC[0])
    for name, address in (("a.x.org", "8.8.8.8"), ("b.x.org", "203.0.113.6"), ("c.x.org", "203.0.113.5")):
        made.records[name] = [f"{name} 60 A {address}"]
    yield made
    made.close()


@pytest.fixture(scope="module")
def daemon(world: World, server: NameServer) -> Iterator[NetworkedDaemon]:
    """One with the role worker, and two functions that have it."""
    made = NetworkedDaemon(world, **{"network.resolvers": [PUBLIC[0]]})
    with made:
        role = f"arn:aws:iam::{made.admin('GET', '/status').json['AccountId']}:role/worker"
        assert made.cli("role", "create", "worker").returncode == 0
        for name in ("prober", "evaluate"):
            made.deploy(packages.load(name), Role=role, Timeout=60)
            assert made.admin("PUT", f"/functions/{name}/policy", {}).status == 200
            made.wait_settled(name)
        yield made
        assert "Traceback" not in made.log(), made.log()


def put(daemon: NetworkedDaemon, *statements: dict[str, Any]) -> None:
    """Give the role another policy, its only one."""
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    done = daemon.cli("role", "put-policy", "worker", "network", "-", payload=text.encode())
    assert done.returncode == 0, done.stderr


def opened(daemon: NetworkedDaemon, *places: str) -> set[str]:
    """Which of some places, each "address port", a function with the role reaches by TCP."""
    answers = knock(daemon, "prober", *(("tcp", a, int(p)) for a, p in (place.split() for place in places)))
    return {place.removeprefix("tcp ") for place in open_ones(answers)}


def inspected(daemon: NetworkedDaemon, function: str) -> dict[str, list[str]]:
    """What `sandboxd inspect` finds of the network of a function's environment, all as it is meant."""
    (row,) = daemon.environments(function)
    done = daemon.cli_at_server("inspect", str(row["Id"]), "--output", "json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    found: dict[str, list[str]] = {}
    for finding in json.loads(done.stdout)["Findings"]:
        if finding["part"] == "network":
            found.setdefault(finding["name"], []).append(finding["found"])
    return found


def test_a_role_opens_what_it_allows_and_closes_what_it_denies(world: World, daemon: NetworkedDaemon) -> None:
    everywhere = ("8.8.8.8 80", "203.0.113.5 80", "203.0.113.6 80", "203.0.113.6 81", "10.20.0.5 80", "10.21.0.5 80")
    world.listeners.heard.clear()
    assert opened(daemon, *everywhere) == set(), "a role without a policy permits nothing"
    put(daemon, connect("Allow", "10.0.0.0/8:80", "203.0.113.0/24:80-81"))
    assert opened(daemon, *everywhere) == set(everywhere[1:])
    world.listeners.heard.clear()
    put(
        daemon,
        connect("Allow", "10.0.0.0/8:80", "203.0.113.0/24:80-81", f"{HOST_PUBLIC}:80"),
        connect("Deny", "10.21.0.0/16", "203.0.113.6:81", HOST_PUBLIC),
    )
    assert opened(daemon, *everywhere, f"{HOST_PUBLIC} 80") == {"203.0.113.5 80", "203.0.113.6 80", "10.20.0.5 80"}
    assert {place for _, place, _ in world.listeners.heard} == {"203.0.113.5", "203.0.113.6", "10.20.0.5"}
    found = inspected(daemon, "prober")
    assert found["denials"] == ["4"] and len(found["denial"]) == 4 and found["no way to"] == ["none"]


def test_everything_but_what_is_denied(daemon: NetworkedDaemon) -> None:
    put(daemon, {"Effect": "Allow", "Action": "*", "Resource": "*"}, connect("Deny", "8.0.0.0/6", "203.0.113.5"))
    places = ("8.8.8.8 80", "8.8.8.8 81", "203.0.113.5 80", "203.0.113.6 80", "203.0.113.6 81")
    more = ("10.20.0.5 80", "169.254.169.254 80", f"{HOST_PUBLIC} 80", f"{HOST_LAN} 80")
    assert opened(daemon, *places, *more) == {"203.0.113.6 80", "203.0.113.6 81"}
    assert inspected(daemon, "prober")["no way to"] == ["203.0.113.5/32, 8.0.0.0/6"]
    with daemon.in_router() as router:
        assert router.run("ip", "rule").count("lookup") == 4
    put(daemon, {"Effect": "Allow", "Action": "lambda:*", "Resource": "*"})
    eventually(lambda: daemon.permissions() == [] and daemon.inner_links() == {})
    with daemon.in_router() as router:
        assert router.run("ip", "rule").count("lookup") == 3, "nothing of it is left"
        assert "prohibit" not in router.run("ip", "route", "show", "table", "all")


def test_names_of_a_role(daemon: NetworkedDaemon, server: NameServer) -> None:
    put(daemon, connect("Allow", "*.x.org:80"), connect("Deny", "b.x.org", "203.0.113.5"))
    server.asked.clear()
    places = [["a.x.org", 80], ["a.x.org", 81], ["b.x.org", 80], ["c.x.org", 80], ["d.org", 80]]
    found = daemon.call("evaluate", {"code": NAMES, "places": places})
    assert found == ["8.8.8.8:80", "EHOSTUNREACH", "no such name", "EHOSTUNREACH", "no such name"]
    assert set(server.asked) == {"a.x.org", "c.x.org"}, "what is denied is asked of nobody"


def test_the_functions_own_setting_narrows_its_role(daemon: NetworkedDaemon) -> None:
    put(daemon, connect("Allow", "203.0.113.0/24:80", "10.0.0.0/8:80"))
    daemon.permit("prober", "203.0.113.5:80", "8.8.8.8:80", f"{HOST_LAN}:80", "10.21.0.0/16:80-81")
    places = ("203.0.113.5 80", "203.0.113.6 80", "8.8.8.8 80", f"{HOST_LAN} 80", "10.20.0.5 80", "10.21.0.5 80")
    assert opened(daemon, *places) == {"203.0.113.5 80", "10.21.0.5 80"}, "the host's own address takes both"
    shown = json.loads(daemon.cli("function", "get", "prober", "--output", "json").stdout)["Network"]
    assert shown == {"Allow": ["10.20.0.1/32:80", "10.21.0.0/16:80", "203.0.113.5/32:80"], "Deny": []}
    put(daemon, connect("Allow", "203.0.113.0/24:80", f"{HOST_LAN}:80"))
    assert opened(daemon, *places) == {"203.0.113.5 80", f"{HOST_LAN} 80"}
    assert daemon.cli("function", "update", "prober", "--no-egress").returncode == 0
    assert opened(daemon, *places) == set()
    assert daemon.cli("function", "update", "prober", "--role-egress").returncode == 0
    assert opened(daemon, *places) == {"203.0.113.5 80", "203.0.113.6 80", f"{HOST_LAN} 80"}


def test_a_role_that_lambda_cannot_assume_runs_nothing(daemon: NetworkedDaemon) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    text = json.dumps({"Version": "2012-10-17", "Statement": trust}).encode()
    assert daemon.cli("role", "put-trust", "worker", "-", payload=text).returncode == 0
    answer = daemon.invoke("prober", {})
    assert (answer.status, answer.message) == (403, "The role defined for the function cannot be assumed by Lambda.")
    text = text.replace(b"ec2", b"lambda")
    assert daemon.cli("role", "put-trust", "worker", "-", payload=text).returncode == 0
    assert opened(daemon, "203.0.113.5 80") == {"203.0.113.5 80"}
