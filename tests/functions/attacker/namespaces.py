"""Namespaces: standing in the host's, making new ones, entering others."""

import ctypes
import fcntl
import os
import signal
import socket
import struct

from attack import collection, libc, opens, syscall

ATTACKS, attack = collection()
KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
FLAGS = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
CLONE, UNSHARE, SETNS, CLONE3 = 56, 272, 308, 435
CLONE_PARENT, CLONE_INTO_CGROUP = 0x8000, 0x200000000


def _clone(flags):
    """clone without a new stack, as fork does it; the child ends at once."""
    child = libc.syscall(*map(ctypes.c_long, (CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)))
    if child == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return "a child"


def _clone3(flags, cgroup=0):
    arguments = struct.pack("=11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    child = libc.syscall(ctypes.c_long(CLONE3), ctypes.c_char_p(arguments), ctypes.c_ulong(len(arguments)))
    if child == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return "a child"


def _of_kind(kind):
    def in_the_hosts(host):
        own = os.readlink(f"/proc/self/ns/{kind}")
        return own if own in (host["namespaces"][kind], host["neighbour_namespaces"].get(kind)) else None

    def unshare(host):
        return syscall(UNSHARE, FLAGS[kind])

    def clone(host):
        return _clone(FLAGS[kind])

    def clone3(host):
        return _clone3(FLAGS[kind])

    def open_of_pid_1(host):
        return opens(f"/proc/1/ns/{kind}")

    def setns(host):
        return syscall(SETNS, os.open(f"/proc/self/ns/{kind}", os.O_RDONLY), FLAGS[kind])

    return {
        f"{kind}_namespace_is_shared": in_the_hosts,
        f"unshare_{kind}": unshare,
        f"clone_{kind}": clone,
        f"clone3_{kind}": clone3,
        f"open_{kind}_namespace_of_pid_1": open_of_pid_1,
        f"setns_{kind}": setns,
    }


for _kind in KINDS:
    ATTACKS.update(_of_kind(_kind))


@attack
def setns_by_pidfd(host):
    return syscall(SETNS, os.pidfd_open(1), FLAGS["mnt"] | FLAGS["net"] | FLAGS["pid"])


@attack
def clone_parent(host):
    return _clone(CLONE_PARENT)


@attack
def clone3_into_cgroup(host):
    return _clone3(CLONE_INTO_CGROUP, os.open("/", os.O_PATH | os.O_DIRECTORY))


@attack
def next_child_in_another_namespace(host):
    pairs = (("pid", "pid_for_children"), ("time", "time_for_children"))
    return [pair for pair in pairs if len({os.readlink(f"/proc/self/ns/{name}") for name in pair}) > 1]


def _ids_mapped(kind):
    lines = [line.split() for line in open(f"/proc/self/{kind}_map")]
    return [line for line in lines if int(line[2]) != 1 or int(line[0]) == 0]


@attack
def more_uids_than_one(host):
    return _ids_mapped("uid")


@attack
def more_gids_than_one(host):
    return _ids_mapped("gid")


@attack
def groups_may_be_set(host):
    return open("/proc/self/setgroups").read().strip() != "deny"


@attack
def owner_of_user_namespace(host):
    return fcntl.ioctl(os.open("/proc/self/ns/user", os.O_RDONLY), 0xB701) or "returned 0"  # NS_GET_USERNS


@attack
def parent_of_pid_namespace(host):
    return fcntl.ioctl(os.open("/proc/self/ns/pid", os.O_RDONLY), 0xB702) or "returned 0"  # NS_GET_PARENT


@attack
def namespace_of_a_pidfd(host):
    return fcntl.ioctl(os.pidfd_open(os.getpid()), 0xFF04) or "returned 0"  # PIDFD_GET_NET_NAMESPACE


@attack
def namespace_of_a_socket(host):
    with socket.socket() as one:
        return fcntl.ioctl(one, 0x894C) or "returned 0"  # SIOCGSKNS
