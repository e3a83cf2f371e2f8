"""What runs between the fork and user code: the visible list of steps, child side.

Room: root, child side, after fork. May: mount, drop. May not: log, thread, import, return.

Three processes. The *maker* is forked by the builder, enters its cgroup and the new namespaces, has its ids mapped
(FIRST) and forks two: *pid 1* of the new pid namespace, which does what can be done ahead (AHEAD) and waits for a plan,
with which it sets the sandbox up (SETUP), gives everything up (DROP) and becomes the reaping init; and the *runtime*,
which gives everything up ahead and waits for pid 1's word, which comes when the root is the image's. LAST and exec are
all that is left then. When the maker exits the runtime becomes the builder's own child (the reaper of the maker's pid
namespace, pid_namespaces(7)), which is how its exit status is known.

The channel to the builder carries fixed-size records; it closes by exec, so that end-of-file means: user code runs.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, TypeVar

from sandboxd.builder import capabilities, linux, namespaces, rlimits, rootfs
from sandboxd.errors import StepFailed

RUNTIME_API_PORT = 9001
INVOKE_DOOR_PORT = 9002
BACKLOG = 8
MAX_ENVIRON = 32 * 1024  # what a pipe holds, with room to spare; AWS allows 4 KB of variables
END_OF_ORDERS = b"\0"  # an empty variable
INIT_PROGRAM = "/usr/bin/catatonit"
RUNTIME_PROGRAM = "/var/runtime/bootstrap"

RECORD = struct.Struct("!Bii32s")
PLAN = struct.Struct("!I?")  # open files, stem
_PLAN_DESCRIPTORS = range(6, 8)  # the last only with layers
_WORD = struct.Struct("!I?")  # from pid 1 to the runtime: open files, stem; with log, environ and orders


class Said(IntEnum):
    """Kinds of records from child to builder."""

    IN_NAMESPACES = 1  # pid, 0; goes on by one byte, once its ids are mapped
    DOOR = 2  # descriptor: the Runtime API's socket, which the service serves
    FORKED = 3  # pid 1, runtime; as the builder's pid namespace numbers them
    FAILED = 4  # errno, 0, name of the step


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes a sandbox this environment's, from the builder: descriptors and numbers."""

    mounts: rootfs.Mounts
    log: int  # write end of the log pipe
    environ: int  # sealed memfd
    orders: int  # of a stem: read end of the pipe by which its function's variables will come; else as `environ`
    open_files: int
    stem: bool  # the runtime boots and waits for orders; its code comes then


@dataclass(slots=True)
class _Maker:
    channel: socket.socket
    facts: tuple[int, int]  # detached mounts: what lies over files of /proc
    enter_cgroup: Callable[[], None]


@dataclass(slots=True)
class _Child:
    channel: socket.socket
    program: bytes  # the seccomp filter
    identity: int  # id inside the outer user namespace
    facts: tuple[int, int]  # detached mounts
    log: int = -1
    environ: int = -1
    orders: int = -1
    open_files: int = 0
    stem: bool = False


AnyChild = TypeVar("AnyChild", _Maker, _Child)
FirstStep = tuple[str, Callable[[_Maker], None]]
Step = tuple[str, Callable[[_Child], None]]
PlanStep = tuple[str, Callable[[_Child, Plan], None]]


def _release_descriptors(maker: _Maker) -> None:
    descriptor = maker.channel.detach()
    linux.keep_only((0, 1, 2, descriptor, *maker.facts))
    maker.channel, maker.facts = socket.socket(fileno=3), (4, 5)


def _new_namespaces(maker: _Maker) -> None:
    """Enter them and wait until the builder has mapped the ids of the new user namespace."""
    linux.unshare(namespaces.FIRST_NAMESPACES)
    maker.channel.send(RECORD.pack(Said.IN_NAMESPACES, os.getpid(), 0, b""))
    if not maker.channel.recv(1):
        os._exit(1)


def _runtime_door(child: _Child) -> None:
    with namespaces.listen_here(RUNTIME_API_PORT, BACKLOG) as door:
        socket.send_fds(child.channel, [RECORD.pack(Said.DOOR, 0, 0, b"")], [door.fileno()])


# What the maker does before it forks, so that it holds for both: as root of the host, then of the outer user namespace.
FIRST: list[FirstStep] = [
    ("cgroup", lambda maker: maker.enter_cgroup()),
    # Everything else of the builder's goes now: a copy of a mount's or pipe's descriptor would keep it alive.
    ("builder's descriptors", _release_descriptors),
    ("namespaces", _new_namespaces),
    ("cgroup namespace", lambda _: linux.unshare(linux.CLONE_NEWCGROUP)),
    ("maker's ids", lambda _: namespaces.become_in_child(0)),
    ("keyring", lambda _: linux.join_new_session_keyring()),
]

# What pid 1 does ahead of any plan, as root of the outer user namespace, in the new namespaces.
AHEAD: list[Step] = [
    ("private propagation", lambda _: rootfs.private_propagation_in_child()),
    ("proc", lambda child: rootfs.proc_in_child(*child.facts)),
    ("host name", lambda _: namespaces.host_name_in_child()),
    ("loopback", lambda _: namespaces.loopback_in_child()),
    ("runtime door", _runtime_door),
]

# What it does with the plan.
SETUP: list[PlanStep] = [
    ("mounts", lambda _, plan: rootfs.attach_in_child(plan.mounts)),
    ("pivot_root", lambda *_: linux.pivot_root_here()),
]

# How both processes give everything up. Before it there is privilege over the sandbox, behind it there is none.
DROP: list[Step] = [
    ("session", lambda _: os.setsid()),
    ("resource limits", lambda _: rlimits.set_fixed_in_child()),
    ("ids", lambda child: namespaces.become_in_child(child.identity)),
    ("last user namespace", lambda child: namespaces.enter_last_user_namespace_in_child(child.identity)),
    ("capabilities", lambda _: capabilities.drop_all_in_child()),
    ("no_new_privs", lambda _: capabilities.no_new_privs_in_child()),
    ("seccomp", lambda child: linux.load_seccomp(child.program)),
]

# What is left to do with the plan, right before exec.
LAST: list[Step] = [
    ("open files", lambda child: rlimits.set_open_files_in_child(child.open_files)),
    ("descriptors", lambda child: _descriptors(child)),
]


def _descriptors(child: _Child) -> None:
    """Keep 0 (null), 1 and 2 (log), of a stem 3 (orders), and until exec 4 (channel) and 5 (environ)."""
    null = os.open("/dev/null", os.O_RDWR)
    kept = (null, child.log, child.log, child.orders, child.channel.detach(), child.environ)
    linux.keep_only(kept, inheritable=4 if child.stem else 3)
    child.channel = socket.socket(fileno=4)


def run_maker(
    channel: socket.socket,
    facts: tuple[int, int],
    program: bytes,
    enter_cgroup: Callable[[], None],
    start: Callable[[_Child], None],
) -> None:
    """The maker's whole life; returns in the runtime, if `start` does."""
    maker = _Maker(channel, facts, enter_cgroup)
    with _reporting(maker) as report:
        _run(FIRST, maker, report)
        report.step = "fork"
        # pivot_root moves every process of the namespace to the new root, but misses one that is being forked
        # meanwhile; by the time of a plan both are there.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        pid1 = os.fork()
        if pid1 == 0:
            theirs.close()
            _run_pid1(_Child(maker.channel, program, 0, maker.facts), ours)
        ours.close()
        runtime = os.fork()
        if runtime == 0:
            _run_runtime(_Child(maker.channel, program, 1, maker.facts), theirs, start)
            return
        maker.channel.send(RECORD.pack(Said.FORKED, pid1, runtime, b""))
        os._exit(0)
    os._exit(1)


def _receive_plan(channel: socket.socket) -> Plan:
    plan, descriptors, _, _ = socket.recv_fds(channel, PLAN.size, _PLAN_DESCRIPTORS.stop)
    if len(plan) != PLAN.size or len(descriptors) not in _PLAN_DESCRIPTORS:
        os._exit(1)  # the builder went on without this sandbox
    open_files, stem = PLAN.unpack(plan)
    root, dev, tmp, log, environ, last, *layers = descriptors
    mounts = rootfs.Mounts(root, dev, tmp, None if stem else last, layers[0] if layers else None)
    return Plan(mounts, log, environ, last if stem else environ, open_files, stem)


def _run_pid1(child: _Child, runtime: socket.socket) -> NoReturn:
    with _reporting(child) as report:
        _run(AHEAD, child, report)
        report.step = "plan"
        plan = _receive_plan(child.channel)
        # While pivot_root is half done (the old root lies over the new one) every process of the namespace counts as
        # chrooted, and a chrooted one may make no user namespace.
        if not runtime.recv(1):
            os._exit(1)  # the runtime failed and has said why
        for name, step in SETUP:
            report.step = name
            step(child, plan)
        report.step = "plan"
        child.log, child.environ, child.orders = plan.log, plan.environ, plan.orders
        child.open_files = plan.open_files
        socket.send_fds(runtime, [_WORD.pack(plan.open_files, plan.stem)], [plan.log, plan.environ, plan.orders])
        _run(DROP, child, report)
        _run(LAST, child, report)
        report.step = "exec of init"
        default_signals()
        os.closerange(0, 4)
        os.execve(INIT_PROGRAM, ["catatonit", "-P"], {})
    os._exit(1)


def _run_runtime(child: _Child, pid1: socket.socket, start: Callable[[_Child], None]) -> None:
    with _reporting(child) as report:
        _run(DROP, child, report)
        report.step = "plan"
        pid1.send(b"\1")
        word, descriptors, _, _ = socket.recv_fds(pid1, _WORD.size, 3)
        if not word:
            os._exit(1)  # pid 1 failed and has said why
        child.open_files, child.stem = _WORD.unpack(word)
        child.log, child.environ, child.orders = descriptors
        pid1.close()
        _run(LAST, child, report)
        report.step = "exec of runtime" if start is start_by_exec else "start of runtime"
        start(child)


def start_by_exec(child: _Child) -> NoReturn:
    """Become the image's runtime by exec."""
    os.chdir("/var/task")
    environ = variables(5)
    default_signals()
    os.execve(RUNTIME_PROGRAM, [RUNTIME_PROGRAM], environ)


def name_process(name: str) -> None:
    """What ps(1) calls the calling process."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def variables(file: int) -> dict[bytes, bytes]:
    """What is in a memfd of environment variables."""
    return dict(entry.partition(b"=")[::2] for entry in os.pread(file, MAX_ENVIRON, 0).split(b"\0") if b"=" in entry)


def start_here(child: _Child) -> None:
    """Go on as the runtime that a zygote has booted, with what it would have after exec."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
    name_process(os.path.basename(RUNTIME_PROGRAM))
    child.channel.detach()
    linux.close_from(4)  # the builder takes this for the start


def _run(steps: list[tuple[str, Callable[[AnyChild], None]]], child: AnyChild, report: _reporting) -> None:
    for name, step in steps:
        report.step = name
        step(child)


def default_signals() -> None:
    """Undo what the interpreter ignores: an ignored signal stays ignored over exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _reporting:  # noqa: N801  # reads as a with-statement
    """Tells the builder which step failed and why; nothing leaves the child otherwise."""

    def __init__(self, child: _Maker | _Child) -> None:
        self._child, self.step = child, ""

    def __enter__(self) -> _reporting:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            errno = error.errno if isinstance(error, OSError | StepFailed) else 0
            try:
                self._child.channel.send(RECORD.pack(Said.FAILED, errno or 0, 0, self.step.encode()[:32]))
            finally:
                os._exit(1)
