"""Control groups on this host, whichever kind it has: limits hold, freezing and killing work, nothing stays."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sandboxd.builder.cgroups import CONTROLLERS, Cgroups, base_path, mounts
from sandboxd.environment.memory import used_bytes
from tests.support.places import TIME_FACTOR

INSTANCE = "tcg"
MIB = 1 << 20


def _version() -> str:
    """Which hierarchies hold the controllers here: names the tests, so that a run tells what it has shown."""
    held_by_v2 = {c for mount in mounts() if mount.unified for c in mount.controllers}
    return "v2" if held_by_v2 >= set(CONTROLLERS) else "v1"


@pytest.fixture(params=[_version()])
def group():
    cgroups = Cgroups(INSTANCE)
    group = cgroups.make("1-1")
    yield group
    group.kill()
    _until(group.remove)
    cgroups.remove()
    assert not any(Path(base_path(mount, INSTANCE)).exists() for mount in mounts())


def _run_inside(group, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, preexec_fn=group.enter_self, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_limit_on_memory_kills_and_is_told_apart(group) -> None:
    group.limit(memory_mb=32, pids=64)
    child = _run_inside(group, "python3", "-c", "x = bytearray(200 << 20)")
    assert child.wait(20 * TIME_FACTOR) == -signal.SIGKILL
    assert group.out_of_memory()


def test_limits_can_be_set_again_higher_and_lower(group) -> None:
    for memory_mb in (128, 3008, 256):
        group.limit(memory_mb=memory_mb, pids=64)
        for quota in (72, 1700, 1000):
            group.limit_cpu(quota)
    child = _run_inside(group, "python3", "-c", "x = bytearray(400 << 20)")
    assert child.wait(20 * TIME_FACTOR) == -signal.SIGKILL


def test_a_quiet_process_does_not_count_as_out_of_memory(group) -> None:
    group.limit(memory_mb=64, pids=64)
    assert _run_inside(group, "true").wait(20) == 0
    assert not group.out_of_memory()


def test_a_limit_on_processes_holds(group) -> None:
    group.limit(memory_mb=128, pids=16)
    fork = "import os, sys\ntry:\n  for i in range(40):\n    if os.fork() == 0: import time; time.sleep(60)\n"
    child = _run_inside(group, "python3", "-c", fork + "except BlockingIOError: sys.exit(7)")
    assert child.wait(20 * TIME_FACTOR) == 7


def test_a_share_of_cpu_holds(group) -> None:
    group.limit(memory_mb=128, pids=64)
    group.limit_cpu(100)
    # Python's own start does not count: emulation may take long over it.
    spin = "t, c = monotonic(), process_time()\nwhile monotonic() < t + 1: pass\nprint(process_time() - c)"
    spin = "from time import monotonic, process_time\n" + spin
    child = subprocess.Popen(["python3", "-c", spin], preexec_fn=group.enter_self, stdout=subprocess.PIPE)
    assert float(child.communicate(timeout=60)[0]) < 0.4


def test_where_both_want_it_cpu_goes_by_memory(group) -> None:
    other = Cgroups(INSTANCE).make("2-2")
    spin = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
    children = []
    try:
        for one, memory_mb in ((group, 256), (other, 1024)):
            one.limit(memory_mb=memory_mb, pids=64)
            children.append(_run_inside(one, "python3", "-c", spin))
        _until(lambda: min(_cpu_seconds(group), _cpu_seconds(other)) > 0.2)
        before = _cpu_seconds(group), _cpu_seconds(other)
        _until(lambda: _cpu_seconds(group) + _cpu_seconds(other) > sum(before) + 1)
        assert 2 < (_cpu_seconds(other) - before[1]) / (_cpu_seconds(group) - before[0]) < 8  # 4, and what else runs
    finally:
        for one in (group, other):
            one.kill()
        for child in children:
            assert child.wait(20 * TIME_FACTOR) == -signal.SIGKILL
        _until(other.remove)


def test_nothing_stays_of_a_group_that_cannot_be_made(group) -> None:
    before = _groups()
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    cgroups = Cgroups(INSTANCE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        with pytest.raises(OSError, match="Too many open files"):
            cgroups.make("3-3")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert _groups() == before


def _groups() -> list[Path]:
    return sorted(path for mount in mounts() for path in Path(base_path(mount, INSTANCE)).glob("*/"))


def test_freezing_stops_and_killing_ends_a_frozen_process(group) -> None:
    child = _run_inside(group, "sleep", "60")
    freeze, events = group.open_freeze(), group.open_events()
    os.write(freeze, b"1")
    _until(lambda: b"frozen 1" in os.pread(events, 4096, 0))
    group.kill()
    assert child.wait(5 * TIME_FACTOR) == -signal.SIGKILL
    os.close(freeze)
    os.close(events)


BUSY = """
import os, sys, time
kept = b"x" * (48 << 20)
while time.process_time() < 0.5:
    pass
for _ in range(3):
    if os.fork() == 0:
        time.sleep(60)
print("done", flush=True)
while sys.argv[1] == "spin":
    pass
time.sleep(60)
"""


def _cpu_seconds(group) -> float:
    # cpu.stat of the unified hierarchy counts without any controller, on hybrid hosts too.
    with open("cpu.stat", opener=lambda name, flags: os.open(name, flags, dir_fd=group.unified)) as file:
        return int(file.readline().removeprefix("usage_usec ")) / 1e6


def _processes(group) -> int:
    descriptor = os.open("pids.current", os.O_RDONLY, dir_fd=group.by_controller["pids"])
    with os.fdopen(descriptor) as file:
        return int(file.read())


def test_memory_cpu_and_processes_are_accounted_for(group) -> None:
    group.limit(memory_mb=128, pids=64)
    child = subprocess.Popen(
        ["python3", "-c", BUSY, "sleep"], preexec_fn=group.enter_self, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "done\n"
    memory = group.open_memory_stat()
    assert 48 * MIB <= used_bytes(memory) < 80 * MIB
    os.close(memory)
    assert 0.5 <= _cpu_seconds(group) < 20
    assert _processes(group) == 4
    group.kill()
    child.communicate()


def test_a_frozen_group_takes_no_cpu_and_goes_on_afterwards(group) -> None:
    group.limit(memory_mb=128, pids=64)
    child = subprocess.Popen(
        ["python3", "-c", BUSY, "spin"], preexec_fn=group.enter_self, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    freeze, events = group.open_freeze(), group.open_events()
    os.write(freeze, b"1")
    _until(lambda: b"frozen 1" in os.pread(events, 4096, 0))
    before = _cpu_seconds(group)
    time.sleep(0.3)
    assert _cpu_seconds(group) == before
    os.write(freeze, b"0")
    _until(lambda: _cpu_seconds(group) > before + 0.1)
    group.kill()
    child.communicate()
    os.close(freeze)
    os.close(events)


def _until(condition) -> None:
    deadline = time.monotonic() + 20 * TIME_FACTOR
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
