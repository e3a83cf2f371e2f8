"""kill -9 of every process at every step: callers hear of it, the daemon serves again, and nothing is lost or left."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import pytest

from sandboxd.builder import init
from tests.faults.harness import ANSWER_SECONDS, ROOMS, Faults, eventually, held_at
from tests.support.inventory import Inventory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")


@dataclass(frozen=True)
class Case:
    """A point, what leads there (a method of Faults), and who can be killed while somebody stands at it."""

    point: str
    trigger: str
    processes: tuple[str, ...]

    def __str__(self) -> str:
        return self.point.replace(": ", "-").replace(" ", "_")


def _steps(role: str, *lists: list[tuple[str, object]]) -> list[str]:
    return [f"{role}: {name}" for steps in lists for name, _ in steps]


CHILDREN = [
    *_steps("maker", [("start", None)], init.FIRST, [("fork", None)]),
    *_steps("pid 1", [("start", None)], init.AHEAD, [("plan", None)], init.SETUP, init.DROP, init.LAST),
    "pid 1: exec of init",
    *_steps("runtime", [("start", None)], init.DROP, [("plan", None)], init.LAST, [("exec of runtime", None)]),
]
BINDING = [
    *_steps("builder", [(f"step {n}", None) for n in ("cgroup", "tmp volume", "fork", "image", "dev", "log pipe")]),
    *_steps("builder", [(f"step {n}", None) for n in ("code", "orders")]),
    *_steps("builder", [(n, None) for n in ("bind asked", "ids mapped", "stem boots", "bound")]),
    "builder: bound is said", "builder: init ended",
    "service: ask to bind", "service: environment STARTING", "service: environment INIT",
]  # fmt: skip
INVOKING = [f"service: {n}" for n in ("environment IDLE", "environment BUSY", "environment ANSWERED", "answer")]
ENDING = [
    "builder: destroy asked", "builder: group is killed", "builder: remains are removed",
    "service: environment ENDING", "service: ask to destroy", "service: environment DEAD",
]  # fmt: skip
PUBLISHING = [
    "service: write zip", "service: zip written", "service: ask to unpack", "builder: unpack asked",
    "builder: unpacked", "service: transaction begun", "service: before commit", "service: after commit",
    "service: settle",
]  # fmt: skip
UNPACKING = [f"unpacker: {n}" for n in ("start", "directory made", "seal", "sealed", "tree is removed")]
EXTRACTING = [f"extractor: {n}" for n in ("start", "write file", "file written")]
DELETING = ["service: ask to remove code", "builder: code removed"]
STARTING = [
    *(f"builder: start: {n}" for n in ("leftovers", "cgroups", "router", "volumes", "seccomp", "root", "serve")),
    *(f"service: start: {n}" for n in ("builder", "store", "scheduler")),
]


def _room(point: str) -> tuple[str, ...]:
    """The rooms, the one that stands there first."""
    return tuple(sorted(ROOMS, key=lambda room: not point.startswith(room)))


CASES = [
    *(Case(point, "cold", ("held", *ROOMS)) for point in CHILDREN),
    *(Case(point, "cold", _room(point)) for point in BINDING),
    Case("builder: bind stem", "stem", _room("builder")),
    *(Case(f"builder: {n}", "stem", ("zygote", "mapper", "builder")) for n in ("step fork", "stem boots", "bound")),
    *(Case(point, "warm", (*_room(point), "pid 1", "runtime")) for point in INVOKING),
    Case("service: environment FROZEN", "warm", _room("service")),
    *(Case(point, "retire", _room(point)) for point in ENDING),
    *(Case(point, "restart", _room(point)) for point in STARTING),
    *(Case(point, "publish", _room(point)) for point in PUBLISHING),
    *(Case(point, "publish", ("held", *ROOMS)) for point in UNPACKING + EXTRACTING),
    *(Case(point, "delete", _room(point)) for point in DELETING),
    Case("builder: tree is removed", "delete", ("held", *ROOMS)),
]  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """By default one process or two at each point, taking turns; on demand every process."""
    if "case" not in metafunc.fixturenames:
        return
    every = metafunc.config.getoption("--every-fault", default=False)
    rows = [
        (case, process)
        for number, case in enumerate(CASES)
        for process in case.processes
        if every or process in (case.processes[0], case.processes[number // 6 % 3] if number % 6 == 0 else "")
    ]
    metafunc.parametrize(("case", "process"), rows, ids=[f"{case}-{process}" for case, process in rows])


def test_killed_at(faults: Faults, case: Case, process: str) -> None:
    faults.begin_case()
    if case.trigger == "stem":
        faults.wait_ahead()
    if case.trigger in ("retire", "warm"):
        faults.cold()[1].result(ANSWER_SECONDS)
    if case.trigger == "delete":
        assert faults.publish()[0].result(ANSWER_SECONDS).answer.status == 201
        faults.daemon.wait_settled("new")
    with held_at(faults, case.point):
        calls = getattr(faults, case.trigger)()
        faults.wait_held()
        killed = time.monotonic()
        faults.kill(case.point, process)
    for call in calls:
        call.result(ANSWER_SECONDS * 2).check()
    faults.serves_again(process, killed)
    faults.is_whole()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_stop_without_a_builder_leaves_nothing(faults: Faults, when: str) -> None:
    """kill -9 of the builder just before SIGTERM, or while everything comes to its end."""
    keeper, builder = faults.find("keeper"), faults.find("builder")
    first, second = (keeper, builder) if when == "before" else (builder, keeper)
    first.suspend()
    second.send_signal(signal.SIGKILL if second == builder else signal.SIGTERM)
    if when == "before":
        keeper.terminate()
        keeper.resume()
    else:
        eventually(lambda: not faults._named("sandboxd: service"))
        builder.kill()
    assert faults.daemon.stop() == 0
    assert not [name for name in Inventory.take().cgroups if faults.daemon.instance in name]
    faults.daemon.start()
    faults.is_whole()
