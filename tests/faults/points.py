"""Where a room can be held: every step of the visible lists, and what the rooms do between them.

Runs inside builder and service (tests.support.patched), which then share one small file with the test as memory: the
test arms a point by its name, whoever comes to it waits there, and the test kills whom it likes before it lets go.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prctl

IDLE, ARMED, HELD = 0, 1, 2
SIZE, NAME = 4096, 1  # of the file, in bytes: the state, then the name that it is about
HOLDS = "held-by-a-test"  # what the process calls itself meanwhile; its number is that of another pid namespace
_PATIENCE_SECONDS = 30

_memory: mmap.mmap
_role = "builder"  # forked children have roles of their own


def attach(path: Path) -> mmap.mmap:
    """The memory that the test and the rooms share."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, SIZE)
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)


def at(point: str) -> None:
    """Wait here if the test says so."""
    if _memory[0] != ARMED or _memory[NAME:].split(b"\0", 1)[0] != point.encode():
        return
    _memory[0] = HELD
    name = _rename(HOLDS)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _memory[0] == HELD and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            time.sleep(0.001)
    _rename(name)


def _rename(name: str) -> str:
    """Service and extractor may not: their filters know no prctl, nor the extractor's a way to sleep."""
    try:
        before = prctl.get_name()
        prctl.set_name(name)
    except OSError:
        return ""
    return str(before)


def arm(room: str, path: str) -> None:
    """Put the points into a room that is about to begin."""
    global _memory, _role
    _memory = attach(Path(path))
    if room == "sandboxd.service":
        _role = "service"
        _arm_service()
    else:
        _arm_builder()
        _arm_children()


def _before(owner: Any, name: str, point: str, after: str = "") -> None:
    """A point before a function's work, and perhaps one after it."""
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def held(*given: Any, **named: Any) -> Any:
        at(f"{_role}: {point}")
        result = original(*given, **named)
        if after:
            at(f"{_role}: {after}")
        return result

    setattr(owner, name, staticmethod(held) if isinstance(owner.__dict__.get(name), staticmethod) else held)


def _in_role(owner: Any, name: str, role: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def played(*given: Any) -> Any:
        global _role
        _role = role
        at(f"{role}: start")
        return original(*given)

    setattr(owner, name, played)


def _arm_builder() -> None:
    from sandboxd.builder import code, demand, environment, extractor, leftovers, packages, rootfs, seccomp, server
    from sandboxd.builder.cgroups import Cgroup, Cgroups
    from sandboxd.builder.network import Router
    from sandboxd.builder.steps import step
    from sandboxd.builder.volumes import Volumes

    demand.MOST = demand.LEAST  # what is there at rest shall not depend on what was asked for before
    original = step.__enter__

    def enter(self: Any) -> None:
        at(f"builder: step {self._name}")
        original(self)

    step.__enter__ = enter  # type: ignore[method-assign]
    for owner, name, point in (
        (leftovers, "remove", "start: leftovers"),
        (Cgroups, "__init__", "start: cgroups"),
        (Router, "__init__", "start: router"),
        (Volumes, "__init__", "start: volumes"),
        (seccomp, "compile_profile", "start: seccomp"),
        (rootfs, "prepare_builder_root", "start: root"),
        (server.Server, "run", "start: serve"),
        (server.Server, "_answer_bind", "bind asked"),
        (server.Server, "_answer_bind_with_stem", "bind stem"),
        (server.Server, "_answer_init_ended", "init ended"),
        (environment.Host, "_admit", "ids mapped"),
        (environment.Host, "boot", "stem boots"),
        (server.Server, "_answer_destroy", "destroy asked"),
        (Cgroup, "kill", "group is killed"),
        (environment.Host, "remove", "remains are removed"),
        (packages.Packages, "_unpack", "unpack asked"),
        (packages.Packages, "_on_unpacked", "unpacked"),
        (packages.Packages, "answer_remove", "code removed"),
    ):
        _before(owner, name, point)
    _before(server.Server, "_say_bound", "bound", "bound is said")
    _before(code, "_seal", "seal", "sealed")
    _before(code, "remove_tree", "tree is removed")
    _before(code, "_extract", "directory made")
    _before(extractor, "_write_file", "write file", "file written")
    _let_the_extractor_wait()


def _let_the_extractor_wait() -> None:
    """What `at` calls is not in the extractor's filter."""
    from sandboxd.builder import seccomp

    original = seccomp.profile

    def wider(name: str = seccomp.DEFAULT_PROFILE) -> dict[str, Any]:
        document = original(name)
        if name == "extractor.json":
            document["syscalls"].append({"names": ["prctl", "clock_nanosleep"], "action": "SCMP_ACT_ALLOW"})
        return document

    seccomp.profile = wider


def _arm_children() -> None:
    from sandboxd.builder import code, init, volumes

    class Reporting(init._reporting):
        """Every step is announced by its name."""

        @property
        def step(self) -> str:
            return self._step

        @step.setter
        def step(self, name: str) -> None:
            self._step = name
            if name:
                at(f"{_role}: {name}")

    init._reporting = Reporting  # type: ignore[misc]
    for owner, name, role in (
        (init, "run_maker", "maker"),
        (init, "_run_pid1", "pid 1"),
        (init, "_run_runtime", "runtime"),
        (code, "run_unpacker", "unpacker"),
        (code, "_confine", "extractor"),
        (volumes, "_make_templates", "templates"),
    ):
        _in_role(owner, name, role)
    subprocess.run = functools.partial(subprocess.run, preexec_fn=lambda: at("templates: mke2fs"))


def _arm_service() -> None:
    from sandboxd.api.functions import FunctionsApi
    from sandboxd.environment.environment import Environment
    from sandboxd.privsep.client import Client
    from sandboxd.scheduler.scheduler import Scheduler
    from sandboxd.store.code import Code
    from sandboxd.store.database import Database
    from sandboxd.store.store import Stores

    go = Environment._go

    def going(self: Environment, target: Any) -> None:
        go(self, target)
        at(f"service: environment {target.name}")

    Environment._go = going  # type: ignore[method-assign]
    transaction = Database._transaction

    def committing(self: Database, work: Callable[[Any], Any]) -> Any:
        def held(connection: Any) -> Any:
            at("service: transaction begun")
            result = work(connection)
            at("service: before commit")
            return result

        result = transaction(self, held)
        at("service: after commit")
        return result

    Database._transaction = committing  # type: ignore[method-assign]
    for owner, name, point in (
        (Client, "ready", "start: builder"),
        (Stores, "_recover", "start: store"),
        (Scheduler, "warm", "start: scheduler"),
        (Client, "bind", "ask to bind"),
        (Client, "destroy", "ask to destroy"),
        (Client, "unpack", "ask to unpack"),
        (Client, "remove_code", "ask to remove code"),
        (Environment, "_conclude", "answer"),
        (FunctionsApi, "_settle", "settle"),
    ):
        _before(owner, name, point)
    _before(Code, "_write", "write zip", "zip written")
