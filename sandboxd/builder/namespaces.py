"""Namespaces and uids: the outer user namespace that owns an environment, and the inner one that owns nothing.

Room: root. `…_from_parent` runs in the builder; `…_in_child` in the environment; `…_here` in either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator

from sandboxd.builder import linux

HOST_NAME = "sandbox"
RUNTIME_UID, RUNTIME_GID = 993, 990  # sbx_user1051, as on AWS
UIDS_PER_ENVIRONMENT = 2  # in the outer namespace: 0 builds and stays as pid 1, 1 runs the function

# The cgroup namespace comes later: its root is the cgroup that its maker is in.
FIRST_NAMESPACES = (
    linux.CLONE_NEWUSER
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWTIME  # of the children that are yet to be forked
)
RESOLVER = ("127.0.0.53", 53)
_RESOLVER_BUFFER = 16 * 1024  # of questions that nobody has read: a few dozen; further ones are dropped
_CLOCKS = (("monotonic", time.CLOCK_MONOTONIC), ("boottime", time.CLOCK_BOOTTIME))
NS_GET_USERNS, NS_GET_PARENT = 0xB701, 0xB702
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def map_ids_from_parent(pid: int, uid: int) -> None:
    """Map ids 0 and 1 of a child's new user namespace to two host ids that nobody else has."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(f"0 {uid} {UIDS_PER_ENVIRONMENT}\n")


def map_all_ids_from_parent(pid: int, first: int, count: int) -> None:
    """Map the ids of a zygote's user namespace, from 0 on, to those of the instance: its children get theirs there."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(f"0 {first} {count}\n")


def start_clocks_from_parent(pid: int) -> None:
    """Let monotonic time and time since boot begin at 0 (in their first second) for what this process will fork."""
    offsets = [f"{name} -{int(time.clock_gettime(clock))} 0\n" for name, clock in _CLOCKS]
    with open(f"/proc/{pid}/timens_offsets", "w") as file:
        file.write("".join(offsets))


def become_in_child(identity: int) -> None:
    """Become one id of the outer namespace, without supplementary groups, for real, effective, saved and filesystem."""
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)


def enter_last_user_namespace_in_child(identity: int) -> None:
    """Enter a user namespace of exactly one uid: it owns no mount, network or pid namespace.

    Changing ids made the process undumpable and so its /proc files root's; they must be writable for the maps.
    """
    linux.unshare(linux.CLONE_NEWUSER)
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{RUNTIME_GID} {identity} 1"),
        ("uid_map", f"{RUNTIME_UID} {identity} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


def host_name_in_child() -> None:
    """A host name that tells nothing."""
    socket.sethostname(HOST_NAME)


def loopback_in_child() -> None:
    """Bring up the loopback device of the new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("16xh", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


@contextlib.contextmanager
def opened(pid: int | str, kind: str) -> Iterator[int]:
    """A namespace of a process."""
    namespace = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield namespace
    finally:
        os.close(namespace)


@contextlib.contextmanager
def related(namespace: int, request: int) -> Iterator[int]:
    """The user namespace that owns a namespace, or that a user namespace lies in (ioctl_ns(2))."""
    found = fcntl.ioctl(namespace, request)
    try:
        yield found
    finally:
        os.close(found)


@contextlib.contextmanager
def network_from_parent(pid: int) -> Iterator[int]:
    """The caller stands in the network namespace of a process meanwhile, whose descriptor it gets."""
    with opened("self", "net") as own, opened(pid, "net") as namespace:
        linux.setns(namespace, linux.CLONE_NEWNET)
        try:
            yield namespace
        finally:
            linux.setns(own, linux.CLONE_NEWNET)


def listen_here(port: int, backlog: int) -> socket.socket:
    """A listening socket on the environment's own 127.0.0.1: whoever holds its descriptor is its server."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    door.bind(("127.0.0.1", port))
    door.listen(backlog)
    return door


def resolver_here(kind: socket.SocketKind, backlog: int) -> socket.socket:
    """One of the environment's two resolver sockets, where its image's resolv.conf has the libraries look."""
    door = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RESOLVER_BUFFER)
    door.bind(RESOLVER)
    if kind == socket.SOCK_STREAM:
        door.listen(backlog)
    return door
