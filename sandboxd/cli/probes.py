"""What doctor really tries: each in a forked child with namespaces of its own, so that nothing is left or changed.

Room: command line, child processes that end at once. May: unshare, mount in a mount namespace of its own.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Names and values as in the kernel's headers; these system calls have one number on every architecture.
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x80
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_RDONLY = 1, os.O_CLOEXEC, 4, 1
RESOLVE_NO_SYMLINKS = 4
SYS_open_tree, SYS_move_mount, SYS_openat2, SYS_mount_setattr = 428, 429, 437, 442

ALL_NAMESPACES = (
    CLONE_NEWUSER
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWIPC
    | CLONE_NEWUTS
    | CLONE_NEWCGROUP
    | CLONE_NEWTIME
)
_libc = ctypes.CDLL(None, use_errno=True)


class ProbeFailed(Exception):
    """A step that the kernel refused; the text names step and reason."""


def in_child(probe: Callable[[], None]) -> str | None:
    """Run a probe in a forked child; None where it went well, else what failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            probe()
        except ProbeFailed as error:
            text = str(error)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, text.encode()[:4096])
            os._exit(1 if text else 0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    return text or (f"ended with status {status}" if status else None)


def namespaces() -> None:
    """All eight kinds at once, as for a sandbox, then the user namespace within."""
    _enter_namespaces()
    with _step("a user namespace within a user namespace"):
        _unshare(CLONE_NEWUSER)
        _map_ids(0, 0)


def proc_mount() -> None:
    """A fresh /proc in a new pid and user namespace: refused where anything is mounted over a file of the host's."""
    _enter_namespaces()
    child = os.fork()  # only a child is in the new pid namespace
    if child == 0:
        os._exit(_libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None) and ctypes.get_errno())
    _, status = os.waitpid(child, 0)
    if status:
        raise ProbeFailed(f"mount proc: {os.strerror(os.waitstatus_to_exitcode(status))}")


def mount_calls() -> None:
    """open_tree, mount_setattr and move_mount on a tmpfs of our own."""
    _enter_namespaces()
    with _step("mount tmpfs"):
        _check(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, None))
    with _step("open_tree"):
        tree = _check(_syscall(SYS_open_tree, AT_FDCWD, b"/tmp", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC))
    with _step("mount_setattr"):
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        _check(_syscall(SYS_mount_setattr, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), size))
    with _step("move_mount"):
        _check(_syscall(SYS_move_mount, tree, b"", AT_FDCWD, b"/tmp", MOVE_MOUNT_F_EMPTY_PATH))


def openat2() -> None:
    """openat2 with RESOLVE_NO_SYMLINKS."""
    with _step("openat2"):
        how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
        _check(_syscall(SYS_openat2, AT_FDCWD, b"/", ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))))


def packet_filter(iptables_restore: str, ipset: str) -> None:
    """The sets and rules of a router namespace, in a network namespace that ends with this process."""
    with _step("unshare network"):
        _unshare(CLONE_NEWNET)
    sets = [
        "probe hash:net,port",
        "pairs hash:ip,port,net",
        "opened hash:ip,port,ip timeout 0",
        "numbers hash:ip skbinfo",
    ]
    _run([ipset, "restore"], "".join(f"create {one}\n" for one in sets))
    rules = [
        "*raw",
        "-A PREROUTING -m addrtype ! --dst-type UNICAST -j DROP",
        "COMMIT",
        "*mangle",
        "-A FORWARD -j SET --map-set numbers src --map-mark",
        "-A FORWARD -j CONNMARK --restore-mark --nfmask 0 --ctmask 0xffffffff",
        "COMMIT",
        "*filter",
        ":probe - [0:0]",
        "-A probe -m connlimit --connlimit-above 1 --connlimit-mask 32 -j DROP",
        "-A probe -m hashlimit --hashlimit-name probe --hashlimit-mode srcip --hashlimit-above 1/sec -j DROP",
        "-A probe -m set --match-set pairs src,dst,dst -j ACCEPT",
        "-A probe -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "COMMIT",
        "*nat",
        "-A POSTROUTING -m set --match-set probe src,dst -j MASQUERADE",
        "COMMIT",
    ]
    _run([iptables_restore], "\n".join([*rules, ""]))


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    with _step("unshare all namespaces"):
        _unshare(ALL_NAMESPACES)
    with _step("map the user"):
        _map_ids(uid, gid)
    with _step("make mounts private"):
        _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))


def _map_ids(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def _syscall(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProbeFailed(f"{name}: {error.strerror}") from None


def _run(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProbeFailed(f"{command[0]}: {lines[0]}")
