"""The installed units under a real systemd with unified cgroups: readiness, limits, kills, upgrades, nothing left.

These tests end the machine's own daemon many times, so they run only where scripts/vm-test asks for them.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import sandboxd
from tests.support.daemon import UnixConnection
from tests.support.load import Load
from tests.support.places import REPOSITORY
from tests.systemd.installed import (
    UNIT,
    UNITS,
    assert_no_kernel_objects,
    only_in_a_machine_of_its_own,
    run,
    shown,
    systemctl,
)

GROUPS = UNIT / "sandboxd-main"
SOCKET = Path("/run/sandboxd/api.sock")
RELEASES = Path("/opt/sandboxd/releases")
FUNCTION = """
import os, time

def handler(event, context):
    if isinstance(event, dict):
        time.sleep(event["seconds"])
        return {"slept": event["seconds"]}
    if event == "memory":
        return len(bytearray(512 << 20))
    if event == "processes":
        children = []
        try:
            while True:
                if (pid := os.fork()) == 0:
                    time.sleep(600)
                children.append(pid)
        except OSError as error:
            for pid in children:
                os.kill(pid, 9)
            return error.errno
    if event == "spin":
        wall, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < wall + 3:
            pass
        return (time.process_time() - cpu) / (time.monotonic() - wall)
    return "done"
"""

pytestmark = only_in_a_machine_of_its_own


def _invoke(event: str) -> subprocess.CompletedProcess[str]:
    command = ["sandboxd", "invoke", "probe", "--payload", json.dumps(event)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def _result(event: str) -> object:
    done = _invoke(event)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def _room(name: str) -> int:
    """The pid of a living room, by its title; waits while there is none."""
    deadline = time.monotonic() + 60
    while True:
        for process in psutil.process_iter(["cmdline"]):
            if " ".join(process.info["cmdline"] or []).startswith(f"sandboxd: {name}"):
                return int(process.pid)
        assert time.monotonic() < deadline, f"no {name}"
        time.sleep(0.05)


def _group_of_probe() -> Path:
    """The control group of the function's one frozen environment."""
    deadline = time.monotonic() + 60
    while True:
        frozen = [path.parent for path in GROUPS.glob("*/cgroup.events") if "frozen 1" in path.read_text()]
        if len(frozen) == 1:
            return frozen[0]
        assert time.monotonic() < deadline, frozen
        time.sleep(0.05)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _value(group: Path, name: str) -> str:
    return (group / name).read_text().strip()


@pytest.fixture(scope="module", autouse=True)
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One function on the machine's own daemon, which has no environment of another function."""
    systemctl("restart")
    code = tmp_path_factory.mktemp("probe")
    (code / "app.py").write_text(FUNCTION)
    run(
        "sandboxd", "function", "create", "probe", "--runtime", "python3.13", "--handler", "app.handler",
        "--dir", str(code), "--timeout", "300",
    )  # fmt: skip
    yield
    systemctl("start", *UNITS)
    run("sandboxd", "function", "delete", "probe")
    systemctl("stop", *UNITS)


def test_the_unit_is_active_because_the_daemon_said_so() -> None:
    assert (shown("Type"), shown("ActiveState"), shown("SubState")) == ("notify", "active", "running")
    assert int(shown("MainPID")) == _room("keeper")
    journal = run("journalctl", "--no-pager", "-u", "sandboxd", "-b")
    assert "sandboxd.service: serving http://127.0.0.1:8470 and /run/sandboxd/api.sock" in journal


def test_the_units_own_limits() -> None:
    total = int(re.findall(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    assert 0.85 < int(_value(UNIT, "memory.max")) / total < 0.95
    assert int(_value(UNIT, "pids.max")) > 1024
    for room in ("keeper", "builder", "service"):
        process = Path(f"/proc/{_room(room)}")
        assert _value(process, "oom_score_adj") == "-500"
        assert re.search(r"Max core file size +0 +0 ", _value(process, "limits"))
    assert re.search(r"Max open files +524288 +524288 ", _value(Path(f"/proc/{_room('service')}"), "limits"))


def test_the_doctor_finds_nothing_and_unified_cgroups() -> None:
    report = run("sandboxd", "doctor")
    assert "FAIL" not in report
    assert re.search(r"cgroups +v2; memory: v2 /sys/fs/cgroup, cpu: v2 /sys/fs/cgroup, pids: v2 /sys/fs/cgroup", report)


def test_the_rooms_are_in_a_child_and_environments_beside_it() -> None:
    assert _value(UNIT, "cgroup.procs") == ""
    inside = _value(UNIT / "daemon", "cgroup.procs").split()
    assert {str(_room(name)) for name in ("keeper", "builder", "service")} <= set(inside)
    assert {"cpu", "memory", "pids"} <= set(_value(GROUPS, "cgroup.subtree_control").split())


def test_an_environments_limits_are_set_and_it_freezes_when_idle() -> None:
    assert _result("") == "done"
    group = _group_of_probe()
    assert _value(group, "memory.max") == str(128 << 20)
    assert _value(group, "memory.swap.max") == "0"
    assert _value(group, "memory.oom.group") == "1"
    assert _value(group, "cpu.max") == "7200 100000"
    assert _value(group, "pids.max") == "1024"
    assert _result("") == "done"
    assert _group_of_probe() == group


def test_a_share_of_cpu_holds() -> None:
    share = _result("spin")
    assert isinstance(share, float)
    assert share < 0.15


def test_too_much_memory_is_reported_and_harms_nobody_else() -> None:
    keeper, builder, service = map(_room, ("keeper", "builder", "service"))
    done = _invoke("memory")
    assert done.returncode != 0
    assert json.loads(done.stdout)["errorType"] == "Runtime.OutOfMemory"
    assert "\noom_group_kill 1" in _value(UNIT, "memory.events") + "\n"
    assert _result("") == "done"
    assert [keeper, builder, service] == list(map(_room, ("keeper", "builder", "service")))
    assert shown("ActiveState") == "active"


def test_too_many_processes_are_refused() -> None:
    run("sandboxd", "function", "update", "probe", "--memory", "1792")  # forking a thousand times needs some CPU
    assert _result("processes") == 11  # EAGAIN


@pytest.mark.parametrize("room", ["builder", "service"])
def test_a_killed_room_comes_back_by_itself(room: str) -> None:
    keeper, killed = _room("keeper"), _room(room)
    os.kill(killed, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(killed)] if psutil.pid_exists(killed) else [], timeout=30)
    assert _result("") == "done"
    assert _room("keeper") == keeper
    assert shown("NRestarts") == "0"


def test_a_killed_keeper_is_started_again() -> None:
    keeper = _room("keeper")
    os.kill(keeper, signal.SIGKILL)
    _until(lambda: shown("NRestarts") == "1" and shown("ActiveState") == "active")
    assert _result("") == "done"
    assert _value(UNIT, "cgroup.procs") == ""


@pytest.mark.parametrize("room", ["builder", "service"])
def test_a_room_that_hangs_is_started_again(room: str) -> None:
    keeper, hung = _room("keeper"), psutil.Process(_room(room))
    hung.suspend()
    hung.wait(300)
    assert _result("") == "done"
    assert _room("keeper") == keeper


def test_a_keeper_that_hangs_is_started_again_by_the_watchdog() -> None:
    hung, restarts = psutil.Process(_room("keeper")), int(shown("NRestarts"))
    hung.suspend()
    hung.wait(300)
    _until(lambda: int(shown("NRestarts")) == restarts + 1 and shown("ActiveState") == "active")
    assert _result("") == "done"


def test_the_sockets_are_systemds_and_start_the_daemon() -> None:
    status = SOCKET.stat()
    assert (status.st_uid, grp.getgrgid(status.st_gid).gr_name) == (0, "sandboxd")
    assert stat.S_IMODE(status.st_mode) == 0o660
    systemctl("stop")
    assert shown("ActiveState") == "inactive"
    assert SOCKET.is_socket()
    assert _result("") == "done"
    assert shown("ActiveState") == "active"


def test_a_restart_loses_no_call() -> None:
    keeper = _room("keeper")
    with Load([lambda: UnixConnection(SOCKET, 300)], "probe") as load:
        load.wait(20)
        systemctl("restart")
        load.wait(20)
    assert set(load.results) == {"ok"}, load.results
    assert _room("keeper") != keeper


def test_what_outlasts_drain_gets_the_documented_error() -> None:
    command = ["sandboxd", "invoke", "probe", "--payload", '{"seconds": 250}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as call:
        _until(lambda: "Busy" in run("sandboxd", "ps"))
        systemctl("restart")
        _, said = call.communicate(timeout=300)
    assert call.returncode == 1
    assert "(ServiceException)" in said and said.endswith(": The service stopped before the invocation ended.\n")
    ended = run("journalctl", "--no-pager", "-u", "sandboxd", "-b")
    assert "Stopping timed out" not in ended and "timed out. Killing" not in ended


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A checkout of another version."""
    shutil.copytree(REPOSITORY, tmp_path / "checkout", ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"))
    for name in ("pyproject.toml", "sandboxd/__init__.py"):
        file = tmp_path / "checkout" / name
        file.write_text(file.read_text().replace(f'"{sandboxd.__version__}"', '"99.0"'))
    return tmp_path / "checkout"


def test_an_upgrade_in_place_loses_no_call(changed: Path) -> None:
    [before] = os.listdir(RELEASES)
    with Load([lambda: UnixConnection(SOCKET, 300)], "probe") as load:
        load.wait(20)
        run(changed / "scripts" / "install")
        load.wait(20)
    assert set(load.results) == {"ok"}, load.results
    assert json.loads(run("sandboxd", "status", "--output", "json"))["Version"] == "99.0"
    assert os.listdir(RELEASES) == [str(int(before) + 1)]


def test_a_release_that_does_not_start_is_not_kept(changed: Path) -> None:
    service = changed / "sandboxd" / "service.py"
    service.write_text(service.read_text().replace("def main() -> None:\n", "def main() -> None:\n    sys.exit(1)\n"))
    version = run("sandboxd", "--version")
    done = subprocess.run([changed / "scripts" / "install"], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 1
    assert "is in use again" in done.stderr
    assert run("sandboxd", "--version") == version
    assert _result("") == "done"


def test_stop_leaves_nothing() -> None:
    systemctl("stop", *UNITS)
    assert (shown("ActiveState"), shown("Result")) == ("inactive", "success")
    assert_no_kernel_objects()
    assert sorted(os.listdir("/run/sandboxd")) == ["daemon.lock"]


def test_a_daemon_in_a_group_that_is_not_its_own_leaves_it_alone() -> None:
    # Without Delegate=.
    run("systemd-run", "--quiet", "--unit", "byhand", "--property", "KillMode=mixed", "sandboxd", "daemon")
    try:
        keeper = _room("keeper")
        deadline = time.monotonic() + 120
        while subprocess.run(["sandboxd", "status"], capture_output=True, check=False, timeout=60).returncode:
            assert psutil.pid_exists(keeper) and time.monotonic() < deadline
            time.sleep(0.2)
        assert _value(Path(f"/proc/{keeper}"), "cgroup") == "0::/system.slice/byhand.service"
        assert Path("/sys/fs/cgroup/sandboxd-main").is_dir()
    finally:
        run("systemctl", "stop", "byhand")
    assert not Path("/sys/fs/cgroup/sandboxd-main").exists()
