"""What runs out, hangs or jumps: callers hear an error or their answer, and afterwards all is as before."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.faults import clock
from tests.faults.harness import ANSWER_SECONDS, HITS, ROOMS, Call, Faults, eventually, running
from tests.support import packages, patched
from tests.support.daemon import Daemon
from tests.support.inventory import open_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")


class Limits:
    """A group of ours that the daemon lives in, on whichever hierarchy has the controllers."""

    def __init__(self) -> None:
        top = Path("/sys/fs/cgroup")
        self._groups = {
            kind: (top / kind if (top / kind / "cgroup.procs").exists() else top) / f"sandboxd-faults-{os.getpid()}"
            for kind in ("memory", "pids")
        }
        for group in self._groups.values():
            group.mkdir(exist_ok=True)
        memory = self._groups["memory"]
        self._v2 = (memory / "memory.events").exists()
        if (
            not (self._v2 or (memory / "memory.oom_control").exists())
            or not (self._groups["pids"] / "pids.max").exists()
        ):
            self.close()
            pytest.skip("the controllers are not given to new groups")

    @property
    def enter(self) -> list[str]:
        """A command before a command, which then runs in the group."""
        script = 'for group in "$1" "$2"; do echo $$ > "$group/cgroup.procs"; done; shift 2; exec "$@"'
        return ["sh", "-c", script, "sh", *map(str, self._groups.values())]

    @property
    def events(self) -> Path:
        """The file that tells of kills for memory."""
        return self._groups["memory"] / ("memory.events" if self._v2 else "memory.oom_control")

    @property
    def kills(self) -> str:
        """What it says of them now."""
        return next(line for line in self.events.read_text().splitlines() if line.startswith("oom_kill "))

    def used(self, kind: str) -> int:
        name = {"pids": "pids.current", "memory": "memory.current" if self._v2 else "memory.usage_in_bytes"}[kind]
        return int((self._groups[kind] / name).read_text())

    @contextlib.contextmanager
    def set(self, kind: str, value: int) -> Iterator[None]:
        """Limit the group meanwhile."""
        v1 = kind == "memory" and not self._v2
        file = self._groups[kind] / ("memory.limit_in_bytes" if v1 else f"{kind}.max")
        file.write_text(str(value))
        try:
            yield
        finally:
            file.write_text("-1" if v1 else "max")

    def close(self) -> None:
        for group in set(self._groups.values()):
            eventually(lambda group=group: not (group / "cgroup.procs").read_text())
            group.rmdir()


@pytest.fixture(scope="module")
def limits(machine: None) -> Iterator[Limits]:
    made = Limits()
    yield made
    made.close()


@pytest.fixture(scope="module")
def faults(alone: None, limits: Limits) -> Iterator[Faults]:
    """As for every module, but in a group that can be limited."""
    daemon = Daemon(keep_alive=600)
    daemon.under = limits.enter
    with running(daemon) as faults:
        yield faults


def answers(calls: list[Future[Call]]) -> list[int]:
    """The status of every call; each was heard of in time."""
    found = [call.result(ANSWER_SECONDS * 2) for call in calls]
    for one in found:
        one.check()
    return [one.answer.status for one in found if one.answer is not None]


def whole(faults: Faults) -> None:
    faults.serves_again("nobody", time.monotonic())
    faults.is_whole()


@pytest.mark.parametrize("room", ["builder", "keeper"])  # the limits of another user's process take CAP_SYS_RESOURCE
def test_no_more_descriptors(faults: Faults, room: str) -> None:
    pid = faults.find(room).pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(open_files(pid)) + 2, before[1]))
    try:
        answers(faults.cold())
        if room == "keeper":
            starts = faults.daemon.log().count("serving")
            os.kill(faults.find("service").pid, signal.SIGKILL)
            ended = faults.daemon.process.poll
            eventually(lambda: ended() is not None or faults.daemon.log().count("serving") > starts)
    finally:
        for one in {pid, faults.daemon.process.pid}:
            if Path(f"/proc/{one}").exists():
                resource.prlimit(one, resource.RLIMIT_NOFILE, before)
    if faults.daemon.process.poll() is not None:
        faults.daemon.start()  # as systemd would
    whole(faults)


def test_no_more_processes(faults: Faults, limits: Limits) -> None:
    builder = faults.find("builder")
    with limits.set("pids", limits.used("pids")):
        statuses = answers([*faults.cold(), *faults.publish()])
        assert 500 in statuses or 503 in statuses or len(statuses) < 6
        assert faults.invoke("fast").status in (200, 500, 503)
    assert builder.is_running()
    whole(faults)


def test_no_process_for_a_room(faults: Faults, limits: Limits) -> None:
    with limits.set("pids", 1):
        os.kill(faults.find("service").pid, signal.SIGKILL)
        assert faults.daemon.process.wait(ANSWER_SECONDS) == 1
    assert faults.daemon.log().splitlines()[-1].startswith("sandboxd: cannot start builder and service: ")
    faults.daemon.start()  # as systemd would
    whole(faults)


HOG = """
import sys
kept = []
while sys.argv[2] in open(sys.argv[1]).read().splitlines():
    kept.append(b"x" * (1 << 20))
"""


@pytest.mark.parametrize("room", ROOMS)
def test_no_more_memory(faults: Faults, limits: Limits, room: str) -> None:
    """The kernel's choice is a room; who else is in the group takes until then."""
    process = faults.find(room)
    Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
    with limits.set("memory", limits.used("memory") + (16 << 20)):
        killed = limits.kills
        subprocess.run([*limits.enter, sys.executable, "-I", "-S", "-c", HOG, str(limits.events), killed], check=True)
        HITS["no more memory", room] += 1
        if room == "keeper":
            assert faults.daemon.process.wait(ANSWER_SECONDS) == -signal.SIGKILL
            faults.daemon.spawn()
        eventually(lambda: not process.is_running())
    whole(faults)


def test_too_little_memory_to_start(faults: Faults, limits: Limits) -> None:
    faults.daemon.stop()
    with limits.set("memory", 32 << 20):
        ended = faults.daemon.spawn().wait(ANSWER_SECONDS * 2)
    assert ended == -signal.SIGKILL or (ended == 1 and "giving up" in faults.daemon.log().splitlines()[-1])
    faults.daemon.start()
    whole(faults)


@pytest.mark.parametrize("room", ["builder", "service"])
def test_a_room_that_hangs_for_a_moment(faults: Faults, room: str) -> None:
    pid = faults.find(room).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        calls = faults.cold()
        time.sleep(0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answers(calls) == [200] * len(calls)
    whole(faults)


@pytest.mark.parametrize("seconds", [86_400, -86_400])
def test_the_clock_jumps(alone: None, fresh_daemon: Callable[..., Daemon], seconds: int) -> None:
    daemon = fresh_daemon()
    memory = clock.attach(daemon.base / "clock")
    daemon.launcher = patched.launcher("tests.faults.clock:shift", str(daemon.base / "clock"))
    daemon.start()
    name = daemon.deploy(packages.load("sleeps"), Timeout=20)
    assert daemon.call(name, {"seconds": 0})["slept"] == 0
    jump = threading.Timer(0.3, clock.OFFSET.pack_into, (memory, 0, float(seconds)))
    jump.start()
    assert daemon.call(name, {"seconds": 0.6})["slept"] == 0.6, "neither ended early nor kept"
    jump.join()
    assert daemon.call(name, {"seconds": 0})["slept"] == 0
    assert len(daemon.environments(name)) == 1, "and its environment was kept"
    daemon.stop()
    memory.close()
