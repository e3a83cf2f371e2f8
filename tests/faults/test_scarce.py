"""What runs out, hangs or jumps: callers hear an error or their answer, and afterwards all is as before."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.faults import clock
from tests.faults.harness import ANSWER_SECONDS, Call, Faults, eventually
from tests.support import packages, patched
from tests.support.daemon import Daemon
from tests.support.inventory import open_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")


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
            os.kill(faults.find("service").pid, signal.SIGKILL)
            time.sleep(0.2)
    finally:
        for one in {pid, faults.daemon.process.pid}:
            if Path(f"/proc/{one}").exists():
                resource.prlimit(one, resource.RLIMIT_NOFILE, before)
    if faults.daemon.process.poll() is not None:
        faults.daemon.start()  # as systemd would
    whole(faults)


@pytest.fixture
def pids_group() -> Iterator[Path]:
    """A group of ours with a limit on processes."""
    base = next(p for p in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if (p / "cgroup.procs").exists())
    group = base / f"sandboxd-faults-{os.getpid()}"
    group.mkdir()
    if not (group / "pids.max").exists():
        group.rmdir()
        pytest.skip("the pids controller is not given to new groups")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_no_more_processes(faults: Faults, pids_group: Path) -> None:
    builder = faults.find("builder")
    (pids_group / "cgroup.procs").write_text(str(builder.pid))
    (pids_group / "pids.max").write_text("1")
    try:
        statuses = answers([*faults.cold(), *faults.publish()])
        assert 500 in statuses or 503 in statuses or len(statuses) < 6
        assert faults.invoke("fast").status in (200, 500, 503)
    finally:
        (pids_group / "pids.max").write_text("max")
    whole(faults)
    if builder.is_running():
        os.kill(builder.pid, signal.SIGKILL)  # so that the group is empty
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
