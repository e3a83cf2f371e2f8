"""What systemd gives the keeper and is told by it: listening sockets, readiness, a control group.

Room: root, the keeper. May: read what systemd left in the environment and in /proc. May not: be needed: without systemd
there are no sockets, nobody is told, and the group is left alone.

Sources: sd_listen_fds(3), sd_notify(3), systemd.resource-control(5) on Delegate=.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from sandboxd.config import Config
from sandboxd.errors import StartFailed

Address = tuple[str, int] | str

_FIRST = 3


def sockets(config: Config) -> list[socket.socket]:
    """The listening sockets that systemd passed, TCP and then unix; none where it passed none.

    Raises StartFailed where they are not the two of the configuration: the API must not appear where nobody meant it.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ["LISTEN_FDS"])
    given: dict[Address, int] = {}
    for number in range(_FIRST, _FIRST + count):
        os.set_inheritable(number, False)
        given[_describe(number)] = number
    wanted: list[Address] = [config.api_listen, str(config.api_socket)]
    if set(given) != set(wanted) or len(wanted) != count:
        raise StartFailed(
            f"systemd passes {_text(given)}, the configuration wants {_text(wanted)}: "
            "run scripts/install, which writes sandboxd.socket anew"
        )
    return [socket.socket(fileno=given[address]) for address in wanted]


def _describe(number: int) -> Address:
    """Where a listening stream socket listens; what else a descriptor is, in words."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return f"descriptor {number}, no socket"
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"descriptor {number}, no listening stream"
        address = sock.getsockname()
    return address if isinstance(address, str) else tuple(address[:2])  # IPv6 has flow and scope behind


def _text(addresses: Iterable[Address]) -> str:
    return ", ".join(a if isinstance(a, str) else f"{a[0]}:{a[1]}" for a in addresses)


def notify(state: str) -> None:
    """Tell systemd, where it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def leave_delegated_group() -> None:
    """On unified cgroups a group with controllers holds no process: leave the unit's own group for a child of it.

    Only where systemd gave the group away (Delegate=, which it notes down in an attribute) and nobody else is in it: a
    daemon started by hand in a shell of some other service must leave that service's group alone.
    """
    own = next(
        (line[3:].strip() for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), ""
    )
    group = Path("/sys/fs/cgroup") / own.lstrip("/")
    try:
        delegated = own.endswith(".service") and os.getxattr(group, "trusted.delegate") == b"1"
        alone = delegated and (group / "cgroup.procs").read_text().split() == [str(os.getpid())]
    except OSError:
        return
    if alone:
        leaf = group / "daemon"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
