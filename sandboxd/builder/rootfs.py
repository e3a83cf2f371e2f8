"""Mounts: the builder's own small tree, and the trees of environments.

Room: root. `prepare_builder_root` runs once in the builder; `…_in_parent` before an environment's fork; `…_in_child`
after it, in the environment's own mount namespace.

The builder lives in a tree of its own (a tmpfs with a handful of mounts) because every environment starts from a copy
of the builder's mount table: a short table is a fast copy, pins no mount of the host, and leaks no path of it.
mountinfo shows a bind mount's path inside its filesystem, so images and packages come as overlays whose lower
directories have short fixed names: all that an environment can read there is digests.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxd.builder import facts, linux, namespaces

if TYPE_CHECKING:  # an image's interpreter has this file too, but not that one
    from sandboxd.config import Config

READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
_DEV = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC
_ATTRIBUTES = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
# What stays of proc's top, beside processes: links to the reader's own, and what namespaces of its own answer. All else
# tells of the whole kernel, in whichever version has it.
_KEPT = frozenset(("self", "thread-self", "mounts", "net", "sysvipc"))
# What is said instead: the same for every environment, or of each its own.
SAID = {"cpuinfo": "f/cpuinfo", "loadavg": "f/loadavg", "sys": "f/sys", "meminfo": "m/meminfo", "stat": "m/stat"}
_NO_FILE, _NO_DIRECTORY = "f/none", "f/nothing"
_PLACES = ("e", "f", "m", "r", "p")
_UUID = "kernel/random/uuid"
_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9))
_DEV_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
)  # fmt: skip


def prepare_builder_root(config: Config) -> None:
    """Move this process into a mount namespace and tree of its own, with a proc of its own pid namespace.

    `/i` images, `/c` code, `/d` the environments' /dev, `/f` facts for their /proc, `/e` and `/l` empty, `/r`, `/p` and
    `/m` where an environment's root, proc and own facts are attached, `/dev` the host's (loop devices).
    """
    linux.unshare(linux.CLONE_NEWNS)
    host = os.open("/", os.O_PATH | os.O_CLOEXEC)
    linux.mount_setattr(host, 0, propagation=linux.MS_PRIVATE, recursive=True)
    os.close(host)
    sources = {
        "i": linux.open_tree(linux.AT_FDCWD, str(config.images_dir)),
        "c": linux.open_tree(linux.AT_FDCWD, str(config.code_dir)),
        "dev": linux.open_tree(linux.AT_FDCWD, "/dev"),
        "proc": linux.new_mount("proc", _ATTRIBUTES),
        "d": _devices(),
    }
    for name in ("i", "c"):
        linux.mount_setattr(sources[name], linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV)
    tree = _tmpfs(linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV, size="16m", nr_inodes="4k")
    place = os.open(config.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.move_mount(tree, place)
    os.close(place)
    for name in (*sources, *_PLACES, "l"):
        os.mkdir(name, 0o755, dir_fd=tree)
    for name, mount in sources.items():
        _attach(mount, tree, name)
    os.fchdir(tree)
    os.close(tree)
    linux.pivot_root_here()
    _write_facts()


def _tmpfs(attributes: int, *, size: str, nr_inodes: str) -> int:
    """A detached tmpfs; both bounds are given because their defaults tell how much memory the host has."""
    return linux.new_mount("tmpfs", attributes, mode="0755", size=size, nr_inodes=nr_inodes)


def _devices() -> int:
    """A tmpfs with the devices that a function may have; made here because only the host's root can mknod."""
    tree = _tmpfs(linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC, size="64k", nr_inodes="32")
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    umask = os.umask(0)
    for name, major, minor in _DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
    os.umask(umask)
    for name, target in _DEV_LINKS:
        os.symlink(target, name, dir_fd=directory)
    os.close(directory)
    return tree


def _write_facts() -> None:
    os.mkdir(f"/{_NO_DIRECTORY}")
    files = {"none": "", "cpuinfo": facts.processors(), "loadavg": facts.LOAD, "stat": facts.idle_processors()}
    files |= {f"sys/{name}": text for name, text in facts.sys_files(namespaces.HOST_NAME).items()}
    files[f"sys/{_UUID}"] = ""  # the kernel's own lies over it
    for name, text in files.items():
        os.makedirs(os.path.dirname(f"/f/{name}"), exist_ok=True)
        with open(f"/f/{name}", "w") as file:
            file.write(text)


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
    layers: int | None  # None: the function has none, or they come with the code


def _read_only_copy(path: str, attributes: int) -> int:
    mount = linux.open_tree(linux.AT_FDCWD, path)
    linux.mount_setattr(mount, attributes)
    return mount


def image_mount_in_parent(image: str) -> int:
    """A detached read-only mount of an image: an overlay of its own, or functions could meet at its inodes (flock).

    The empty directory comes first because statfs(2) answers for the topmost: not how full the host's disk is.
    """
    return linux.new_mount("overlay", READ_ONLY, lowerdir=f"/e:/i/{image}")


def code_mount_in_parent(code: str) -> int:
    """A detached read-only mount of a code package."""
    return linux.new_mount("overlay", READ_ONLY, lowerdir=f"/e:/c/{code}")


def layers_mount_in_parent(layers: Sequence[bytes]) -> int:
    """A detached read-only mount of layers over one another, the last on top.

    An option of fsconfig(2) has at most 255 bytes, too few for four digests in hex. So each package has a second,
    shorter name while it is looked up; that is the one in mountinfo.
    """
    names = [layer_name(digest) for digest in layers]
    try:
        for name, digest in zip(names, layers, strict=True):
            os.symlink(f"/c/{digest.hex()}", name)
        return linux.new_mount("overlay", READ_ONLY, lowerdir=":".join(["/e", *reversed(names)]))
    finally:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def layer_name(digest: bytes) -> str:
    """What a layer is called in mountinfo."""
    return f"/l/{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def attach_from_parent(pid: int, path: str, mount: int) -> None:
    """Attach a mount in the mount namespace of a stem, from outside, and close its descriptor: nothing in there has
    the power."""
    with contextlib.ExitStack() as held:

        def hold(descriptor: int) -> int:
            held.callback(os.close, descriptor)
            return descriptor

        hold(mount)
        own = hold(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        linux.setns(hold(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)), linux.CLONE_NEWNS)
        held.callback(linux.setns, own, linux.CLONE_NEWNS)
        root = hold(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        linux.move_mount(mount, hold(linux.open_beneath(root, path, os.O_PATH)))


def dev_mount_in_parent() -> int:
    """A detached read-only mount of the prepared /dev (without nodev: its devices must work), its inodes too."""
    return linux.new_mount("overlay", _DEV, lowerdir="/e:/d")


def facts_mounts_in_parent() -> tuple[int, int, int]:
    """What one environment's /proc says: what all have in common, its own, and its own meminfo open for writing.

    Detached mounts, with inodes that are no other environment's. Made here and not in the child, whose tmpfs would show
    its owner's host uid in mountinfo, and whose overlay the path of its tree.
    """
    common = linux.new_mount("overlay", _ATTRIBUTES, lowerdir="/e:/f")
    tree = _tmpfs(_ATTRIBUTES, size="64k", nr_inodes="8")
    with open("/f/stat") as idle, open("stat", "w", opener=lambda name, flags: _create(name, flags, tree)) as file:
        file.write(idle.read() + facts.booted_now())
    return common, tree, _create("meminfo", os.O_WRONLY | os.O_CREAT, tree)


def zygote_mounts_in_parent(image: str) -> list[int]:
    """Detached mounts of a zygote's tree: image, dev, proc, nursery."""
    mounts: list[int] = []
    try:
        mounts.append(image_mount_in_parent(image))
        mounts.append(dev_mount_in_parent())
        mounts.append(linux.new_mount("proc", _ATTRIBUTES, hidepid="invisible"))
        mounts.append(_nursery())
        return mounts
    except BaseException:
        for mount in mounts:
            os.close(mount)
        raise


def _nursery() -> int:
    """A detached tree with the places where a zygote's children put their sandboxes together."""
    tree = _tmpfs(_ATTRIBUTES, size="16k", nr_inodes="8")
    for name in _PLACES:
        os.mkdir(name, 0o755, dir_fd=tree)
    return tree


def _create(name: str, flags: int, directory: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o444, dir_fd=directory)


def write_memory_from_parent(file: int, megabytes: int) -> None:
    """Say how much memory an environment has; `file` is that of `facts_mounts_in_parent`."""
    os.truncate(file, os.pwrite(file, facts.memory(megabytes).encode(), 0))


def private_propagation_in_child() -> None:
    """Let no mount or unmount of this namespace travel to another, nor theirs here."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    linux.mount_setattr(root, 0, propagation=linux.MS_PRIVATE, recursive=True)
    os.close(root)


def attach_in_child(mounts: Mounts) -> None:
    """Attach root, devices, code, /tmp and the prepared proc at `r` and stand there, ready for pivot_root."""
    place = os.open("r", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.move_mount(mounts.root, place)
    os.close(place)
    _attach(os.open("p", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), mounts.root, "proc")
    _attach(mounts.dev, mounts.root, "dev")
    if mounts.code is not None:
        _attach(mounts.code, mounts.root, "var/task")
    if mounts.layers is not None:
        _attach(mounts.layers, mounts.root, "opt")
    _attach(mounts.tmp, mounts.root, "tmp")
    os.fchdir(mounts.root)
    os.close(mounts.root)


def attach_zygote_in_child(image: int, dev: int, proc: int, nursery: int) -> None:
    """Put a zygote's root together at `r` and stand there, ready for pivot_root.

    `proc` is the builder's pid namespace's, because a child may mount a new one only where it sees one (the kernel's
    mount_too_revealing); hidepid leaves nothing but the zygote itself in it.
    """
    place = os.open("r", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.move_mount(image, place)
    os.close(place)
    _attach(proc, image, "proc")
    _attach(dev, image, "dev")
    _attach(nursery, image, "mnt")
    os.fchdir(image)
    os.close(image)


def is_covered(entry: os.DirEntry[str]) -> bool:
    """Whether a file of ours, or nothing, lies over an entry at the top of a proc."""
    if entry.name.isdigit() or entry.name in _KEPT:
        return False
    # What only root may read, nobody can: the host's root has no name in there.
    return entry.name in SAID or bool(entry.stat(follow_symlinks=False).st_mode & 0o005)


def proc_in_child(common_facts: int, own_facts: int) -> None:
    """A proc of the new pid namespace at `p`, where facts of ours lie over what is kernel-wide, or nothing at all."""
    place = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _attach(linux.new_mount("proc", _ATTRIBUTES), place, "p")
    _attach(own_facts, place, "m")
    _attach(common_facts, place, "f")
    os.close(place)
    proc = os.open("p", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    uuid = _read_only_copy(f"p/sys/{_UUID}", _ATTRIBUTES | linux.MOUNT_ATTR_RDONLY)
    for entry in filter(is_covered, os.scandir("p")):
        source = SAID.get(entry.name) or (_NO_DIRECTORY if entry.is_dir() else _NO_FILE)
        _attach(_read_only_copy(source, READ_ONLY | _ATTRIBUTES), proc, entry.name)
    _attach(uuid, proc, f"sys/{_UUID}")
    os.close(proc)
