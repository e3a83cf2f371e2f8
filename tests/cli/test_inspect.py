"""`sandboxd inspect` of real environments: as they are meant to be, and with steps of the isolation left out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.network import NetworkedDaemon, World
from tests.support.patched import launcher

LEFT_OUT = {
    "FIRST: cgroup namespace": ("namespaces", "runtime: cgroup"),
    "ids: no supplementary groups": ("ids", "runtime: groups"),
    "DROP: seccomp": ("privilege", "runtime: seccomp"),
    "LAST: open files": ("rlimits", "pid 1: open files"),
    "out-of-memory rank": ("rlimits", "runtime: oom_score_adj"),
    "proc: masks": ("mounts", "/proc/kallsyms"),
    "image and code: nodev": ("mounts", "/var/task"),
    "image: an overlay of its own": ("mounts", "/"),
    "tmp volume: nosuid, nodev": ("mounts", "/tmp"),
    "cgroup: pids": ("cgroup", "pids.max"),
}


@pytest.fixture
def daemon(_daemon: Daemon) -> Daemon:
    """The one that most tests share, not the answering machine of the other tests of the command line."""
    return _daemon


def run(daemon: Daemon, function: str, code: str = "") -> str:
    """The id of the function's environment, after a call."""
    daemon.call(function, {"code": code})
    return str(daemon.environments(function)[0]["Id"])


def look(daemon: Daemon, environment: str) -> tuple[int, list[dict[str, Any]]]:
    done = daemon.cli("inspect", environment, "--output", "json")
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)["Findings"]


def test_an_environment_is_as_it_is_meant_to_be(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("evaluate")
    # What a function may do by itself is no fault: children, files, sockets, lower limits.
    code = """
import os, resource, socket, subprocess
os.kept = [
    subprocess.Popen(["/usr/bin/sleep", "60"]), open("/tmp/x", "w"), open("/etc/passwd"), socket.socket(),
    os.memfd_create("x"),
]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
"""
    code, findings = look(daemon, run(daemon, name, code))
    assert (code, [row for row in findings if not row["ok"]]) == (0, [])
    parts = {row["part"] for row in findings}
    assert parts == {"namespaces", "ids", "privilege", "rlimits", "mounts", "cgroup", "network", "descriptors"}
    named = {row["name"] for row in findings}
    assert {"pid 1: user", "runtime: CapBnd", "pids.max", "/tmp: bytes", "links"} <= named
    assert [name for name in named if name.startswith("process ") and name.endswith(": seccomp")]


def test_it_shows_a_table_with_verdicts(daemon: Daemon, deployed: Deployed) -> None:
    done = daemon.cli("inspect", run(daemon, deployed("evaluate")))
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["PART", "WHAT", "FOUND", "VERDICT"] and done.returncode == 0
    assert all(row.endswith("  ok") for row in rows) and len(rows) > 50


def test_there_is_no_such_environment(daemon: Daemon) -> None:
    done = daemon.cli("inspect", "4000000000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "sandboxd: inspect: there is no environment 4000000000; "
        f"sandboxd ps lists those of instance '{daemon.instance}'\n"
    )


def test_whatever_is_left_out_is_shown(machine: None) -> None:
    daemon = Daemon()
    also = "apart from groups: the builder has one"
    daemon.launcher = launcher("tests.escape.left_out:leave_out", "; ".join([*LEFT_OUT, also]))
    with daemon:
        name = daemon.deploy(packages.load("evaluate"))
        code, findings = look(daemon, run(daemon, name))
        assert code == 1
        wrong = {(row["part"], row["name"]) for row in findings if not row["ok"]}
        assert wrong >= set(LEFT_OUT.values())
        assert all(row["meant"] for row in findings if not row["ok"])
        assert "not as meant: mode 2" in daemon.cli("inspect", str(daemon.environments()[0]["Id"])).stdout


def test_permissions_are_shown(machine: None) -> None:
    with contextlib.closing(World()) as world, NetworkedDaemon(world) as daemon:
        name = daemon.deploy(packages.load("evaluate"))
        daemon.permit(name, "8.8.8.8/32:80", "203.0.113.0/24:80-81", "example.org:443")
        environment = run(daemon, name)
        with world.server.entered():
            code, findings = look(daemon, environment)
        assert (code, [row for row in findings if not row["ok"]]) == (0, [])
        found = {row["name"]: row["found"] for row in findings if row["part"] == "network"}
        assert found["links"] == "eth0, lo"
        address = found["addresses"]
        entries = {row["found"] for row in findings if row["name"] == "permission"}
        assert entries >= {f"exact {address},tcp:80,8.8.8.8", f"public {address},udp:81,203.0.113.0/24"}
        assert len(entries) == 7 and f"numbers {address}" in entries, entries
