"""Resource limits of a process, downwards only: a host without CAP_SYS_RESOURCE can do no other.

Room: root, child side. Memory and process counts are the cgroup's business; what stands here is what no cgroup counts.
"""

from __future__ import annotations

import errno
import resource

FIXED = {
    resource.RLIMIT_CORE: 1,  # not 0: only 1 keeps the kernel from piping a core to the host's helper (core(5))
    resource.RLIMIT_MEMLOCK: 64 * 1024,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
    resource.RLIMIT_SIGPENDING: 1024,
}


def set_fixed_in_child() -> None:
    """Set the limits that are the same for every environment; before seccomp, which keeps the one on cores."""
    for kind, value in FIXED.items():
        _set(kind, value)


def set_open_files_in_child(count: int) -> None:
    """Set the limit on descriptors (AWS's is 1,024)."""
    _set(resource.RLIMIT_NOFILE, count)


def _set(kind: int, wanted: int) -> None:
    """Set soft and hard limit and read them back."""
    _, hard = resource.getrlimit(kind)
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (value, value))
    if resource.getrlimit(kind) != (value, value):
        raise OSError(errno.EPERM, f"resource limit {kind} is not what was set")
