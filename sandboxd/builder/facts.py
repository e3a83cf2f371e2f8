"""What /proc says of the machine, said of the environment instead: texts that lie over the kernel's own files.

Room: root, parent side. May: read the builder's own /proc, once. May not: count anything; a function that wants to know
what it uses itself finds that in /proc/self.

The names and units are proc(5)'s. Readers are libc (processors), psutil, Node's `os`, the JVM and shells; each finds
what it parses, and no number that moves with the machine's load.
"""

from __future__ import annotations

import os
import time

LOAD = "0.00 0.00 0.00 1/1 1\n"
# Below /proc/sys, what libraries read and what does not change: allocators, servers, runtimes that size their pools.
_SYS = """
    fs/nr_open fs/overflowgid fs/overflowuid fs/pipe-max-size kernel/cap_last_cap kernel/msgmax
    kernel/msgmnb kernel/msgmni kernel/ngroups_max kernel/osrelease kernel/ostype kernel/overflowgid kernel/overflowuid
    kernel/pid_max kernel/randomize_va_space kernel/sem kernel/shmall kernel/shmmax kernel/shmmni
    kernel/version vm/max_map_count vm/mmap_min_addr vm/overcommit_memory vm/overcommit_ratio
    """.split()  # noqa: SIM905  # one word each is easier to read and to sort
# A new network namespace begins with these, whatever the host's has.
_SYS_OF_A_NEW_NAMESPACE = {"net/core/somaxconn": "4096\n", "net/ipv4/ip_local_port_range": "32768\t60999\n"}


def sys_files(host_name: str) -> dict[str, str]:
    """The files of /proc/sys that an environment has, by name below it."""
    found = {"kernel/hostname": host_name + "\n", "kernel/domainname": "(none)\n"} | _SYS_OF_A_NEW_NAMESPACE
    for name in _SYS:
        if os.path.exists(f"/proc/sys/{name}"):
            with open(f"/proc/sys/{name}") as file:
                found[name] = file.read()
    return found


def processors() -> str:
    """/proc/cpuinfo as it is now: what the processors are, at a speed that no longer moves."""
    with open("/proc/cpuinfo") as file:
        return file.read()


def idle_processors() -> str:
    """/proc/stat of a machine that has done nothing yet; the time of its boot is `booted_now`'s."""
    with open("/proc/stat") as file:
        names = [line.split()[0] for line in file if line.startswith("cpu")]
    zeros = " 0" * 10
    lines = [f"{name}{' ' if name == 'cpu' else ''}{zeros}\n" for name in names]
    return "".join(lines) + "intr 0\nctxt 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"


def booted_now() -> str:
    """The line of /proc/stat for a machine that boots at this moment."""
    return f"btime {int(time.time())}\n"


def memory(megabytes: int) -> str:
    """/proc/meminfo of a machine with as much memory as the environment's limit, all of it free."""
    total = {"MemTotal", "MemFree", "MemAvailable"}
    names = (
        "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "Active", "Inactive", "SwapTotal",
        "SwapFree", "Dirty", "Writeback", "AnonPages", "Mapped", "Shmem", "Slab", "SReclaimable", "SUnreclaim",
    )  # fmt: skip
    return "".join(f"{name + ':':15}{megabytes * 1024 if name in total else 0:9} kB\n" for name in names)
