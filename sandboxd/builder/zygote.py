"""Zygotes: a booted runtime of one image, from which environments are forked.

Room: root, parent side, and the child side until the image's interpreter starts. May: make a zygote, ask it for
children. May not: believe it: whatever says that it is its child is held against the kernel's own word.

A zygote has no capability anywhere. It lives in a user namespace below which its children make theirs, and whose ids
only the *mapper* can give out: its maker, code of ours that stays behind there for nothing else (uid_map takes a write
from the parent namespace only, user_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import signal
import socket
import struct
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import NoReturn

import prctl

from sandboxd.builder import capabilities, init, linux, namespaces, rlimits, rootfs, seccomp
from sandboxd.builder.cgroups import Cgroup
from sandboxd.builder.steps import step
from sandboxd.errors import StepFailed
from sandboxd.privsep import channel as door

MARK = "var/runtime/zygote.py"  # an image whose runtime can be forked has it
MAPPING = struct.Struct("!ii")  # pid, first id; with its channel, and cgroup.procs of each hierarchy
_MAPPING_DESCRIPTORS = 5
_LADDER = ("capabilities", "facts", "init", "linux", "namespaces", "rlimits", "rootfs", "zygote_main")
_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
MEMORY_MB = 512  # what a child copies before it is in a group of its own stays counted here: 0.6 MB of each
PIDS = 32
_LATE_SECONDS = 10.0
_LOOKS = 8
_PF_EXITING = 0x4  # of include/linux/sched.h: set once, before anything is given back
_GIVEN_UP: dict[str, list[str]] = {name: ["0" * 16] for name in ("CapBnd", "CapInh", "CapPrm", "CapEff", "CapAmb")}
_GIVEN_UP |= {"Groups": [], "NoNewPrivs": ["1"], "Seccomp": ["2"], "Seccomp_filters": ["2"]}
_NAMESPACES_OF_ITS_OWN = ("cgroup", "ipc", "mnt", "net", "pid", "time", "uts")


def files(program: bytes) -> list[int]:
    """What every zygote gets, in sealed memfds: the ladder, the environments' filter, its own filter."""
    own = seccomp.compile_profile(seccomp.zygotes_profile())
    return [_sealed("ladder", _ladder()), _sealed("filter", program), _sealed("filter", own)]


def _ladder() -> bytes:
    """The files of ours that a zygote imports, as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("__init__", "errors", "builder/__init__", *(f"builder/{name}" for name in _LADDER)):
            archive.writestr(f"sandboxd/{name}.py", resources.files("sandboxd").joinpath(f"{name}.py").read_bytes())
        # The one name that an image's file knows: an image says nothing of who made it.
        archive.writestr("ladder.py", "from sandboxd.builder.zygote_main import serve as serve\n")
    return packed.getvalue()


def _sealed(name: str, content: bytes) -> int:
    """A memfd that nobody can change."""
    file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(file, content)
    door.seal(file)
    return file


@functools.cache  # an image never changes
def can_fork(image: str) -> bool:
    """Whether an image's runtime can be forked."""
    try:
        root = os.open(f"/i/{image}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.close(linux.open_beneath(root, MARK, os.O_PATH))
        return True
    except OSError:
        return False
    finally:
        os.close(root)


@dataclass(slots=True, eq=False)
class Zygote:
    """The builder's ends of a zygote; it holds no environment, and none holds it."""

    mapper: socket.socket
    requests: socket.socket
    children: int = 0  # asked for
    unborn: dict[socket.socket, float] = field(default_factory=dict)  # their channels, and since when

    def ask(self, ours: socket.socket, theirs: socket.socket, facts: tuple[int, int]) -> None:
        """Ask for a child that becomes an environment; raises OSError where the zygote is gone or does not keep up."""
        door.send(self.requests, b"\1", [theirs.fileno(), *facts])
        self.children += 1
        self.unborn[ours] = time.monotonic()

    def admit(self, pid: int, first_id: int, channel: socket.socket, cgroup: Cgroup) -> None:
        """Have a child put into its cgroup, its ids mapped and its clocks started; it is told to go on, or its channel
        is cut. `pid` is what the child says: the mapper does it for its own zygote's children only.
        """
        groups = cgroup.open_procs()
        try:
            door.send(self.mapper, MAPPING.pack(pid, first_id), [channel.fileno(), *groups])
        finally:
            door.close_all(groups)

    def is_late(self) -> bool:
        """Whether a child takes so long that none may come any more."""
        return any(time.monotonic() - since > _LATE_SECONDS for since in self.unborn.values())

    def close(self) -> None:
        """Ask for no more, and let nobody wait for what is not born; the mapper's channel is its environment's."""
        self.requests.close()
        for channel in self.unborn:
            with contextlib.suppress(OSError):  # it has ended by itself
                channel.shutdown(socket.SHUT_WR)
        self.unborn.clear()


def fork(cgroup: Cgroup, image: str, given: list[int], first_id: int) -> tuple[Zygote, int]:
    """A new zygote and the pid of its mapper, which waits for the ids of its user namespace. Raises StepFailed.

    `given`: the files of `files`, and the environ; `first_id`: the mapper's in the namespace, the zygote has the next.
    """
    with step("zygote's mounts"):
        mounts = rootfs.zygote_mounts_in_parent(image)
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        asking, asked = door.pair()
        with step("fork"), theirs, asked:
            asked.setblocking(True)
            mapper = os.fork()
            if mapper == 0:
                _run_mapper(cgroup, theirs, asked, mounts + given, first_id)
        return Zygote(ours, asking), mapper
    finally:
        door.close_all(mounts)


def check_child(cgroup: Cgroup, uids: Mapping[int, int]) -> None:
    """Raise StepFailed where the kernel does not say of a child that its group holds these processes and no other, each
    with its uid, and that every thread of theirs has given everything up.

    A thread or process is born with what its maker has. So where none is listed but who was found without anything, or
    at its end, before that, there never will be. From outside only the mapper puts one in, of which it is asked once,
    and it has done so when these are found there.
    """
    known: set[int] = set()
    for _ in range(_LOOKS):
        threads = cgroup.threads()
        if threads <= known and uids.keys() <= threads:
            return
        for thread in threads - known:
            try:
                _check_confined(thread, uids)
            except (StepFailed, OSError):  # OSError: it is gone, or nobody may look at its namespaces any more
                if thread in uids or not _is_exiting(thread):
                    raise
        known |= threads
    raise StepFailed("zygote", errno.EPERM, "its child's threads come and go")


def _check_confined(thread: int, uids: Mapping[int, int]) -> None:
    with open(f"/proc/{thread}/status") as file:
        said = {name: values.split() for name, _, values in (line.partition(":") for line in file)}
    uid = uids.get(int(said["Tgid"][0]))
    if uid is None:
        raise StepFailed("zygote", errno.EPERM, "its child keeps another process")
    for name, values in {"Uid": [str(uid)] * 4, "Gid": [str(uid)] * 4, **_GIVEN_UP}.items():
        if said.get(name) != values:
            raise StepFailed("zygote", errno.EPERM, f"{name} of its child is {' '.join(said.get(name, ['unknown']))}")
    with namespaces.opened(thread, "user") as last, namespaces.related(last, namespaces.NS_GET_PARENT) as own:
        for name in _NAMESPACES_OF_ITS_OWN:
            with namespaces.opened(thread, name) as one, namespaces.related(one, namespaces.NS_GET_USERNS) as owner:
                if not os.path.sameopenfile(owner, own):
                    raise StepFailed("zygote", errno.EPERM, f"the {name} namespace of its child is not its own")


def _is_exiting(thread: int) -> bool:
    """Whether a thread has run its last instruction: the maker, to begin with, may stay for a moment."""
    try:
        with open(f"/proc/{thread}/stat") as file:
            return bool(int(file.read().rpartition(")")[2].split()[6]) & _PF_EXITING)
    except (FileNotFoundError, ProcessLookupError):
        return True


def _run_mapper(
    cgroup: Cgroup, channel: socket.socket, requests: socket.socket, given: list[int], first_id: int
) -> NoReturn:
    """The mapper's whole life, after the fork: make the zygote, then map the ids of its children."""
    try:
        cgroup.enter_self()
        prctl.set_proctitle("sandboxd: zygote's mapper")
        descriptors = (0, 1, 2, channel.detach(), requests.detach(), *given)
        linux.keep_only(descriptors)
        channel = socket.socket(fileno=3)
        linux.unshare(linux.CLONE_NEWUSER)
        channel.send(b"\1")
        if not channel.recv(1):
            os._exit(1)
        signal.signal(signal.SIGCHLD, lambda *_: os._exit(0))  # without a zygote there is nothing to map
        zygote = os.fork()
        if zygote == 0:
            channel.detach()
            _become_zygote(first_id + 1)
        namespaces.become_in_child(first_id)
        linux.close_from(4)
        _map(channel, zygote)
    finally:
        os._exit(1)


def _map(channel: socket.socket, zygote: int) -> NoReturn:
    """A zygote itself never holds a way into a cgroup: who writes there by the host's root may move any process."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, MAPPING.size, _MAPPING_DESCRIPTORS)
        if len(request) != MAPPING.size:
            os._exit(0)
        pid, first_id = MAPPING.unpack(request)
        first, *groups = descriptors
        with socket.socket(fileno=first) as child:
            try:
                if _parent(pid) != zygote:
                    raise PermissionError(errno.EPERM, "no child of this zygote")
                for group in groups:
                    os.write(group, str(pid).encode())
                namespaces.map_ids_from_parent(pid, first_id)
                namespaces.start_clocks_from_parent(pid)
                child.send(b"\1")
            except OSError:
                child.shutdown(socket.SHUT_WR)
        door.close_all(groups)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _become_zygote(identity: int) -> NoReturn:
    try:
        requests, image, dev, proc, nursery, ladder, program, own_program, environ = range(4, 13)
        linux.unshare(_NAMESPACES)
        rootfs.private_propagation_in_child()
        rootfs.attach_zygote_in_child(image, dev, proc, nursery)
        linux.pivot_root_here()
        namespaces.host_name_in_child()
        linux.join_new_session_keyring()
        os.setsid()
        rlimits.set_fixed_in_child()
        namespaces.become_in_child(identity)
        capabilities.drop_all_in_child()
        capabilities.no_new_privs_in_child()
        own = os.pread(own_program, os.fstat(own_program).st_size, 0)
        variables = init.variables(environ)
        null = os.open("/dev/null", os.O_RDWR)
        linux.keep_only((null, null, null, requests, ladder, program), inheritable=6)
        init.default_signals()
        linux.load_seccomp(own)
        os.execve(init.RUNTIME_PROGRAM, [init.RUNTIME_PROGRAM], variables)
    finally:
        os._exit(1)
