"""The steps of the isolation, and for each what is seen where it is left out (left_out.py says how that is done).

Functions of the daemons that are looked at: `evaluate` of 256 MB, `other` and `small` of 128 MB.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.escape import left_out
from tests.support import packages
from tests.support.attacks import attack
from tests.support.daemon import Daemon
from tests.support.places import TIME_FACTOR

Look = Callable[[Daemon], bool]


def inside(code: str, function: str = "evaluate") -> Look:
    """Whether `code`, run by a function, leaves something true in `result`; one that dies has seen nothing."""
    return lambda daemon: bool(_run(daemon, function, code))


def _run(daemon: Daemon, function: str, code: str) -> object:
    answer = daemon.invoke(function, {"code": code})
    assert answer.status == 200, answer
    return None if "x-amz-function-error" in answer.headers else answer.json


def _runtime_ends(daemon: Daemon) -> bool:
    return "x-amz-function-error" in daemon.invoke("evaluate", {"code": ""}).headers


def _mount(point: str, option: str) -> str:
    return (
        "lines = [line.split() for line in open('/proc/self/mountinfo')]\n"
        f"result = [line for line in lines if line[4] == {point!r} and {option!r} not in line[5].split(',')]"
    )


def _spares(daemon: Daemon) -> list[psutil.Process]:
    """The processes of sandboxes made ahead, without their makers."""
    deadline = time.monotonic() + 20 * TIME_FACTOR
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


def _spare_receives_mounts(daemon: Daemon) -> bool:
    return any(" master:" in Path(f"/proc/{process.pid}/mountinfo").read_text() for process in _spares(daemon))


def _spare_holds_the_builders(daemon: Daemon) -> bool:
    return any(len(os.listdir(f"/proc/{process.pid}/fd")) > 7 for process in _spares(daemon))


def _two_share_a_uid(daemon: Daemon) -> bool:
    _run(daemon, "evaluate", "")
    _run(daemon, "other", "")
    runtimes = [p for p in daemon.room("builder").children(recursive=True) if "/var/runtime" in "".join(p.cmdline())]
    assert len(runtimes) >= 2
    return len({process.uids().real for process in runtimes}) < len(runtimes)


def _works_while_idle(daemon: Daemon) -> bool:
    code = "import builtins, threading, time\nbuiltins.ticks = []\ndef tick():\n    while True:\n"
    code += "        ticks.append(1)\n        time.sleep(0.01)\nthreading.Thread(target=tick, daemon=True).start()"
    _run(daemon, "evaluate", code)
    time.sleep(1)
    return bool(_run(daemon, "evaluate", "result = len(ticks) > 50"))


def _runs_on(daemon: Daemon) -> bool:
    """Whether a function goes on whose time is over."""
    daemon.deploy(packages.load("evaluate"), "endless", Timeout=1)
    code = "with open('/proc/self/comm', 'w') as name: name.write('endless')\nwhile True: pass"
    assert daemon.invoke("endless", {"code": code}).json["errorType"] == "Sandbox.Timedout"
    daemon.delete("endless")
    deadline = time.monotonic() + 2 * TIME_FACTOR
    while True:
        living = "endless" in [process.name() for process in psutil.process_iter(["name"])]
        if not living or time.monotonic() > deadline:
            return living
        time.sleep(0.02)


def _may_swap(daemon: Daemon) -> bool:
    """By what the kernel says of its limit: to try it, the host would need swap."""
    _run(daemon, "small", "")
    done = daemon.cli("inspect", str(daemon.environments("small")[0]["Id"]), "--output", "json")
    found = [row for row in json.loads(done.stdout)["Findings"] if row["name"] in left_out.LIMITS["cgroup: swap"]]
    assert found, "this kernel does not account for swap"
    return not all(row["ok"] for row in found)


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


TCP = """
import socket
door, kept, held = socket.create_server(("127.0.0.1", 0)), [], 0
while held < 160 << 20 and len(kept) < 500:
    near = socket.create_connection(door.getsockname())
    kept += [near, door.accept()[0]]
    near.setblocking(False)
    try:
        while True:
            held += near.send(bytes(1 << 16))
    except BlockingIOError:
        pass
result = held >= 160 << 20
"""
BOMB = "result = len(b'x' * (200 << 20))"


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
spun, until = time.process_time(), time.monotonic() + 2
while time.process_time() - spun < 0.25 and time.monotonic() < until:
    pass
result = time.process_time() - spun >= 0.25
"""
KEYRING = f"""
import ctypes, platform
call = {{"x86_64": 250, "aarch64": 219}}[platform.machine()]
text = ctypes.create_string_buffer(200)
ctypes.CDLL(None).syscall(call, 6, -3, text, 200)  # KEYCTL_DESCRIBE of the session's
result = b{left_out.CANARY!r} in text.value
"""


@dataclass(frozen=True)
class Step:
    """What is seen where a step is left out: an attack gets through, or something else that is not to be seen, or the
    start fails and names a step.

    `beside` is patched in both daemons, where otherwise another layer would hide this one.
    """

    without: str = ""  # what is seen, in words
    seen: Look | None = None
    attack: str = ""  # of test_attacks.py
    fails_at: str = ""
    beside: str = ""
    networked: bool = False  # needs a world outside

    @property
    def look(self) -> Look | None:
        """Whether it is seen; None where the start fails instead."""
        return (lambda daemon: attack(daemon, self.attack).open) if self.attack else self.seen

    @property
    def test(self) -> str:
        """Which test fails without it."""
        return f"test_attacks.py: {self.attack}" if self.attack else "test_steps.py"

    def __str__(self) -> str:
        return self.without or f'nothing starts: it fails at "{self.fails_at.strip()}"'


STEPS: dict[str, Step] = {
    "FIRST: cgroup": Step("a function of 128 MB holds 200 MB", inside(BOMB, "small")),
    "FIRST: builder's descriptors": Step(
        "sandboxes made ahead hold the builder's descriptors", _spare_holds_the_builders
    ),
    "namespaces: CLONE_NEWUSER": Step(fails_at="ids"),
    "namespaces: CLONE_NEWNS": Step(fails_at="private propagation"),
    "namespaces: CLONE_NEWPID": Step(fails_at="proc"),
    "namespaces: CLONE_NEWNET": Step(fails_at="loopback"),
    "namespaces: CLONE_NEWIPC": Step("it is the host's ipc namespace", attack="shared_memory_of_the_host"),
    "namespaces: CLONE_NEWUTS": Step(fails_at="host name"),
    "namespaces: CLONE_NEWTIME": Step(fails_at="clocks"),
    "clocks: begin at 0": Step("its clocks tell when the host started", attack="uptime_by_clock"),
    "FIRST: cgroup namespace": Step("`/proc/self/cgroup` tells the host's path", attack="cgroup_path"),
    "id maps: host uids of its own": Step("two environments run as one uid of the host", _two_share_a_uid),
    "FIRST: maker's ids": Step("sandboxes made ahead run as the host's root", _spare_is_root),
    "FIRST: keyring": Step(
        "the host's session keyring can be asked (without seccomp)",
        inside(KEYRING),
        beside="DROP: seccomp; apart from the keyring: the builder's has a name",
    ),
    "out-of-memory rank": Step(
        "a host out of memory has no reason to take the function first",
        inside("result = int(open('/proc/self/oom_score_adj').read()) < 800"),
    ),
    "builder's tree: one of its own": Step(fails_at="facts"),
    "AHEAD: private propagation": Step(
        "mounts of the builder's travel in (where its own tree lets them)",
        _spare_receives_mounts,
        beside="apart from the builder's tree: mounts travel from it",
    ),
    "AHEAD: proc": Step(fails_at="mounts"),
    "proc: masks": Step("`/proc/cmdline` and `/proc/buddyinfo` are the host's", attack="read_buddyinfo"),
    "proc: facts of its own": Step("`/proc` tells the host's memory, load and switches", attack="boot_id"),
    "proc: facts read-only": Step(
        "the mount is writable; only the overlay's lack of an upper directory is left",
        inside(_mount("/proc/sys", "ro")),
    ),
    "AHEAD: host name": Step("it is the host's name", attack="host_name"),
    "AHEAD: loopback": Step("the runtime cannot reach its Runtime API", _runtime_ends),
    "AHEAD: runtime door": Step(fails_at="child"),
    "SETUP: mounts": Step(fails_at="pivot_root"),
    "image and code: read-only": Step(
        "the mount is writable; only the overlay's lack of an upper directory is left",
        inside(_mount("/var/task", "ro")),
    ),
    "image and code: nosuid": Step("setuid files would count", attack="root_allows_setuid_or_devices"),
    "image and code: nodev": Step("device nodes would work", attack="root_allows_setuid_or_devices"),
    "image: an overlay of its own": Step(
        "functions meet at the image's inodes: a neighbour's lock is seen", attack="lock_shared_with_a_neighbour"
    ),
    "code: an overlay of its own": Step("mountinfo tells where the host keeps the package", attack="paths_in_mounts"),
    "dev: read-only": Step(
        "the mount is writable; only the overlay's lack of an upper directory is left", inside(_mount("/dev", "ro"))
    ),
    "dev: the prepared one": Step("`/dev` shows the host's devices", attack="device_kmsg"),
    "tmp volume: nosuid, nodev": Step(
        "setuid files and device nodes would count", attack="tmp_allows_setuid_or_devices"
    ),
    "tmp volume: one for each environment": Step(
        "one function reads what another left in /tmp", attack="tmp_of_a_neighbour"
    ),
    "SETUP: pivot_root": Step(fails_at="exec of "),
    "pivot_root: the old root gone": Step(fails_at="last user namespace"),
    "network: link": Step("what the policy permits is out of reach", _has_no_link, networked=True),
    "network: resolver": Step("permitted names do not resolve", _has_no_resolver, networked=True),
    "network: door for Invoke": Step("the Lambda endpoint inside is missing", _has_no_invoke_door),
    "DROP: session": Step("it is in the builder's session", inside("import os; result = os.getsid(0) != os.getpid()")),
    "DROP: resource limits": Step("cores are written for the host's helper", attack="core_limit_that_feeds_a_helper"),
    "DROP: ids": Step(fails_at="last user namespace"),
    "ids: no supplementary groups": Step(
        "it is in a group of the builder's",
        attack="supplementary_groups",
        beside="apart from groups: the builder has one",
    ),
    "DROP: last user namespace": Step(fails_at="capabilities"),
    "DROP: capabilities": Step("capabilities over its user namespace are left", attack="CapBnd_is_not_empty"),
    "DROP: no_new_privs": Step(fails_at="seccomp"),
    "DROP: seccomp": Step("a new user namespace can be made", attack="unshare_user"),
    "LAST: open files": Step("it may open as many files as the host's root", attack="generous_NOFILE"),
    "LAST: descriptors": Step(fails_at="exec of "),
    "descriptors: all others closed": Step(
        "a leaked descriptor arrives (one that lacks close-on-exec)",
        attack="regular_files",
        beside="apart from close-on-exec: a descriptor is leaked",
    ),
    "cgroup: memory": Step("a function of 128 MB holds 200 MB", inside(BOMB, "small")),
    "cgroup: swap": Step("`inspect` finds that it may use the host's swap", _may_swap),
    "cgroup: TCP buffers": Step("a function of 128 MB has the kernel hold 160 MB", inside(TCP, "small")),
    "cgroup: pids": Step("a fork bomb goes beyond its limit", inside(FORK)),
    "cgroup: freeze": Step("it works while nothing is asked of it", _works_while_idle),
    "cgroup: kill": Step("it works after its time is over", _runs_on),
    "cgroup: cpu": Step("7 % of a CPU come to an eighth and more", inside(SPIN, "small")),
}
