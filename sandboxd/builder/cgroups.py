"""Control groups of environments, on v2, v1 and hybrid hosts behind one small interface.

Room: root, parent side. Freeze and kill always go through the unified hierarchy (hybrid hosts have it, and both files
work there without controllers); memory, cpu and pids through whichever hierarchy holds the controller.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from sandboxd.errors import StepFailed

CONTROLLERS = ("memory", "cpu", "pids")
CPU_PERIOD_US = 100_000
NOTE = "trusted.sandboxd"
INIT_CPU_QUOTA = 1000  # 1/1000 of a CPU: while a runtime starts, every environment has one whole CPU, as on AWS
_TCP_BUFFERS = 32 * 1024 * 1024
# All functions together weigh half of what one process beside them does, so that the rooms come first.
_ALL_WEIGHT, _ALL_SHARES = "50", "512"
_MAX_WEIGHT = 10_000  # of cpu.weight; cpu.shares would take more
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted cgroup hierarchy of the host."""

    path: str
    controllers: frozenset[str]
    unified: bool


def mounts() -> list[Mount]:
    """The cgroup hierarchies that this mount namespace sees."""
    found: list[Mount] = []
    with open("/proc/self/mountinfo") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            path = before.split()[4]
            if kind == "cgroup2":
                with open(f"{path}/cgroup.controllers") as file:
                    found.append(Mount(path, frozenset(file.read().split()), True))
            elif kind == "cgroup":
                found.append(Mount(path, frozenset(options.split(",")), False))
    return found


def cpu_slice_us(quota: int) -> int:
    """What a share of CPU, in 1/1000 of one, comes to in every period; microseconds."""
    return max(1000, CPU_PERIOD_US * quota // 1000)


def cpu_weight(memory_mb: int) -> int:
    """What a group counts among its neighbours where CPU is short; the two kinds of hierarchy take the same numbers."""
    return min(memory_mb, _MAX_WEIGHT)


def tcp_buffers(memory_mb: int) -> int:
    """What the kernel may hold of a group's TCP connections; bytes."""
    return min(memory_mb * 1024 * 1024 // 4, _TCP_BUFFERS) // _PAGE * _PAGE


def base_name(instance: str) -> str:
    """The one directory per hierarchy that is ours."""
    return f"sandboxd-{instance}"


def base_path(mount: Mount, instance: str) -> str:
    """Where this instance's groups live in a hierarchy: below the unit's own group where systemd delegated one
    (the keeper then sits in its child `daemon`, because a group with controllers holds no process), else at the top."""
    if mount.unified:
        with open("/proc/self/cgroup") as file:
            own = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "/")
        parent, _, leaf = own.rpartition("/")
        if leaf == "daemon" and parent.endswith(".service"):
            return f"{mount.path}{parent}/{base_name(instance)}"
    return f"{mount.path}/{base_name(instance)}"


def _write(directory: int, name: str, value: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _read(directory: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(descriptor, 65_536).decode()
    finally:
        os.close(descriptor)


def _set(directory: int, name: str, value: str) -> None:
    """Write a limit and read it back: one that did not take is an error, never a warning."""
    _write(directory, name, value)
    held = _read(directory, name).strip()
    if held != value:
        raise StepFailed("cgroup", errno.EINVAL, f"{name} is {held!r}, not {value!r}")


def _set_if_there(directory: int, name: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _set(directory, name, value)


def _directory(path: str, at: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=at)


def _counter(text: str, key: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(key + " ")), 0)


class Cgroups:
    """This instance's directory in every hierarchy that matters, held by descriptor."""

    def __init__(self, instance: str) -> None:
        available = mounts()
        unified = next((m for m in available if m.unified), None)
        if unified is None:
            raise StepFailed("cgroup", errno.ENOENT, "no cgroup2 hierarchy is mounted")
        self._bases: dict[str, int] = {}
        self._parents: dict[str, int] = {}
        self._where: dict[str, str] = {}
        self.v2: dict[str, bool] = {}
        for controller in CONTROLLERS:
            mount = next((m for m in available if controller in m.controllers), None)
            if mount is None:
                raise StepFailed("cgroup", errno.ENOENT, f"no hierarchy has the {controller} controller")
            self._open_base(mount, instance)
            self._where[controller], self.v2[controller] = mount.path, mount.unified
        self._open_base(unified, instance)
        weight = ("cpu.weight", _ALL_WEIGHT) if self.v2["cpu"] else ("cpu.shares", _ALL_SHARES)
        _set(self._bases[self._where["cpu"]], *weight)
        self._unified = unified.path

    def _open_base(self, mount: Mount, instance: str) -> None:
        if mount.path in self._bases:
            return
        path = base_path(mount, instance)
        if mount.unified:
            wanted = " ".join(f"+{c}" for c in CONTROLLERS if c in mount.controllers)
            self._delegate(os.path.dirname(path), wanted)
        os.makedirs(path, 0o755, exist_ok=True)
        if mount.unified:
            self._delegate(path, wanted)
        self._bases[mount.path], self._parents[mount.path] = _directory(path), _directory(os.path.dirname(path))
        self._name = os.path.basename(path)

    @staticmethod
    def _delegate(path: str, wanted: str) -> None:
        if not wanted:
            return
        directory = _directory(path)
        try:
            held = _read(directory, "cgroup.subtree_control").split()
            if any(c[1:] not in held for c in wanted.split()):
                _write(directory, "cgroup.subtree_control", wanted)
        except OSError as error:
            raise StepFailed("cgroup", error.errno or 0, f"{path}/cgroup.subtree_control {wanted}") from error
        finally:
            os.close(directory)

    def make(self, name: str) -> Cgroup:
        """A new group without limits; nothing stays of one that cannot be made."""
        group = Cgroup(name, self._bases)
        try:
            for path, base in self._bases.items():
                os.mkdir(name, 0o755, dir_fd=base)
                try:
                    group.directories[path] = _directory(name, base)
                except OSError:  # no descriptor is left for it
                    os.rmdir(name, dir_fd=base)
                    raise
        except BaseException:
            group.remove()
            raise
        group.by_controller = {c: group.directories[path] for c, path in self._where.items()}
        group.v2 = self.v2
        group.unified = group.directories[self._unified]
        return group

    def remove(self) -> None:
        """Remove this instance's own directories, where nothing lives in them any more."""
        # By descriptor: the builder's own tree shows no cgroup hierarchy.
        for path, base in self._bases.items():
            os.close(base)
            with contextlib.suppress(OSError):
                os.rmdir(self._name, dir_fd=self._parents[path])


class Cgroup:
    """One environment's groups, held by descriptor."""

    def __init__(self, name: str, bases: dict[str, int]) -> None:
        self.name, self._bases = name, bases
        self.directories: dict[str, int] = {}
        self.by_controller: dict[str, int] = {}
        self.v2: dict[str, bool] = {}
        self.unified = -1
        self._limits = (0, 0)

    def limit(self, *, memory_mb: int, pids: int) -> None:
        """Set the limits, CPU as for the init phase, and read them back.

        Where all want CPU, each gets it in proportion to its memory, as on AWS: small ones that spin take from a large
        one no more than their small parts. A stem whose function is of the size that it booted with has them already.
        """
        if (memory_mb, pids) == self._limits:
            return
        self._limit_memory(memory_mb)
        _set(self.by_controller["cpu"], "cpu.weight" if self.v2["cpu"] else "cpu.shares", str(cpu_weight(memory_mb)))
        self.limit_cpu(INIT_CPU_QUOTA)
        _set(self.by_controller["pids"], "pids.max", str(pids))
        self._limits = memory_mb, pids

    def _limit_memory(self, memory_mb: int) -> None:
        """Limit memory, without swap; on v2 an out-of-memory kill takes the whole group."""
        directory, size = self.by_controller["memory"], memory_mb * 1024 * 1024 // _PAGE * _PAGE
        if self.v2["memory"]:
            _set(directory, "memory.max", str(size))
            _set_if_there(directory, "memory.swap.max", "0")  # a kernel may lack swap accounting
            _set(directory, "memory.oom.group", "1")
        else:
            # The limit with swap may never be the lower one: out of the way while the other changes.
            with contextlib.suppress(FileNotFoundError):
                _write(directory, "memory.memsw.limit_in_bytes", "-1")
            _set(directory, "memory.limit_in_bytes", str(size))
            _set_if_there(directory, "memory.memsw.limit_in_bytes", str(size))
            # Socket buffers are no part of the limit on v1, unless they have one of their own.
            _set_if_there(directory, "memory.kmem.tcp.limit_in_bytes", str(tcp_buffers(memory_mb)))

    def limit_cpu(self, quota: int) -> None:
        """Limit CPU time to a share, in 1/1000 of one CPU.

        What a quiet period leaves over may be used in the next one (burst, as much as the share itself; Linux 5.14):
        a rested function answers at full speed, a busy one has its share and no more.
        """
        directory, slice_us = self.by_controller["cpu"], cpu_slice_us(quota)
        if self.v2["cpu"]:
            _set_if_there(directory, "cpu.max.burst", "0")
            _set(directory, "cpu.max", f"{slice_us} {CPU_PERIOD_US}")
            _set_if_there(directory, "cpu.max.burst", str(slice_us))
        else:
            _set_if_there(directory, "cpu.cfs_burst_us", "0")
            _set(directory, "cpu.cfs_period_us", str(CPU_PERIOD_US))
            _set(directory, "cpu.cfs_quota_us", str(slice_us))
            _set_if_there(directory, "cpu.cfs_burst_us", str(slice_us))

    def note(self, content: bytes) -> None:
        """Keep what the group is for with it, where only the host's root can write and read (xattr(7), trusted)."""
        os.setxattr(self.unified, NOTE, content)

    def enter_self(self) -> None:
        """Move the calling process, and what it forks from now on, into the group."""
        for directory in self.directories.values():
            _write(directory, "cgroup.procs", "0")

    def open_procs(self) -> list[int]:
        """cgroup.procs of every hierarchy: whoever holds them may move any process into the group."""
        return [os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=d) for d in self.directories.values()]

    def holds(self, *pids: int) -> bool:
        """Whether these processes are in the group."""
        return {str(pid) for pid in pids} <= set(_read(self.unified, "cgroup.procs").split())

    def threads(self) -> set[int]:
        """Every thread in the group; the number of one that has just gone may be 0."""
        return {int(number) for number in _read(self.unified, "cgroup.threads").split()}

    def open_freeze(self) -> int:
        """The switch that the service freezes and thaws by: one write, no trip through the builder."""
        return os.open("cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.unified)

    def open_events(self) -> int:
        """cgroup.events, which tells `frozen` and `populated`."""
        return os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.unified)

    def open_memory_stat(self) -> int:
        """memory.stat of whichever hierarchy has the memory controller."""
        return os.open("memory.stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.by_controller["memory"])

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of the group for its memory limit."""
        name = "memory.events" if self.v2["memory"] else "memory.oom_control"
        return _counter(_read(self.by_controller["memory"], name), "oom_kill") > 0

    def kill(self) -> None:
        """End every process of the group, frozen ones too."""
        if self.unified >= 0:
            _write(self.unified, "cgroup.kill", "1")

    def remove(self) -> bool:
        """Remove the group's directories; False where one still holds a process that is being reaped."""
        for path, directory in list(self.directories.items()):
            try:
                os.rmdir(self.name, dir_fd=self._bases[path])
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
            os.close(directory)
            del self.directories[path]
        return True
