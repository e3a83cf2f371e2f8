"""The system calls that Python has no name for, one function each, with one way to fail: OSError.

Room: root, both sides of a fork. May: ctypes (nowhere else in the builder). May not: decide anything.

Constants keep the kernel headers' names. Sources: the section 2 page of the same name for each call.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = c_long

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MNT_DETACH = 2
MS_PRIVATE = 1 << 18
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_SET_MODE_FILTER = 1

# From 424 on, system calls have one number on every architecture.
_SYS_open_tree, _SYS_move_mount, _SYS_fsopen, _SYS_fsconfig, _SYS_fsmount = 428, 429, 430, 431, 432
_SYS_close_range, _SYS_openat2, _SYS_mount_setattr = 436, 437, 442
_SYS_pivot_root, _SYS_keyctl, _SYS_seccomp = {"x86_64": (155, 250, 317), "aarch64": (41, 219, 277)}[platform.machine()]


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def _syscall(name: str, number: int, *arguments: object) -> int:
    return _checked(name, _libc.syscall(c_long(number), *arguments))


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` (CLONE_NEW*) name for new ones."""
    _checked("unshare", _libc.unshare(c_int(flags)))


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace of a descriptor; `kind` is the CLONE_NEW* that it must be."""
    _checked("setns", _libc.setns(c_int(descriptor), c_int(kind)))


def pivot_root_here() -> None:
    """Make the current directory (a mount point) the root, and drop the old root.

    pivot_root(".", ".") stacks the old root on the new one, so that no directory is needed for it (pivot_root(2)).
    """
    _syscall("pivot_root", _SYS_pivot_root, c_char_p(b"."), c_char_p(b"."))
    _checked("umount2", _libc.umount2(c_char_p(b"."), c_int(MNT_DETACH)))
    os.chdir("/")


def open_tree(directory: int, path: str, flags: int = OPEN_TREE_CLONE) -> int:
    """A detached copy of the mount at a path; ends with its descriptor unless attached."""
    return _syscall("open_tree", _SYS_open_tree, c_int(directory), c_char_p(path.encode()),
                    c_uint(flags | os.O_CLOEXEC))  # fmt: skip


def move_mount(mount: int, target: int) -> None:
    """Attach a detached mount over the directory or file of a descriptor."""
    _syscall("move_mount", _SYS_move_mount, c_int(mount), c_char_p(b""), c_int(target), c_char_p(b""),
             c_uint(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))  # fmt: skip


def mount_setattr(mount: int, attributes: int, *, propagation: int = 0, recursive: bool = False) -> None:
    """Set MOUNT_ATTR_* flags on a mount, and its propagation (MS_PRIVATE)."""
    request = struct.pack("=QQQQ", attributes, 0, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", _SYS_mount_setattr, c_int(mount), c_char_p(b""), c_uint(flags),
             c_char_p(request), c_ulong(len(request)))  # fmt: skip


def new_mount(filesystem: str, attributes: int, **options: str | None) -> int:
    """A detached mount of a new filesystem instance; an option with the value None is a flag."""
    context = _syscall("fsopen", _SYS_fsopen, c_char_p(filesystem.encode()), c_uint(1))  # FSOPEN_CLOEXEC
    try:
        for key, value in options.items():
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            _syscall("fsconfig", _SYS_fsconfig, c_int(context), c_uint(command), c_char_p(key.encode()),
                     c_char_p(None if value is None else value.encode()), c_int(0))  # fmt: skip
        _syscall("fsconfig", _SYS_fsconfig, c_int(context), c_uint(FSCONFIG_CMD_CREATE), c_void_p(), c_void_p(),
                 c_int(0))  # fmt: skip
        return _syscall("fsmount", _SYS_fsmount, c_int(context), c_uint(1), c_uint(attributes))  # FSMOUNT_CLOEXEC
    finally:
        os.close(context)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a path below a directory: no way up, no symbolic link anywhere in it (openat2)."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    return _syscall("openat2", _SYS_openat2, c_int(directory), c_char_p(os.fsencode(path)), c_char_p(how),
                    c_ulong(len(how)))  # fmt: skip


def keep_only(descriptors: Sequence[int], *, inheritable: int = 0) -> None:
    """Make these descriptors 0, 1, 2 and so on, the first `inheritable` of them over exec, and close all others."""
    # Copies above every number that is a target or a source, so that none is overwritten before its turn.
    above = max(*descriptors, len(descriptors)) + 1
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in descriptors]
    for number, copy in enumerate(copies):
        os.dup2(copy, number, inheritable=number < inheritable)
    close_from(len(descriptors))


def syncfs(descriptor: int) -> None:
    """Write out everything of the filesystem that a descriptor is in."""
    _checked("syncfs", _libc.syncfs(c_int(descriptor)))


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    _syscall("close_range", _SYS_close_range, c_uint(first), c_uint(0xFFFFFFFF), c_uint(0))


def prctl(operation: int, argument: int = 0, argument3: int = 0) -> int:
    """prctl with up to two arguments."""
    result = _libc.prctl(c_int(operation), c_ulong(argument), c_ulong(argument3), c_ulong(0), c_ulong(0))
    return _checked("prctl", result)


def join_new_session_keyring() -> None:
    """Leave the session keyring that was inherited for a new, empty one (keyctl(2))."""
    try:
        _syscall("keyctl", _SYS_keyctl, c_int(1), c_void_p())  # KEYCTL_JOIN_SESSION_KEYRING, anonymous
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keys has none to inherit
            raise


_CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread


def capset_none() -> None:
    """Empty the effective, permitted and inheritable sets."""
    _checked("capset", _libc.capset(c_char_p(_CAPABILITY_HEADER), c_char_p(bytes(24))))


def capget() -> bytes:
    """The three sets as the kernel holds them; 24 zero bytes mean none at all."""
    data = ctypes.create_string_buffer(24)
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER, 8)
    _checked("capget", _libc.capget(header, data))
    return data.raw


class _Rtentry(ctypes.Structure):
    """struct rtentry of <net/route.h>."""

    _fields_ = [
        ("rt_pad1", c_ulong), ("rt_dst", ctypes.c_char * 16), ("rt_gateway", ctypes.c_char * 16),
        ("rt_genmask", ctypes.c_char * 16), ("rt_flags", ctypes.c_ushort), ("rt_pad2", ctypes.c_short),
        ("rt_pad3", c_ulong), ("rt_tos", ctypes.c_ubyte), ("rt_class", ctypes.c_ubyte),
        ("rt_pad4", ctypes.c_short * 3), ("rt_metric", ctypes.c_short), ("rt_dev", c_char_p), ("rt_mtu", c_ulong),
        ("rt_window", c_ulong), ("rt_irtt", ctypes.c_ushort),
    ]  # fmt: skip


def add_route(control: int, device: str, destination: bytes, gateway: bytes, mask: bytes, flags: int) -> None:
    """Add an IPv4 route through a device (SIOCADDRT, netdevice(7)); addresses are struct sockaddr_in."""
    entry = _Rtentry(rt_flags=flags, rt_dev=device.encode())
    for name, value in (("rt_dst", destination), ("rt_gateway", gateway), ("rt_genmask", mask)):
        ctypes.memmove(ctypes.addressof(entry) + getattr(_Rtentry, name).offset, value, 16)
    _checked("ioctl SIOCADDRT", _libc.ioctl(c_int(control), c_ulong(0x890B), ctypes.byref(entry)))


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", c_char_p)]


def load_seccomp(program: bytes) -> None:
    """Put a BPF program (struct sock_filter[], 8 bytes each) in front of every further system call."""
    fprog = _SockFprog(len(program) // 8, program)
    _syscall("seccomp", _SYS_seccomp, c_uint(SECCOMP_SET_MODE_FILTER), c_uint(0), ctypes.byref(fprog))
