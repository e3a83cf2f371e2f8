"""Mounts: the builder's own small tree, and the trees of environments.

Room: root. `prepare_builder_root` runs once in the builder; `…_in_parent` before an environment's fork; `…_in_child`
after it, in the environment's own mount namespace.

The builder lives in a tree of its own (a tmpfs with a handful of mounts) because every environment starts from a copy
of the builder's mount table: a short table is a fast copy, pins no mount of the host, and leaks no path of it.
mountinfo shows a bind mount's path inside its filesystem, so images and packages come as overlays whose lower
directories have short fixed names: all that an environment can read there is digests.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from sandboxd.builder import linux
from sandboxd.config import Config

READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
# Files and directories of proc that tell of the whole kernel and that everybody may read; others are root's alone.
MASKS = frozenset(
    """
    acpi asound bootconfig buddyinfo bus cgroups cmdline config.gz consoles crypto devices diskstats dma driver
    dynamic_debug execdomains fb fs interrupts iomem ioports irq kallsyms key-users keys latency_stats locks mdstat
    misc modules mtrr partitions pressure sched_debug schedstat scsi softirqs swaps sysrq-trigger timer_list
    timer_stats tty vmstat zoneinfo
    """.split()  # noqa: SIM905  # one word each is easier to read and to sort
)
_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9))
_DEV_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
)  # fmt: skip


def prepare_builder_root(config: Config) -> None:
    """Move this process into a mount namespace and tree of its own, with a proc of its own pid namespace.

    `/i` images, `/c` code, `/d` the environments' /dev, `/e` empty, `/r` and `/p` where an
    environment's root and proc are attached, `/dev` the host's (loop devices).
    """
    linux.unshare(linux.CLONE_NEWNS)
    host = os.open("/", os.O_PATH | os.O_CLOEXEC)
    linux.mount_setattr(host, 0, propagation=linux.MS_PRIVATE, recursive=True)
    os.close(host)
    sources = {
        "i": linux.open_tree(linux.AT_FDCWD, str(config.images_dir)),
        "c": linux.open_tree(linux.AT_FDCWD, str(config.code_dir)),
        "dev": linux.open_tree(linux.AT_FDCWD, "/dev"),
        "proc": linux.new_mount("proc", linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC),
        "d": _devices(),
    }
    for name in ("i", "c"):
        linux.mount_setattr(sources[name], linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV)
    tree = linux.new_mount("tmpfs", linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV, mode="0755", size="1m")
    place = os.open(config.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.move_mount(tree, place)
    os.close(place)
    for name in (*sources, "e", "r", "p"):
        os.mkdir(name, 0o755, dir_fd=tree)
    for name, mount in sources.items():
        _attach(mount, tree, name)
    os.fchdir(tree)
    os.close(tree)
    linux.pivot_root_here()


def _devices() -> int:
    """A tmpfs with the devices that a function may have; made here because only the host's root can mknod."""
    tree = linux.new_mount("tmpfs", linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC, mode="0755", size="64k")
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    umask = os.umask(0)
    for name, major, minor in _DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
    os.umask(umask)
    for name, target in _DEV_LINKS:
        os.symlink(target, name, dir_fd=directory)
    os.close(directory)
    return tree


def _attach(mount: int, root: int, path: str) -> None:
    """Attach a detached mount below a directory, never through a symbolic link, and close its descriptor."""
    target = linux.open_beneath(root, path, os.O_PATH)
    try:
        linux.move_mount(mount, target)
    finally:
        os.close(target)
        os.close(mount)


@dataclass(slots=True)
class Mounts:
    """The detached mounts of one environment."""

    root: int
    dev: int
    tmp: int
    code: int | None  # None: comes later, to a stem


def _read_only_copy(path: str, attributes: int) -> int:
    mount = linux.open_tree(linux.AT_FDCWD, path)
    linux.mount_setattr(mount, attributes)
    return mount


def image_mount_in_parent(image: str) -> int:
    """A detached read-only mount of an image: an overlay of its own, or functions could meet at its inodes (flock)."""
    return linux.new_mount("overlay", READ_ONLY, lowerdir=f"/i/{image}:/e")


def code_mount_in_parent(code: str) -> int:
    """A detached read-only mount of a code package."""
    return linux.new_mount("overlay", READ_ONLY, lowerdir=f"/c/{code}:/e")


def attach_code_from_parent(pid: int, mount: int) -> None:
    """Attach a code package in the mount namespace of a stem, from outside: nothing in there has the power."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(theirs, linux.CLONE_NEWNS)
        try:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _attach(mount, root, "var/task")
            finally:
                os.close(root)
        finally:
            linux.setns(own, linux.CLONE_NEWNS)
    finally:
        os.close(theirs)
        os.close(own)


def dev_mount_in_parent() -> int:
    """A detached read-only copy of the prepared /dev (without nodev: its devices must work)."""
    return _read_only_copy("/d", linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC)


def private_propagation_in_child() -> None:
    """Let no mount or unmount of this namespace travel to another, nor theirs here."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    linux.mount_setattr(root, 0, propagation=linux.MS_PRIVATE, recursive=True)
    os.close(root)


def attach_in_child(mounts: Mounts) -> None:
    """Attach root, devices, code, /tmp and the prepared proc below /r and stand there, ready for pivot_root."""
    place = os.open("/r", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.move_mount(mounts.root, place)
    os.close(place)
    _attach(os.open("/p", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), mounts.root, "proc")
    _attach(mounts.dev, mounts.root, "dev")
    if mounts.code is not None:
        _attach(mounts.code, mounts.root, "var/task")
    _attach(mounts.tmp, mounts.root, "tmp")
    os.fchdir(mounts.root)
    os.close(mounts.root)


def proc_in_child() -> None:
    """A proc of the new pid namespace at /p, /proc/sys read-only, and covered what is kernel-wide and readable."""
    attributes = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _attach(linux.new_mount("proc", attributes), root, "p")
    os.close(root)
    proc = os.open("/p", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for entry in os.scandir("/p"):
        # What only root may read, nobody can: the host's root has no name in here.
        readable = entry.name in MASKS and entry.stat(follow_symlinks=False).st_mode & 0o005
        if readable and entry.is_dir():
            _attach(_read_only_copy("/e", READ_ONLY), proc, entry.name)
        elif readable:
            _attach(_read_only_copy("/d/null", attributes & ~linux.MOUNT_ATTR_NODEV), proc, entry.name)
    _attach(_read_only_copy("/p/sys", attributes | linux.MOUNT_ATTR_RDONLY), proc, "sys")
    os.close(proc)
