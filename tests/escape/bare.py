"""The attacks where no sandbox stands: as root in a writable copy of an image, with everything at hand.

Run as `python -m tests.escape.bare IMAGE ATTACKER SCRATCH`; prints every attack's outcome as JSON. Its mounts, host
name, ipc, network and processes are its own, and /dev is of stand-ins, so that what succeeds touches nothing of the
host.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from sandboxd.builder import linux
from tests.support.attacks import Canaries, facts

# Not even here: the first takes lines of the kernel's log away from who reads it, the second outlives the process.
LEFT_OUT = ("read_kmsg", "persistent_keyring")
# A kernel with modules loads one when it is asked for a protocol: that would change the host.
LOADING = ("socket_", "netlink_", "socketpair_", "setsockopt_TCP_ULP")
_RUN = """
import json, os, sys
sys.path.insert(0, "/var/task")
import app
event = json.load(sys.stdin)
event["host"]["namespaces"]["mnt"] = os.readlink("/proc/self/ns/mnt")
names = [name for group in app.GROUPS.values() for name in group if not name.startswith(tuple(event["left_out"]))]
json.dump(app.handler({"attacks": names, "host": event["host"]}, None), sys.stdout)
"""
_LINK = "attack0"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _mount(kind: str, target: Path, *options: str, source: str = "none") -> None:
    target.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", kind, *options, source, str(target))


def build(image: Path, attacker: Path, scratch: Path) -> Path:
    """A root like an environment's, without anything that makes it one."""
    _run("mount", "--make-rprivate", "/")
    _mount("tmpfs", scratch, "-osize=128m")
    root = scratch / "root"
    for name in ("upper", "work"):
        (scratch / name).mkdir()
    _mount("overlay", root, f"-olowerdir={image},upperdir={scratch}/upper,workdir={scratch}/work")
    for kind, name in (("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "tmp"), ("tmpfs", "dev")):
        _mount(kind, root / name)
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    mounted = next(line.split()[4] for line in table if " - cgroup2 " in line)
    _run("mount", "--bind", mounted, str(root / "sys/fs/cgroup"))  # a mount of its own would set options for all
    shutil.copytree(attacker, root / "var/task", dirs_exist_ok=True)
    for name, minor in (("null", 3), ("zero", 5), ("full", 5), ("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o20666, os.makedev(1, minor))
    return root


def spoil(root: Path, attacker: Path, host: dict[str, Any]) -> None:
    """Put there what an image never has; plain files stand for devices, which must not be opened."""
    sys.path.insert(0, str(attacker))
    import devices  # type: ignore[import-not-found]

    paths = (host["canary"], host["neighbour_canary"], "/old_root", "/c", *(f"/dev/{d}" for d in devices.DEVICES))
    for path in paths:
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).touch()
    os.mknod(root / "opt/device", 0o20666, os.makedev(1, 3))
    for path, text in (
        ("etc/machine-id", "0" * 32),
        ("etc/hosts", f"127.0.0.1 {host['hostname']}\n"),
        ("etc/passwd", "somebody:x:7:7::/:/bin/sh\n"),
        ("etc/resolv.conf", "nameserver 192.0.2.1\n"),
    ):
        (root / path).write_text(text)
    (root / "usr/bin/id").chmod(0o4755)
    os.chown(root / "usr/bin/env", 1, 1)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(root / "usr/bin/env", "security.capability", capability)


def link() -> None:
    """A link, a neighbour and a metadata service in this network namespace."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _LINK, "type", "veth", "peer", "name", "peer0")
    _run("ip", "addr", "add", "192.0.2.9/24", "dev", _LINK)
    for name in (_LINK, "peer0"):
        _run("ip", "link", "set", name, "up")
    _run("ip", "addr", "add", "169.254.169.254/32", "dev", "lo")
    _run("ip", "neigh", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:01", "dev", _LINK)


def weaken() -> None:
    """Give this process, and so pid 1 and the attacker, what no function ever has."""
    header = ctypes.create_string_buffer((0x20080522).to_bytes(4, "little") + bytes(4), 8)
    libc = ctypes.CDLL(None)
    held = ctypes.create_string_buffer(24)
    libc.capget(header, held)
    sets = bytearray(held.raw)
    sets[8:12], sets[20:24] = sets[4:8], sets[16:20]  # inheritable: what is permitted
    assert libc.capset(header, bytes(sets)) == 0
    linux.prctl(linux.PR_CAP_AMBIENT, 2, 10)
    os.setgroups([0, 1])
    with contextlib.suppress(OSError), open("/proc/self/loginuid", "w") as file:
        file.write("0")
    with open("/proc/self/comm", "w") as file:
        file.write("sandboxd-bare")
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2)


def leak(scratch: Path) -> list[int]:
    """Descriptors that nobody should inherit."""
    channel, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door = socket.create_server(("169.254.169.254", 80))
    daemon = socket.socket(socket.AF_UNIX)
    daemon.bind(f"{scratch}/root/socket")
    daemon.listen()
    reader, _ = os.pipe()
    os.dup2(reader, 5)  # behind the log, where a stem's orders come from
    names = [os.open(path, os.O_RDONLY) for path in ("/", "/etc/passwd", "/dev/zero")]
    return [*names, os.memfd_create("leak"), 5, channel.detach(), door.detach(), daemon.detach()]


def attack(image: Path, attacker: Path, scratch: Path) -> str:
    """What the attacker printed; this is pid 1 of the namespaces that `main` made."""
    root = build(image, attacker, scratch)
    link()
    weaken()
    held = leak(scratch)
    lock = os.open(root / "var/runtime/bootstrap.py", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with Canaries(scratch / "canary") as canaries:
        here = facts(canaries, root, [str(scratch), "libc.so.6", socket.gethostname()])
        here["hostname"] = socket.gethostname()
        host = here | {
            "neighbour_namespaces": {},
            "locked": ["/var/runtime/bootstrap.py"],
            "neighbour_abstract": canaries.name,
            "neighbour_port": canaries.port,
            "neighbour_key": canaries.key,
            "neighbour_code": "app.py",
            "neighbour_canary": "/tmp/neighbour",
            "daemon_socket": "/socket",
            "daemon_port": canaries.port,
        }
        spoil(root, attacker, host)
        left_out = [*LEFT_OUT, *(LOADING if os.path.exists("/proc/modules") else ())]

        def enter() -> None:
            linux.unshare(linux.CLONE_NEWNS)
            os.chdir(root)
            linux.pivot_root_here()
            linux.mount_setattr(os.open("/", os.O_PATH), 0, propagation=1 << 20)  # MS_SHARED
            linux.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER

        done = subprocess.run(
            ["/usr/bin/python3", "-B", "-c", _RUN],
            input=json.dumps({"host": host, "left_out": left_out}), stdout=subprocess.PIPE, text=True, check=True,
            preexec_fn=enter, pass_fds=held, env={"PATH": "/usr/bin", "HOME": str(scratch), "TZ": "XYZ-1"},
        )  # fmt: skip
    return done.stdout


def main() -> None:
    """Make the namespaces, attack, print."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET | linux.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        print(attack(*map(Path, sys.argv[1:])), flush=True)
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
