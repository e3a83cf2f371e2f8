"""Two roads to an environment: a stem that is bound, and boot and bind in one. No function can tell which."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.network import HOST_WAN, NetworkedDaemon, World
from tests.support.places import TIME_FACTOR

# What the loader gave the process at exec: the one place where the roads show.
LOOK = """
import os, re, sys
mounts = [line.split() for line in open('/proc/self/mountinfo')]
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status'))
result = {
    'at_exec': open('/proc/self/environ').read(),
    'environ': dict(os.environ),
    'path': sys.path,
    'modules': sorted(sys.modules),
    'flags': str(sys.flags),
    'cwd': os.getcwd(),
    'cmdline': open('/proc/self/cmdline').read(),
    'descriptors': {n: re.sub('[0-9]+', 'N', os.readlink(f'/proc/self/fd/{n}')) for n in os.listdir('/proc/self/fd')
                    if int(n) < 3},
    'mounts': sorted([m[4], m[5], m[m.index('-') + 1]] for m in mounts),  # their order is that of their making
    'limits': open('/proc/self/limits').read(),
    'cgroup': open('/proc/self/cgroup').read(),
    'status': {key: status[key].strip() for key in (
        'Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp',
        'SigIgn', 'SigBlk', 'Cpus_allowed', 'Umask')},
    'files': [sorted(os.listdir(place)) for place in ('/var/task', '/opt')],
    'writable': [p for p in ('/', '/tmp', '/opt', '/var/task', '/dev', '/proc/sys/kernel') if os.access(p, os.W_OK)],
    'session': [os.getsid(0) == os.getpid(), os.uname().nodename],
}
"""
NETWORK = """
import errno, fcntl, os, socket, struct

def table(name, *columns):
    rows = [row.split() for row in open(f'/proc/self/net/{name}').readlines()[1:]]
    return sorted([row[column] for column in columns] for row in rows)

def asked(link, request):  # the first bytes of what the kernel says of a link: flags, mask or MTU
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return fcntl.ioctl(control, request, struct.pack('16s24x', link.encode()))[16:24].hex()

def knock(place):
    try:
        with socket.create_connection(place, 5) as connection:
            return connection.recv(100).decode() if place[1] == 80 else 'open'
    except OSError as error:
        return errno.errorcode[error.errno]

links = [name for _, name in socket.if_nameindex()]
linked = len(links) > 1
result |= {
    'reached': [knock(place) for place in (
        ('8.8.8.8', 80), ('203.0.113.1', 80), ('169.254.169.254', 80), ('127.0.0.53', 53), ('127.0.0.1', 9002))],
    'links': [links, *([asked('eth0', request) for request in (0x8913, 0x891B, 0x8921)] if linked else [])],
    'routes': table('route', 0, 1, 2, 3, 6, 7, 8),
    'without IPv6': sorted(row.split()[-1] for row in open('/proc/self/net/if_inet6')),
    'listening': [row for row in table('tcp', 1, 3, 7) if row[1] == '0A'],
    'datagrams': table('udp', 1, 3, 7),
    'resolver': open('/etc/resolv.conf').read() + open('/etc/hosts').read(),
    'can use': {name: os.access(name, os.W_OK) for name in ('/proc/sys/net', '/proc/self/net')},
}
"""
POLICIES = {
    "no network": {"AllowEgress": []},
    "networks": {"AllowEgress": ["0.0.0.0/0:80"]},
    "names": {"AllowEgress": ["example.org:80"]},
    "the door for Invoke": {"AllowEgress": [], "AllowInvoke": True},
    "all of them": {"AllowEgress": ["0.0.0.0/0:80", "*.example.org:443"], "AllowInvoke": True},
}
OWN = {"AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "_X_AMZN_TRACE_ID"}


def look(daemon: Daemon, name: str, more: str = "") -> dict[str, Any]:
    seen: dict[str, Any] = daemon.call(name, {"code": LOOK + more})
    seen["by_stem"] = "_HANDLER=" not in seen.pop("at_exec")
    for key in OWN:
        seen["environ"].pop(key, None)
    return seen


@pytest.fixture(params=[False, True], ids=["plain", "with layers"])
def layers(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[list[str]]:
    """The layers of both functions: none, and one."""
    if not request.param:
        yield []
        return
    client, package = daemon.lambda_client, packages.zip_of({"python/tool.py": "", "lib/nothing": ""})
    arn = client.publish_layer_version(LayerName="roads", Content={"ZipFile": package})["LayerVersionArn"]
    yield [arn]
    client.delete_layer_version(LayerName="roads", VersionNumber=int(arn.rpartition(":")[2]))


@pytest.fixture
def by_stem(daemon: Daemon, deployed: Deployed, layers: list[str]) -> dict[str, Any]:
    """What a function sees that was bound to a stem; they are made again a moment after each use."""
    deadline = time.monotonic() + 30 * TIME_FACTOR
    while time.monotonic() < deadline:
        seen = look(daemon, deployed("evaluate", Layers=layers))
        if seen["by_stem"]:
            return seen
        time.sleep(0.3)
    raise AssertionError("no environment came from a stem")


def test_both_roads_give_the_same_environment(
    daemon: Daemon, deployed: Deployed, layers: list[str], by_stem: dict[str, Any]
) -> None:
    # A variable that the interpreter reads at exec leaves only the other road.
    other = look(daemon, deployed("evaluate", Environment={"Variables": {"PYTHONNOTHING": "1"}}, Layers=layers))
    assert not other.pop("by_stem") and by_stem.pop("by_stem")
    assert other["environ"].pop("PYTHONNOTHING") == "1"
    for what in by_stem:
        assert other[what] == by_stem[what], what


def test_another_size_of_tmp_takes_the_other_road(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("evaluate", EphemeralStorage={"Size": 1024})
    assert not look(daemon, name)["by_stem"]
    free = daemon.call(name, {"code": "import os; s = os.statvfs('/tmp'); result = s.f_bavail * s.f_frsize"})
    assert 900 << 20 < free <= 1024 << 20


def test_variables_of_every_kind_reach_a_stem(daemon: Daemon, deployed: Deployed) -> None:
    variables = {"PLAIN": "x", "EMPTY": "", "WORDS": "grüß dich = 1", "LINES": "a\nb"}
    environ = look(daemon, deployed("evaluate", Environment={"Variables": variables}))["environ"]
    assert {key: environ[key] for key in variables} == variables


@pytest.fixture(scope="module")
def networked(world: World) -> Iterator[NetworkedDaemon]:
    with NetworkedDaemon(world) as made:
        yield made
        assert "Traceback" not in made.log(), made.log()


def looked(daemon: NetworkedDaemon, name: str, policy: dict[str, Any], **members: Any) -> dict[str, Any]:
    """What a function with this policy sees in its first invocation."""
    daemon.deploy(packages.load("evaluate"), name, **members)
    assert daemon.admin("PUT", f"/functions/{name}/policy", policy).status == 200
    daemon.wait_settled(name)
    return look(daemon, name, NETWORK)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
@pytest.mark.parametrize("what", POLICIES)
def test_both_roads_lead_out_alike(networked: NetworkedDaemon, what: str) -> None:
    policy, short = POLICIES[what], what.replace(" ", "-")
    deadline, number = time.monotonic() + 30 * TIME_FACTOR, 0
    while not (seen := looked(networked, f"{short}-{number}", policy))["by_stem"]:
        assert time.monotonic() < deadline, "no environment came from a stem"
        number += 1
        time.sleep(0.3)
    other = looked(networked, f"{short}-other", policy, Environment={"Variables": {"PYTHONNOTHING": "1"}})
    assert not other.pop("by_stem") and seen.pop("by_stem") and other["environ"].pop("PYTHONNOTHING")
    for one in seen:
        assert other[one] == seen[one], one
    rules, invoke = policy["AllowEgress"], "AllowInvoke" in policy
    direct, named = "0.0.0.0/0:80" in rules, any("example" in rule for rule in rules)
    refused = "EHOSTUNREACH" if rules else "ENETUNREACH"
    assert seen["reached"] == [
        f"8.8.8.8:80 to {HOST_WAN}" if direct else refused, refused, refused,
        "open" if named else "ECONNREFUSED", "open" if invoke else "ECONNREFUSED",
    ]  # fmt: skip
    assert seen["links"][0] == (["lo", "eth0"] if rules else ["lo"])


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
def test_a_stem_has_no_link_before_it_has_a_function(networked: NetworkedDaemon) -> None:
    """Nor a door but its Runtime API's."""
    looked(networked, "linked", POLICIES["all of them"])
    builder = networked.room("builder")
    functions = sum(row["State"].upper() != "ENDING" for row in networked.environments())

    def networks() -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for process in builder.children(recursive=True):
            with contextlib.suppress(OSError):
                if "catatonit" in Path(f"/proc/{process.pid}/comm").read_text():
                    rows = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
                    listening = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
                    found[process.pid] = {row.split(":")[0].strip() for row in rows} | {
                        str(int(row.split()[1].split(":")[1], 16)) for row in listening if row.split()[3] == "0A"
                    }
        return found

    eventually(lambda: len(networks()) > functions)
    seen, plain = networks(), sum(row["Function"].startswith("no-network") for row in networked.environments())
    assert sum(one == {"lo", "9001"} for one in seen.values()) == len(seen) - functions + plain
    assert sum("eth0" in one for one in seen.values()) == len(networked.inner_links()) > 0
