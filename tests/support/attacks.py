"""Attacks from inside a sandbox: what each environment is told of its host, and what came of every attempt.

`attack(daemon, name)` tries one; an `Attacker` holds one deployed function and tries whole groups at once. The attacks
themselves are tests/functions/attacker; which outcomes mean that the sandbox held is tests/escape/expected.py.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.escape.expected import EXPECTED
from tests.support import packages
from tests.support.daemon import Daemon

_libc = ctypes.CDLL(None, use_errno=True)
_SHMGET, _SEMGET, _MSGGET = 29, 64, 68
_IPC_CREAT, _IPC_RMID = 0o1000 | 0o600, 0

# Of the image, /dev and what covers /proc.
LOCKED = ("/var/runtime/bootstrap.py", "/", "/var", "/dev/null", "/dev", "/proc/cpuinfo", "/proc/sys", "/proc/meminfo",
          "/proc/sys/kernel/ostype", "/proc/fs", "/proc/kallsyms")  # fmt: skip

# Everything that an attack looks for elsewhere, in a neighbour that stays where it is: its own /tmp, ipc and sockets.
_NEIGHBOUR = """
import builtins, ctypes, fcntl, os, socket
name, key = {name!r}, {key}
open("/tmp/" + name, "w").close()
one = socket.socket(socket.AF_UNIX)
one.bind(chr(0) + name)
one.listen()
door = socket.create_server(("127.0.0.1", 0))
locks = [os.open(path, os.O_RDONLY) for path in {locked!r}]
for lock in locks:
    fcntl.flock(lock, fcntl.LOCK_EX)
assert ctypes.CDLL(None).shmget(key, 4096, 0o1600) >= 0
builtins.kept = (one, door, locks)
namespaces = {{kind: os.readlink("/proc/self/ns/" + kind) for kind in os.listdir("/proc/self/ns")}}
result = [door.getsockname()[1], namespaces]
"""


class Verdict(NamedTuple):
    """What came of one attack; `open`: it got through."""

    name: str
    outcome: str
    open: bool


def judged(name: str, outcome: str) -> Verdict:
    """The verdict on an outcome."""
    return Verdict(name, outcome, outcome not in EXPECTED[name].split())


@dataclass
class Canaries:
    """What of the host an attack might reach, made for one run and taken away after it."""

    file: Path

    def __enter__(self) -> Canaries:
        self.name = f"canary-{secrets.token_hex(8)}"
        self.key = 0x10000000 | secrets.randbits(24)
        self.file.write_text(self.name)
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(f"\0{self.name}")
        self._unix.listen()
        self._door = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self._ids = [
            _libc.shmget(self.key, ctypes.c_size_t(4096), _IPC_CREAT),
            _libc.semget(self.key, 1, _IPC_CREAT),
            _libc.msgget(self.key, _IPC_CREAT),
        ]
        assert min(self._ids) >= 0
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._unix, self._door):
            one.close()
        _libc.shmctl(self._ids[0], _IPC_RMID, None)
        _libc.semctl(self._ids[1], 0, _IPC_RMID)
        _libc.msgctl(self._ids[2], _IPC_RMID, None)
        self.file.unlink()

    @property
    def port(self) -> int:
        return int(self._door.getsockname()[1])


def _first(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    assert found, (path, pattern)
    return found[1]


def facts(canaries: Canaries, images: Path, words: list[str]) -> dict[str, Any]:
    """What is true of the place where this runs, so that an attack can tell that it found it."""
    disk = os.statvfs(images)
    links = [row for rows in psutil.net_if_addrs().values() for row in rows]
    return {
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")},
        "pid": os.getpid(),
        "canary": str(canaries.file),
        "abstract": canaries.name,
        "port": canaries.port,
        "key": canaries.key,
        "hostname": socket.gethostname(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "zeros": {str(clock): time.time() - time.clock_gettime(clock) for clock in (1, 4, 7)},
        "boot_time": int(_first("/proc/stat", r"^btime (\d+)")),
        "memory_kb": int(_first("/proc/meminfo", r"^MemTotal:\s*(\d+)")),
        "words": words,
        "disk": [disk.f_blocks * disk.f_frsize, disk.f_files],
        "hardware": [row.address for row in links if row.family == psutil.AF_LINK and row.address.strip("0:")],
        "addresses": [row.address for row in links if row.family == socket.AF_INET and row.address[:4] != "127."],
    }


class Attacker:
    """A deployed function that attacks its environment, a neighbour beside it, and what both are told."""

    def __init__(self, daemon: Daemon, function: str, host: dict[str, Any]) -> None:
        self._daemon, self._function, self._host = daemon, function, host

    def try_group(self, group: str) -> dict[str, Verdict]:
        """Every attack of one module, in one invocation."""
        return self._try({"group": group})

    def try_named(self, names: Iterable[str]) -> dict[str, Verdict]:
        """The attacks of these names, in one invocation."""
        return self._try({"attacks": list(names)})

    def _try(self, event: dict[str, Any]) -> dict[str, Verdict]:
        outcomes = self._daemon.call(self._function, event | {"host": self._host})
        return {name: judged(name, outcome) for name, outcome in outcomes.items()}


def with_neighbour(daemon: Daemon, host: dict[str, Any]) -> dict[str, Any]:
    """Those facts, and what a neighbour of the same daemon keeps for itself."""
    name, key = f"neighbour-{secrets.token_hex(4)}", 0x20000000 | secrets.randbits(24)
    function = daemon.deploy(packages.load("evaluate"), name)
    port, namespaces = daemon.call(function, {"code": _NEIGHBOUR.format(name=name, key=key, locked=LOCKED)})
    return host | {
        "neighbour_namespaces": namespaces,
        "locked": LOCKED,
        "neighbour_abstract": name,
        "neighbour_port": port,
        "neighbour_key": key,
        "neighbour_code": "evaluate",
        "neighbour_canary": f"/tmp/{name}",
        "daemon_socket": str(daemon.socket),
        "daemon_port": daemon.port,
    }


def attack(daemon: Daemon, name: str, **members: Any) -> Verdict:
    """Deploy the attacker, try one attack, and remove it; `members` are CreateFunction's."""
    with Canaries(daemon.base / "canary") as canaries:
        words = [str(daemon.data_dir), str(daemon.run_dir), daemon.instance]
        host = with_neighbour(daemon, facts(canaries, daemon.data_dir / "images", words))
        function = daemon.deploy(packages.load("attacker"), f"attacker-{secrets.token_hex(4)}", **members)
        verdict = Attacker(daemon, function, host).try_named([name])[name]
        for one in (function, host["neighbour_abstract"]):
            daemon.delete(one)
        return verdict
