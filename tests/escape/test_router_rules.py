"""Every rule of the router is missed when it is left out: taken from a living router, tried, and put back.

The daemon runs in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandboxd.builder import egress, host
from sandboxd.config import Config
from tests.support import packages
from tests.support.nameserver import NameServer
from tests.support.network import HOST_PUBLIC, PUBLIC, Namespace, NetworkedDaemon, World, knock, open_ones
from tests.support.places import TIME_FACTOR

RULES = egress.router_rules(*host.router_addresses(Config())).splitlines()
POLICIES = {
    "wide": ["0.0.0.0/0:80-81"],
    "whole": ["0.0.0.0/0:1-65535"],
    "exact": ["8.8.8.8/32:80", f"{HOST_PUBLIC}/32:80"],
    "private": ["10.0.0.0/8:80"],
    "flood": ["203.0.113.0/24:80"],
    "names": ["x.org:7"],
}
DENIED = "arn:sandboxd:network:::203.0.113.5:81"  # to "denied", whose role permits everything else
FLOWS = 900  # more than one environment may have or begin, fewer than it may have descriptors
FLOOD = f"""
import select, socket
kept, answered = [], 0
for batch in range({FLOWS} // 50):
    new = [socket.socket(socket.AF_INET, event["kind"]) for _ in range(50)]
    for one in new:
        one.setblocking(False)
        one.connect_ex(("203.0.113.5", 80))
        if event["kind"] == socket.SOCK_DGRAM:
            one.send(b"x")
    while new and (ready := select.select(new, [], [], 0.1)[0]):
        answered += len(ready)
        new = [one for one in new if one not in ready]
        kept += ready
    kept += new
result = answered == {FLOWS}
"""
TALK = """
import socket, time
result = []
try:
    with socket.create_connection(("x.org", 7), 1) as flow:
        flow.settimeout(0.5)
        for word in (b"before", b"after"):
            flow.sendall(word)
            result.append(flow.recv(100).decode())
            time.sleep(event["pause"])
except OSError:
    pass
"""
Daemon = NetworkedDaemon
Look = Callable[[Daemon], bool]


@pytest.fixture(scope="module")
def daemon(machine: None) -> Iterator[Daemon]:
    """One function for each policy, with a name server and a service behind the name."""
    with contextlib.closing(World()) as world, contextlib.ExitStack() as stack:
        with world.outside.entered():
            server = stack.enter_context(contextlib.closing(NameServer(PUBLIC[0])))
            echo = stack.enter_context(socketserver.ThreadingTCPServer((PUBLIC[1], 7), _Echo))
        server.records["x.org"] = [f"x.org 60 A {PUBLIC[1]}"]
        threading.Thread(target=echo.serve_forever, args=(0.05,)).start()
        stack.callback(echo.shutdown)
        daemon = stack.enter_context(NetworkedDaemon(world, **{"network.resolvers": [PUBLIC[0]]}))
        for name, rules in POLICIES.items():
            about = packages.load("evaluate" if name in ("flood", "names") else "prober")
            daemon.permit(daemon.deploy(about, name), *rules)
        _deploy_denied(daemon)
        assert _opens("wide", ("tcp", "8.8.8.8", 80))(daemon), "the router is there"
        yield daemon


def _deploy_denied(daemon: Daemon) -> None:
    role = f"arn:aws:iam::{daemon.admin('GET', '/status').json['AccountId']}:role/denied"
    rows = [
        {"Effect": "Allow", "Action": "sandboxd:Connect", "Resource": "*"},
        {"Effect": "Deny", "Action": "sandboxd:Connect", "Resource": DENIED},
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": rows})
    assert daemon.admin("POST", "/roles", {"RoleName": "denied"}).status == 201
    body = {"PolicyName": "network", "PolicyDocument": document}
    assert daemon.admin("PUT", "/roles/denied/policies", body).status == 204
    daemon.deploy(packages.load("prober"), "denied", Role=role)
    assert daemon.admin("PUT", "/functions/denied/policy", {}).status == 200
    daemon.wait_settled("denied")


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.settimeout(2 * TIME_FACTOR)  # a flow that is cut tells neither end
        with contextlib.suppress(OSError):
            while data := self.request.recv(100):
                self.request.sendall(data)


@contextlib.contextmanager
def left_out(daemon: Daemon, *parts: str) -> Iterator[None]:
    """The router without the rules that have one of these parts."""
    with daemon.in_router() as router:
        _load(router, [rule for rule in RULES if not any(part in rule for part in parts)])
        try:
            yield
        finally:
            _load(router, RULES)


def _load(router: Namespace, rules: list[str]) -> None:
    with router.entered():
        subprocess.run(["iptables-restore"], input="\n".join([*rules, ""]), text=True, check=True)


def _opens(function: str, *places: tuple[str, str, int]) -> Look:
    return lambda daemon: bool(open_ones(knock(daemon, function, *places)))


def _shuts(function: str, *places: tuple[str, str, int]) -> Look:
    return lambda daemon: not open_ones(knock(daemon, function, *places))


def _floods(kind: socket.SocketKind) -> Look:
    return lambda daemon: bool(daemon.call("flood", {"code": FLOOD, "kind": kind}))


def _is_silent(daemon: Daemon) -> bool:
    return knock(daemon, "exact", ("tcp", "8.8.8.8", 81)) == {"tcp 8.8.8.8 81": "silence"}


def _reaches_the_host(daemon: Daemon) -> bool:
    """With the host's own rule against it out of the way, which comes back within two seconds."""
    listed = daemon.world.server.run("iptables", "-t", "raw", "-S", "PREROUTING").splitlines()
    for rule in listed:
        if rule.startswith("-A") and daemon.uplink in rule:
            daemon.world.server.run("iptables", "-t", "raw", "-D", *rule.split()[1:])
    return _opens("wide", ("tcp", HOST_PUBLIC, 80))(daemon)


def _reaches_a_neighbour(daemon: Daemon) -> bool:
    address = _address(daemon, "whole")
    daemon.permit("private", f"{address}/32:8888")
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(daemon.invoke, "whole", {"serve": [address, 8888, 1.2 * TIME_FACTOR]})
        time.sleep(0.4 * TIME_FACTOR)
        knock(daemon, "private", ("udp", address, 8888))
        heard = serving.result().json
    daemon.permit("private", *POLICIES["private"])
    return [one for one in heard if one != address] != []


def _address(daemon: Daemon, function: str) -> str:
    """The address of a function's environment: a new one's, that was not there before."""
    everybody = set(daemon.inner_links().values())
    daemon.permit(function, *POLICIES[function])
    knock(daemon, function)
    return (set(daemon.inner_links().values()) - everybody).pop()


def _talk(daemon: Daemon, pause: float = 0) -> list[str]:
    answers: list[str] = daemon.call("names", {"code": TALK, "pause": pause})
    return answers


def _talks_no_more(daemon: Daemon) -> bool:
    return _talk(daemon) != ["before", "after"]


def _takes_over(daemon: Daemon) -> bool:
    """Whether a flow goes on when its address has become another environment's, which has another number."""
    with daemon.in_router() as router, ThreadPoolExecutor(1) as pool:
        talking = pool.submit(_talk, daemon, 0.6 * TIME_FACTOR)
        time.sleep(0.3 * TIME_FACTOR)
        (number,) = [row for row in router.run("ipset", "save", "numbers").splitlines() if row.startswith("add ")]
        router.run("ipset", "add", *number.split()[1:3], "skbmark", "0x77", "-exist")
        try:
            return talking.result() == ["before", "after"]
        finally:
            router.run("ipset", *number.split(), "-exist")


WIDE, EXACT = ("tcp", "203.0.113.5", 81), ("tcp", "8.8.8.8", 80)
LIMITS = ("connlimit", "hashlimit")
# By a part of the rule that only it has: what is seen without it, and what is left out both times beside it.
SEEN: dict[str, tuple[Look, tuple[str, ...]]] = {
    "FORWARD -m set --match-set numbers src -j names": (_takes_over, ()),
    "opened src,dst,dst -j SET": (_talks_no_more, ()),
    "-j CONNMARK --save-mark": (_talks_no_more, ()),
    "ESTABLISHED -j SET": (_talks_no_more, ()),
    "-j CONNMARK --restore-mark": (_talks_no_more, ()),
    "-i uplink -m conntrack": (_shuts("exact", EXACT), ()),
    "! -o uplink -j DROP": (_reaches_a_neighbour, ()),
    "connlimit": (_floods(socket.SOCK_DGRAM), ("hashlimit",)),
    "-p tcp -j decide": (_shuts("exact", EXACT), ()),
    "-p udp -j decide": (_shuts("exact", ("udp", "8.8.8.8", 80)), ()),
    "-j REJECT": (_is_silent, ()),
    "denied src,dst,dst -j RETURN": (_opens("denied", WIDE), ()),
    "exact src,dst,dst -g": (_shuts("exact", EXACT), ()),
    "host dst -j RETURN": (_reaches_the_host, ()),
    "named src,dst,dst -g": (_shuts("private", ("tcp", "10.20.0.5", 80)), ()),
    "closed dst -j RETURN": (_opens("wide", ("tcp", "169.254.169.254", 80), ("tcp", "10.21.0.5", 80)), ()),
    "public src,dst,dst -g": (_shuts("wide", WIDE), ()),
    "anywhere src -g": (_shuts("whole", WIDE), ()),
    "opened src,dst,dst -g": (_talks_no_more, ()),
    "--mark 0 -j ACCEPT": (_talks_no_more, ()),
    "hashlimit": (_floods(socket.SOCK_STREAM), ("connlimit",)),
    "-A slowly -j ACCEPT": (_shuts("exact", EXACT), ()),
    "exact src,dst,dst -j SNAT": (_shuts("exact", ("tcp", HOST_PUBLIC, 80)), ()),
    "-o uplink -j SNAT": (_shuts("wide", WIDE), ()),
}
# What no flow comes of: the host lets nothing pass that has not the router's own address, and only NAT gives it that.
SECOND_LOCKS = ["--ctstate INVALID -j DROP"]


@pytest.mark.parametrize("rule", SEEN)
def test_a_rule_that_is_left_out_is_missed(daemon: Daemon, rule: str) -> None:
    seen, beside = SEEN[rule]
    with left_out(daemon, *beside):
        assert not seen(daemon)
    with left_out(daemon, rule, *beside):
        assert seen(daemon)


def test_every_rule_is_here() -> None:
    for rule in RULES:
        if rule.startswith("-A"):
            assert len([part for part in (*SEEN, *SECOND_LOCKS) if part in rule]) == 1, rule


@pytest.mark.parametrize(
    ("name", "seen"),
    [("closed", _opens("wide", ("tcp", "169.254.169.254", 80))), ("host", _reaches_the_host)],
)
def test_a_set_that_is_empty_is_missed(daemon: Daemon, name: str, seen: Look) -> None:
    assert not seen(daemon)
    with daemon.in_router() as router:
        entries = [row for row in router.run("ipset", "save", name).splitlines() if row.startswith("add ")]
        router.run("ipset", "flush", name)
        try:
            assert seen(daemon)
        finally:
            for entry in entries:
                router.run("ipset", *entry.split())
