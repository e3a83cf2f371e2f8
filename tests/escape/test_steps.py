"""Every step of the isolation is missed when it is left out: what it prevents is tried with and without it."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from collections.abc import Iterator

import pytest

from sandboxd.builder import cgroups, environment, init, linux, namespaces
from tests.escape import left_out
from tests.escape.steps import STEPS
from tests.support import images, packages
from tests.support.daemon import Daemon
from tests.support.network import NetworkedDaemon, World
from tests.support.patched import launcher
from tests.support.places import REPOSITORY

PIDS = 48  # a fork bomb small enough for a test
SETTINGS = {"limits__pids": PIDS}


@contextlib.contextmanager
def _daemon(without: str = "", world: World | None = None, *, functions: bool = True) -> Iterator[Daemon]:
    daemon = NetworkedDaemon(world, **SETTINGS) if world else Daemon(**SETTINGS)
    if without:
        daemon.launcher = launcher("tests.escape.left_out:leave_out", without)
    daemon.data_dir.mkdir(mode=0o755)
    (daemon.data_dir / "images").symlink_to(images.built())  # what many daemons only read need not be copied for each
    with daemon:
        for name, memory in (("evaluate", 256), ("other", 128), ("small", 128)) if functions else ():
            daemon.deploy(packages.load("evaluate"), name, MemorySize=memory)
        yield daemon
        if without in ("FIRST: cgroup", "cgroup: kill"):  # what no group ends goes with the pid namespace
            daemon.kill("keeper")


@pytest.fixture(scope="module")
def whole(machine: None) -> Iterator[Daemon]:
    """A daemon that leaves nothing out."""
    host = os.uname()
    with _daemon() as daemon:
        yield daemon
    assert os.uname() == host


@pytest.fixture(scope="module")
def world(machine: None) -> Iterator[World]:
    """Networks with listeners, for the steps that need some."""
    with contextlib.closing(World()) as world:
        yield world


@pytest.fixture(scope="module")
def whole_networked(world: World) -> Iterator[Daemon]:
    """A daemon in that world that leaves nothing out."""
    with _daemon(world=world) as daemon:
        yield daemon


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_left_out_is_missed(name: str, request: pytest.FixtureRequest) -> None:
    step = STEPS[name]
    world = request.getfixturevalue("world") if step.networked else None
    own = not step.attack
    if step.look is not None and step.beside:
        with _daemon(step.beside, world, functions=own) as daemon:
            assert not step.look(daemon)
    elif step.seen is not None:
        assert not step.seen(request.getfixturevalue("whole_networked" if world else "whole"))
    with _daemon("; ".join(filter(None, (name, step.beside))), world, functions=own) as daemon:
        if step.look is not None:
            assert any(step.look(daemon) for _ in range(3))  # what is made ahead may end under a look
        else:
            answer = daemon.invoke("evaluate", {"code": ""})
            assert answer.status >= 500 and step.fails_at in answer.message, (answer, daemon.log())


# Not left out as a whole, because on the host itself the steps behind it would do harm: one part at a time.
BY_PARTS = {"FIRST: namespaces": "namespaces: "}
# What the builder does for an environment that is no isolation: without it, it has no program, no log, no orders.
NO_ISOLATION = {"fork", "log pipe", "orders"}
HOST_SIDE = {  # how environment.py names its steps, and how the tests of each part here begin
    "cgroup": "cgroup: ", "tmp volume": "tmp volume: ", "image": "image", "code": "code", "dev": "dev: ",
    "layers": "image and code: ",  # of which they have the mount's flags
    "facts": "proc: facts", "clocks": "clocks: ", "network": "network: ",
}  # fmt: skip


def test_every_step_is_here() -> None:
    lists = {name for name, value in vars(init).items() if isinstance(value, list) and name.isupper()}
    assert lists == set(left_out.LISTS)
    named = {f"{name}: {step}" for name, steps in left_out.LISTS.items() for step, _ in steps}
    assert named - set(BY_PARTS) <= set(STEPS)
    patches = {name for name in left_out.PATCHES if not name.startswith("apart from ")}
    assert set(STEPS) == named - set(BY_PARTS) | patches
    flags = {
        name
        for name in vars(linux)
        if name.startswith("CLONE_NEW") and getattr(linux, name) & namespaces.FIRST_NAMESPACES
    }
    assert {f"namespaces: {flag}" for flag in flags} <= set(STEPS)


# Files of a group that no step leaves out, and why.
NO_LIMIT = {
    "cpu.weight": "test_cgroups.py: test_where_both_want_it_cpu_goes_by_memory", "cpu.shares": "on v1",
    "cpu.cfs_period_us": "what the quota is counted in", "cpu.max.burst": "gives", "cpu.cfs_burst_us": "on v1",
    "memory.oom.group": "what the rest of a function does is its own business; v1 has none",
}  # fmt: skip


def test_every_limit_is_here() -> None:
    group = cgroups.Cgroup
    sources = "".join(inspect.getsource(one) for one in (group.limit, group._limit_memory, group.limit_cpu))
    written = set(re.findall(r'"((?:memory|cpu|pids)\.[a-z_.]+)"', sources))
    assert written == {name for names in left_out.LIMITS.values() for name in names} | set(NO_LIMIT)


def test_every_step_of_the_host_side_is_here() -> None:
    """A new one in environment.py fails this test until it has a test of its own."""
    named = set(re.findall(r'with step\("([^"]+)"\)', inspect.getsource(environment)))
    assert named - NO_ISOLATION == set(HOST_SIDE)
    for begin in HOST_SIDE.values():
        assert [name for name in STEPS if name.startswith(begin)], begin


def test_the_documentation_has_every_step() -> None:
    """docs/security.md has these rows, in this order; where it differs, they are to be copied from here."""
    rows = [f"| {name} | {step} | {step.test} |" for name, step in STEPS.items()]
    document = (REPOSITORY / "docs/security.md").read_text()
    table = document.partition("| step | left out | fails |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == rows
