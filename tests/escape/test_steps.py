"""Every step of the isolation is missed when it is left out: what it prevents is tried with and without it."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sandboxd.builder import environment, init, linux, namespaces
from tests.escape import left_out
from tests.support import packages
from tests.support.daemon import Answer, Daemon
from tests.support.network import NetworkedDaemon, World
from tests.support.patched import launcher

PIDS = 48  # a fork bomb small enough for a test
SETTINGS = {"limits__pids": PIDS}

Look = Callable[[Daemon], bool]


def inside(code: str, function: str = "evaluate") -> Look:
    """Whether `code`, run by a function, leaves something true in `result`; one that dies has seen nothing."""
    return lambda daemon: bool(_run(daemon, function, code))


def _run(daemon: Daemon, function: str, code: str) -> object:
    answer = daemon.invoke(function, {"code": code})
    assert answer.status == 200, answer
    return None if "x-amz-function-error" in answer.headers else answer.json


def _cannot_start(daemon: Daemon) -> Answer:
    answer = daemon.invoke("evaluate", {"code": ""})
    assert answer.status >= 500, answer
    return answer


def _runtime_ends(daemon: Daemon) -> bool:
    return "x-amz-function-error" in daemon.invoke("evaluate", {"code": ""}).headers


def _mount(point: str, option: str) -> str:
    return (
        "lines = [line.split() for line in open('/proc/self/mountinfo')]\n"
        f"result = [line for line in lines if line[4] == {point!r} and {option!r} not in line[5].split(',')]"
    )


def _limit(name: str, value: int) -> Look:
    return inside(f"import resource; result = resource.getrlimit(resource.{name}) != ({value}, {value})")


def _status(*fields: str) -> Look:
    return inside(
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        f"result = [name for name in {fields} if int(status[name], 16)]"
    )


def _spares(daemon: Daemon) -> list[psutil.Process]:
    """The processes of sandboxes made ahead, without their makers."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = []
        for process in daemon.room("builder").children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                inner = Path(f"/proc/{process.pid}/status").read_text().split("NSpid:", 1)[1].split("\n")[0].split()[-1]
                if "spare environment" in "".join(process.cmdline()) and inner in ("1", "2"):
                    found.append(process)
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing is made ahead")


def _spare_is_root(daemon: Daemon) -> bool:
    return any(process.uids().real < 1 << 30 for process in _spares(daemon))


def _spare_holds_the_builders(daemon: Daemon) -> bool:
    return any(len(os.listdir(f"/proc/{process.pid}/fd")) > 6 for process in _spares(daemon))


def _two_share_a_uid(daemon: Daemon) -> bool:
    _run(daemon, "evaluate", "")
    _run(daemon, "other", "")
    runtimes = [p for p in daemon.room("builder").children(recursive=True) if "/var/runtime" in "".join(p.cmdline())]
    assert len(runtimes) >= 2
    return len({process.uids().real for process in runtimes}) < len(runtimes)


def _reads_the_others_tmp(daemon: Daemon) -> bool:
    _run(daemon, "other", "import os; os.close(os.open('/tmp/left', os.O_CREAT | os.O_WRONLY))")
    return bool(_run(daemon, "evaluate", "import os; result = 'left' in os.listdir('/tmp')"))


BOMB = "result = len(b'x' * (200 << 20))"


def _door_is_shut(daemon: Daemon, place: tuple[str, int], **policy: object) -> bool:
    """Whether a function cannot connect to what its policy gives it, or not even start."""
    answer = daemon.admin("PUT", "/functions/other/policy", {"AllowEgress": []} | policy)
    assert answer.status == 200, answer
    daemon.wait_settled("other")
    answer = daemon.invoke("other", {"code": f"import socket; result = socket.socket().connect_ex({place})"})
    return answer.status >= 500 or answer.json != 0


def _has_no_link(daemon: Daemon) -> bool:
    return _door_is_shut(daemon, ("8.8.8.8", 80), AllowEgress=["8.8.8.8/32:80"])


def _has_no_resolver(daemon: Daemon) -> bool:
    return _door_is_shut(daemon, ("127.0.0.53", 53), AllowEgress=["example.org:80"])


def _has_no_invoke_door(daemon: Daemon) -> bool:
    return _door_is_shut(daemon, ("127.0.0.1", 9002), AllowInvoke=True)


BOMB = "result = len(b'x' * (200 << 20))"


def _has_no_invoke_door(daemon: Daemon) -> bool:
    answer = daemon.admin("PUT", "/functions/other/policy", {"AllowEgress": [], "AllowInvoke": True})
    assert answer.status == 200, answer
    daemon.wait_settled("other")
    code = "import socket; result = socket.socket().connect_ex(('127.0.0.1', 9002))"
    answer = daemon.invoke("other", {"code": code})
    return answer.status >= 500 or answer.json != 0


def _reaches_nothing(daemon: Daemon) -> bool:
    answer = daemon.admin("PUT", "/functions/other/policy", {"AllowEgress": ["8.8.8.8/32:80"]})
    assert answer.status == 200, answer
    daemon.wait_settled("other")
    return bool(_run(daemon, "other", "import socket; result = socket.socket().connect_ex(('8.8.8.8', 80))"))


FORK = """
import os, signal
children = []
try:
    while len(children) < 200:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
result = len(children) == 200
"""
SPIN = """
import time
began = time.monotonic()
while time.monotonic() < began + 0.5:
    pass
result = time.process_time() > 0.25
"""
KEYRING = f"""
import ctypes, platform
call = {{"x86_64": 250, "aarch64": 219}}[platform.machine()]
text = ctypes.create_string_buffer(200)
ctypes.CDLL(None).syscall(call, 6, -3, text, 200)  # KEYCTL_DESCRIBE of the session's
result = b{left_out.CANARY!r} in text.value
"""
WRITES_A_SWITCH = """
import errno
try:
    open("/proc/sys/net/ipv4/ip_forward", "w")
except OSError as error:
    result = error.errno != errno.EROFS
"""
PATH_OF_MOUNT = """
lines = [line.split() for line in open("/proc/self/mountinfo")]
result = [line for line in lines if line[4] == {0!r} and line[3] != "/"]
"""
OWN_NAMESPACE = "import os; result = os.readlink('/proc/self/ns/{0}') == {1!r}"


def _namespace(kind: str) -> Look:
    return inside(OWN_NAMESPACE.format(kind, os.readlink(f"/proc/self/ns/{kind}")))


@dataclass(frozen=True)
class Step:
    """What is seen where a step is left out: something that is not to be seen, or the start fails and names a step.

    `beside` is patched in both daemons, where otherwise another layer would hide this one.
    """

    seen: Look | None = None
    fails_at: str = ""
    beside: str = ""
    networked: bool = False  # needs a world outside


STEPS: dict[str, Step] = {
    "FIRST: cgroup": Step(inside(BOMB, "small")),
    "FIRST: builder's descriptors": Step(_spare_holds_the_builders),
    "namespaces: CLONE_NEWUSER": Step(fails_at="ids"),
    "namespaces: CLONE_NEWNS": Step(fails_at="private propagation"),
    "namespaces: CLONE_NEWPID": Step(fails_at="proc"),
    "namespaces: CLONE_NEWNET": Step(fails_at="loopback"),
    "namespaces: CLONE_NEWIPC": Step(_namespace("ipc")),
    "namespaces: CLONE_NEWUTS": Step(fails_at="host name"),
    "FIRST: cgroup namespace": Step(inside("result = 'sandboxd' in open('/proc/self/cgroup').read()")),
    "id maps: host uids of its own": Step(_two_share_a_uid),
    "FIRST: maker's ids": Step(_spare_is_root),
    "FIRST: keyring": Step(inside(KEYRING), beside="DROP: seccomp; apart from the keyring: the builder's has a name"),
    "out-of-memory rank": Step(inside("result = int(open('/proc/self/oom_score_adj').read()) < 800")),
    "builder's tree: one of its own": Step(fails_at="image"),
    "AHEAD: private propagation": Step(
        inside("result = [line for line in open('/proc/self/mountinfo') if ' /proc/' in line and ' master:' in line]"),
        beside="apart from the builder's tree: mounts travel from it",
    ),
    "AHEAD: proc": Step(fails_at="mounts"),
    "proc: masks": Step(inside("result = open('/proc/cmdline').read() + open('/proc/kallsyms').read(1)")),
    "proc: /proc/sys read-only": Step(inside(WRITES_A_SWITCH)),
    "AHEAD: host name": Step(inside(f"import os; result = os.uname().nodename == {os.uname().nodename!r}")),
    "AHEAD: loopback": Step(_runtime_ends),
    "AHEAD: runtime door": Step(fails_at="child"),
    "SETUP: mounts": Step(fails_at="pivot_root"),
    "image and code: read-only": Step(inside(_mount("/var/task", "ro"))),
    "image and code: nosuid": Step(inside("import os; result = not os.statvfs('/').f_flag & os.ST_NOSUID")),
    "image and code: nodev": Step(inside("import os; result = not os.statvfs('/').f_flag & os.ST_NODEV")),
    "image: an overlay of its own": Step(inside(PATH_OF_MOUNT.format("/"))),
    "code: an overlay of its own": Step(inside(PATH_OF_MOUNT.format("/var/task"))),
    "dev: read-only": Step(inside(_mount("/dev", "ro"))),
    "dev: the prepared one": Step(inside("import os; result = len(os.listdir('/dev')) > 9")),
    "tmp volume: nosuid, nodev": Step(
        inside("import os; result = not os.statvfs('/tmp').f_flag & (os.ST_NOSUID | os.ST_NODEV)")
    ),
    "tmp volume: one for each environment": Step(_reads_the_others_tmp),
    "SETUP: pivot_root": Step(fails_at="exec of "),
    "pivot_root: the old root gone": Step(fails_at="last user namespace"),
    "SETUP: link": Step(_has_no_link, networked=True),
    "SETUP: resolver door": Step(_has_no_resolver, networked=True),
    "SETUP: invoke door": Step(_has_no_invoke_door),
    "DROP: session": Step(inside("import os; result = os.getsid(0) != os.getpid()")),
    "DROP: resource limits": Step(_limit("RLIMIT_CORE", 1)),
    "DROP: ids": Step(fails_at="last user namespace"),
    "ids: no supplementary groups": Step(
        inside("import os; result = os.getgroups()"), beside="apart from groups: the builder has one"
    ),
    "DROP: last user namespace": Step(fails_at="capabilities"),
    "DROP: capabilities": Step(_status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")),
    "DROP: no_new_privs": Step(fails_at="seccomp"),
    "DROP: seccomp": Step(inside("import ctypes; result = ctypes.CDLL(None).unshare(0x10000000) == 0")),
    "LAST: open files": Step(_limit("RLIMIT_NOFILE", 1024)),
    "LAST: descriptors": Step(fails_at="exec of "),
    "descriptors: all others closed": Step(
        inside(
            "import os\nlinks = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
            f"result = [one for one in links if os.path.lexists(one) and {left_out.CANARY!r} in os.readlink(one)]"
        ),
        beside="apart from close-on-exec: a descriptor is leaked",
    ),
    "cgroup: memory": Step(inside(BOMB, "small")),
    "cgroup: pids": Step(inside(FORK)),
    "cgroup: cpu": Step(inside(SPIN, "small")),
}


@contextlib.contextmanager
def _daemon(without: str = "", world: World | None = None) -> Iterator[Daemon]:
    daemon = NetworkedDaemon(world, **SETTINGS) if world else Daemon(**SETTINGS)
    if without:
        daemon.launcher = launcher("tests.escape.left_out:leave_out", without)
    with daemon:
        about = packages.load("evaluate")
        for name, memory in (("evaluate", 256), ("other", 128), ("small", 128)):
            daemon.deploy(about, name, MemorySize=memory)
        yield daemon
        if without == "FIRST: cgroup":  # nobody knows what has become of its processes: their groups are left over
            daemon.stop()
            assert daemon.cli("gc").returncode == 0


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
    if step.seen is not None:
        if step.beside:
            with _daemon(step.beside, world) as daemon:
                assert not step.seen(daemon)
        else:
            assert not step.seen(request.getfixturevalue("whole_networked" if world else "whole"))
    with _daemon("; ".join(filter(None, (name, step.beside))), world) as daemon:
        if step.seen is not None:
            assert step.seen(daemon)
        else:
            answer = _cannot_start(daemon)
            assert step.fails_at in answer.message, (answer, daemon.log())


# Not left out as a whole, because on the host itself the steps behind it would do harm: one part at a time.
BY_PARTS = {"FIRST: namespaces": "namespaces: "}
# What the builder does for an environment that is no isolation: without it, it has no program, no log, no orders.
NO_ISOLATION = {"fork", "log pipe", "orders"}
HOST_SIDE = {  # how environment.py names its steps, and how the tests of each part here begin
    "cgroup": "cgroup: ", "tmp volume": "tmp volume: ", "image": "image", "code": "code", "dev": "dev: ",
    "network": "SETUP: link",
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


def test_every_step_of_the_host_side_is_here() -> None:
    """A new one in environment.py fails this test until it has a test of its own."""
    named = set(re.findall(r'_step\("([^"]+)"\)', inspect.getsource(environment)))
    assert named - NO_ISOLATION == set(HOST_SIDE)
    for begin in HOST_SIDE.values():
        assert [name for name in STEPS if name.startswith(begin)], begin
