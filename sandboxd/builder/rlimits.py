"""Resource limits of a process, downwards only: a host without CAP_SYS_RESOURCE can do no other.

Room: root, child side. Memory and process counts are the cgroup's business; what stands here is what no cgroup counts.
"""

from __future__ import annotations

import errno
import resource

MIB = 1024 * 1024


def limits(open_files: int) -> dict[int, int]:
    """Limit by resource; AWS's own values where its documents name one (1,024 descriptors)."""
    return {
        resource.RLIMIT_CORE: 1,  # not 0: only 1 keeps the kernel from piping a core to the host's helper (core(5))
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_MEMLOCK: 64 * 1024,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_SIGPENDING: 1024,
    }


def set_in_child(open_files: int) -> None:
    """Set soft and hard limits and read them back."""
    for kind, wanted in limits(open_files).items():
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
        if resource.getrlimit(kind) != (value, value):
            raise OSError(errno.EPERM, f"resource limit {kind} is not what was set")
