"""Control groups on this host, whichever kind it has: limits hold, freezing and killing work, nothing stays."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sandboxd.builder.cgroups import Cgroups, base_path, mounts

INSTANCE = "tcg"


@pytest.fixture
def group():
    cgroups = Cgroups(INSTANCE)
    group = cgroups.make("1-1")
    yield group
    group.kill()
    deadline = time.monotonic() + 5
    while not group.remove():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cgroups.remove()
    assert not any(Path(base_path(mount, INSTANCE)).exists() for mount in mounts())


def _run_inside(group, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, preexec_fn=group.enter_self, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_limit_on_memory_kills_and_is_told_apart(group) -> None:
    group.limit(memory_mb=32, pids=64)
    child = _run_inside(group, "python3", "-c", "x = bytearray(200 << 20)")
    assert child.wait(20) == -signal.SIGKILL
    assert group.out_of_memory()


def test_limits_can_be_set_again_higher_and_lower(group) -> None:
    for memory_mb in (128, 3008, 256):
        group.limit(memory_mb=memory_mb, pids=64)
        for quota in (72, 1700, 1000):
            group.limit_cpu(quota)
    child = _run_inside(group, "python3", "-c", "x = bytearray(400 << 20)")
    assert child.wait(20) == -signal.SIGKILL


def test_a_quiet_process_does_not_count_as_out_of_memory(group) -> None:
    group.limit(memory_mb=64, pids=64)
    assert _run_inside(group, "true").wait(20) == 0
    assert not group.out_of_memory()


def test_a_limit_on_processes_holds(group) -> None:
    group.limit(memory_mb=128, pids=16)
    fork = "import os, sys\ntry:\n  for i in range(40):\n    if os.fork() == 0: import time; time.sleep(60)\n"
    child = _run_inside(group, "python3", "-c", fork + "except BlockingIOError: sys.exit(7)")
    assert child.wait(20) == 7


def test_a_share_of_cpu_holds(group) -> None:
    group.limit(memory_mb=128, pids=64)
    group.limit_cpu(100)
    # Python's own start does not count: emulation may take long over it.
    spin = "t, c = monotonic(), process_time()\nwhile monotonic() < t + 1: pass\nprint(process_time() - c)"
    spin = "from time import monotonic, process_time\n" + spin
    child = subprocess.Popen(["python3", "-c", spin], preexec_fn=group.enter_self, stdout=subprocess.PIPE)
    assert float(child.communicate(timeout=60)[0]) < 0.4


def test_freezing_stops_and_killing_ends_a_frozen_process(group) -> None:
    child = _run_inside(group, "sleep", "60")
    freeze, events = group.open_freeze(), group.open_events()
    os.write(freeze, b"1")
    deadline = time.monotonic() + 5
    while b"frozen 1" not in os.pread(events, 4096, 0):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    group.kill()
    assert child.wait(5) == -signal.SIGKILL
    os.close(freeze)
    os.close(events)
