"""How each step of the isolation is left out: runs in the rooms of root before they begin (tests.support.patched).

A step of the builder's visible lists is named `LIST: step` and taken from its list, a system call is named `call: NAME`
and taken from the profile; any other step has a function here that undoes it. `apart from` patches leave nothing out by
themselves but uncover a step that another one stands in front of.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sandboxd.builder import cgroups, environment, init, linux, namespaces, rootfs, seccomp, volumes, zygote

LISTS: dict[str, list[Any]] = {name: getattr(init, name) for name in ("FIRST", "AHEAD", "SETUP", "DROP", "LAST")}
PATCHES: dict[str, Callable[[], None]] = {}
CANARY = "sandboxd-test-canary"


def leave_out(room: str, names: str) -> None:
    """Leave these steps out (their names, with semicolons between them) where the room is root's."""
    if not room.startswith("sandboxd.builder."):
        return
    zygote.can_fork = lambda image: False  # type: ignore[assignment]  # its children's steps are not this process's
    for name in names.split("; "):
        if name in PATCHES:
            PATCHES[name]()
        elif name.startswith("call: "):
            _forbid(name.removeprefix("call: "))
        else:
            # On the host itself, the steps behind it would change the host: its name, to begin with.
            assert name != "FIRST: namespaces", "one namespace at a time"
            which, _, step = name.partition(": ")
            remaining = [entry for entry in LISTS[which] if entry[0] != step]
            assert len(remaining) == len(LISTS[which]) - 1, name
            LISTS[which][:] = remaining


def _patch(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def remember(function: Callable[[], None]) -> Callable[[], None]:
        PATCHES[name] = function
        return function

    return remember


def _forbid(call: str) -> None:
    document, original = seccomp.profile(), seccomp.profile
    for rule in document["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != call]
    seccomp.profile = lambda name="": original(name) if name == "zygote.json" else document


# namespaces: one flag at a time


def _without_flag(flag: str) -> Callable[[], None]:
    def patch() -> None:
        namespaces.FIRST_NAMESPACES &= ~getattr(linux, flag)

    return patch


for _flag in (
    "CLONE_NEWUSER",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWNET",
    "CLONE_NEWIPC",
    "CLONE_NEWUTS",
    "CLONE_NEWTIME",
):
    PATCHES[f"namespaces: {_flag}"] = _without_flag(_flag)


@_patch("ids: no supplementary groups")
def _keep_groups() -> None:
    os.setgroups([0])
    os.setgroups = lambda _: None  # type: ignore[assignment]


@_patch("apart from groups: the builder has one")
def _have_groups() -> None:
    os.setgroups([0])


@_patch("id maps: host uids of its own")
def _one_uid_for_all() -> None:
    environment.Host.uid = lambda self, slot: self._config.uid_base  # type: ignore[method-assign]


@_patch("apart from the keyring: the builder's has a name")
def _name_the_keyring() -> None:
    import ctypes

    linux._syscall("keyctl", linux._SYS_keyctl, ctypes.c_int(1), ctypes.c_char_p(CANARY.encode()))


@_patch("descriptors: all others closed")
def _close_nothing() -> None:
    keep = init._descriptors

    def descriptors(child: init._Child) -> None:
        linux.close_from = lambda first: None
        keep(child)

    init._descriptors = descriptors


@_patch("apart from close-on-exec: a descriptor is leaked")
def _leak() -> None:
    init.FIRST.append(("leak", lambda _: _leak_here()))


def _leak_here() -> None:
    os.dup2(os.memfd_create(CANARY), 50, inheritable=True)


# mounts


@_patch("apart from the builder's tree: mounts travel from it")
def _share_builder_tree() -> None:
    prepare = rootfs.prepare_builder_root

    def shared(config: Any) -> None:
        prepare(config)
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        linux.mount_setattr(root, 0, propagation=1 << 20, recursive=True)  # MS_SHARED
        os.close(root)

    rootfs.prepare_builder_root = shared


@_patch("builder's tree: one of its own")
def _stay_in_the_hosts_tree() -> None:
    rootfs.prepare_builder_root = lambda config: None


@_patch("proc: masks")
def _mask_nothing() -> None:
    rootfs.is_covered = lambda entry: entry.name in rootfs.SAID


def _without_attribute(path: str, attribute: int) -> None:
    copy = rootfs._read_only_copy
    rootfs._read_only_copy = lambda p, attributes: copy(p, attributes & ~attribute if p == path else attributes)


@_patch("proc: facts of its own")
def _say_nothing() -> None:
    rootfs.SAID.clear()
    rootfs._KEPT |= {"cpuinfo", "loadavg", "meminfo", "stat", "sys"}


@_patch("clocks: begin at 0")
def _clocks_of_the_host() -> None:
    namespaces.start_clocks_from_parent = lambda pid: None


@_patch("proc: facts read-only")
def _proc_sys_writable() -> None:
    _without_attribute("f/sys", linux.MOUNT_ATTR_RDONLY)


@_patch("dev: read-only")
def _dev_writable() -> None:
    rootfs._DEV &= ~linux.MOUNT_ATTR_RDONLY


@_patch("dev: the prepared one")
def _hosts_dev() -> None:
    flags = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC
    rootfs.dev_mount_in_parent = lambda: rootfs._read_only_copy("/dev", flags)


@_patch("image and code: read-only")
def _image_writable() -> None:
    rootfs.READ_ONLY &= ~linux.MOUNT_ATTR_RDONLY


@_patch("image and code: nosuid")
def _image_suid() -> None:
    rootfs.READ_ONLY &= ~linux.MOUNT_ATTR_NOSUID


@_patch("image and code: nodev")
def _image_devices() -> None:
    rootfs.READ_ONLY &= ~linux.MOUNT_ATTR_NODEV


@_patch("image: an overlay of its own")
def _image_by_bind() -> None:
    rootfs.image_mount_in_parent = lambda image: rootfs._read_only_copy(f"/i/{image}", rootfs.READ_ONLY)


@_patch("code: an overlay of its own")
def _code_by_bind() -> None:
    rootfs.code_mount_in_parent = lambda code: rootfs._read_only_copy(f"/c/{code}", rootfs.READ_ONLY)


@_patch("pivot_root: the old root gone")
def _keep_old_root() -> None:
    import ctypes

    def pivot(*_: object) -> None:
        linux._syscall("pivot_root", linux._SYS_pivot_root, ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
        os.chdir("/")

    init.SETUP[:] = [(name, pivot if name == "pivot_root" else step) for name, step in init.SETUP]


@_patch("tmp volume: nosuid, nodev")
def _plain_tmp() -> None:
    make = linux.new_mount
    linux.new_mount = lambda kind, attributes, **options: make(kind, 0 if kind == "ext4" else attributes, **options)


@_patch("tmp volume: one for each environment")
def _one_tmp_for_all() -> None:
    def make(self: volumes.Volumes, size_mb: int, owner: int) -> int:
        os.makedirs("/x", exist_ok=True)
        os.chmod("/x", 0o777)
        return linux.open_tree(linux.AT_FDCWD, "/x")

    volumes.Volumes.make = make  # type: ignore[method-assign]


# cgroups


def _never_write(*names: str) -> Callable[[], None]:
    def patch() -> None:
        write = cgroups._set
        cgroups._set = lambda directory, name, value: None if name in names else write(directory, name, value)

    return patch


# Files of v2 and of v1. On v2 TCP's buffers are a part of memory.max; on v1 they have a limit of their own.
LIMITS: dict[str, tuple[str, ...]] = {
    "cgroup: memory": ("memory.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "cgroup: swap": ("memory.swap.max", "memory.memsw.limit_in_bytes"),
    "cgroup: TCP buffers": ("memory.max", "memory.kmem.tcp.limit_in_bytes"),
    "cgroup: pids": ("pids.max",),
    "cgroup: cpu": ("cpu.max", "cpu.cfs_quota_us"),
}
PATCHES |= {name: _never_write(*files) for name, files in LIMITS.items()}


@_patch("network: link")
def _no_link() -> None:
    environment.EnvironmentSpec.linked = False  # type: ignore[method-assign, assignment]


def _without_door(**unasked: Any) -> None:
    doors = environment._doors_here
    environment._doors_here = lambda spec: doors(replace(spec, **unasked))


@_patch("network: resolver")
def _no_resolver() -> None:
    _without_door(host_ports=())


@_patch("network: door for Invoke")
def _no_invoke_door() -> None:
    _without_door(invoke_door=False)


@_patch("cgroup: freeze")
def _never_freeze() -> None:
    cgroups.Cgroup.open_freeze = lambda self: os.open("/dev/null", os.O_WRONLY)  # type: ignore[method-assign]


@_patch("cgroup: kill")
def _never_kill() -> None:
    cgroups.Cgroup.kill = lambda self: None  # type: ignore[method-assign]


@_patch("FIRST: cgroup")
def _enter_no_cgroup() -> None:
    init.FIRST[:] = init.FIRST[1:]


@_patch("out-of-memory rank")
def _no_rank() -> None:
    environment._OOM_SCORE = 0
