"""Two roads to an environment: a stem that is bound, and boot and bind in one. No function can tell which."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import Daemon
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
OWN = {"AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "_X_AMZN_TRACE_ID"}


def look(daemon: Daemon, name: str) -> dict[str, Any]:
    seen: dict[str, Any] = daemon.call(name, {"code": LOOK})
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
