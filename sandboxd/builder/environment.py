"""The host side of one environment: what the builder prepares before the fork, hears during it and removes after it.

Room: root, parent side. Every kernel object of an environment is named here once.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import IPv4Address

from sandboxd.builder import init, namespaces, network, rootfs
from sandboxd.builder.cgroups import Cgroup, Cgroups
from sandboxd.builder.volumes import Volumes
from sandboxd.config import UIDS_PER_INSTANCE, Config
from sandboxd.errors import StepFailed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.privsep import channel as door

_OOM_SCORE = 800  # a host out of memory takes a function before anything of the host's


class Building(Enum):
    """How far a child has come."""

    GOING_ON = auto()
    FORKED = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class Environment:
    """One environment as the builder knows it; pids are those of the outer pid namespace."""

    spec: EnvironmentSpec
    slot: int
    cgroup: Cgroup
    channel: socket.socket
    maker: int
    log: int
    address: IPv4Address | None = None
    pid1: int = 0
    runtime: int = 0
    doors: list[int] = field(default_factory=list)
    failure: tuple[str, int] | None = None
    running: bool = False
    ending: bool = False
    destroy_asked: bool = False

    def take_descriptors(self) -> list[int]:
        """What the service gets, in the order of messages.Bound; they are the caller's to close."""
        first, *rest = self.doors
        self.doors = []
        log, self.log = self.log, -1
        group = self.cgroup
        return [first, log, group.open_freeze(), group.open_events(), group.open_memory_stat(), *rest]


class Slots:
    """Small numbers, each in one hand at a time: an environment's host uids follow from its slot."""

    def __init__(self, count: int) -> None:
        self._count, self._next = count, 0
        self._free: list[int] = []

    def take(self) -> int:
        """A slot that nobody has, fresh ones first, then the longest unused; StepFailed where none is left."""
        if self._next < self._count:
            self._next += 1
            return self._next - 1
        if not self._free:
            raise StepFailed("uid", errno.EAGAIN, f"all {self._count} are in use")
        return self._free.pop(0)

    def give_back(self, slot: int) -> None:
        """The slot's last process and file are gone."""
        self._free.append(slot)


class Host:
    """Makes and removes environments on this host."""

    def __init__(
        self, config: Config, cgroups: Cgroups, volumes: Volumes, router: network.Router, program: bytes
    ) -> None:
        self.router = router
        self._config, self._cgroups, self._volumes, self._program = config, cgroups, volumes, program
        self.slots = Slots(UIDS_PER_INSTANCE // namespaces.UIDS_PER_ENVIRONMENT)

    def uid(self, slot: int) -> int:
        """First of the two host uids of a slot: the sandbox's own root; the function has the next one."""
        return self._config.uid_base + slot * namespaces.UIDS_PER_ENVIRONMENT

    def start(self, spec: EnvironmentSpec, generation: str, environ: int) -> Environment:
        """Prepare the host side and fork the maker. Raises StepFailed, with nothing half-made left."""
        undo: list[Callable[[], object]] = []
        try:
            return self._start(spec, generation, environ, undo)
        except BaseException:
            for action in reversed(undo):
                action()
            raise

    def _start(
        self, spec: EnvironmentSpec, generation: str, environ: int, undo: list[Callable[[], object]]
    ) -> Environment:
        slot = self.slots.take()
        undo.append(lambda: self.slots.give_back(slot))
        function_uid = self.uid(slot) + 1
        with _step("cgroup"):
            cgroup = self._cgroups.make(f"{generation}-{spec.environment_id}", memory_mb=spec.memory_mb, pids=spec.pids)
            undo.append(cgroup.remove)
        address = None
        if spec.egress:
            address = self.router.addresses.take()
            undo.append(functools.partial(self.router.addresses.give_back, address))
        temporary: list[int] = []
        try:
            with _step("image"):
                root = _keep(temporary, rootfs.image_mount_in_parent(spec.image_digest.hex()))
            with _step("code"):
                code = _keep(temporary, rootfs.code_mount_in_parent(spec.code_digest.hex()))
            with _step("dev"):
                dev = _keep(temporary, rootfs.dev_mount_in_parent())
            with _step("tmp volume"):
                tmp = _keep(temporary, self._volumes.make(spec.tmp_mb, function_uid))
            with _step("log pipe"):
                log, log_writer = os.pipe2(os.O_CLOEXEC)
                undo.append(lambda: os.close(log))
                _keep(temporary, log_writer)
                os.fchown(log_writer, function_uid, function_uid)  # so that /dev/stdout can be opened again
                os.set_blocking(log, False)
            plan = init.Plan(
                rootfs.Mounts(root, dev, code, tmp), self._program, environ, log_writer, spec.open_files,
                spec.invoke_door, address,
            )  # fmt: skip
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            with _step("fork"), theirs:
                undo.append(ours.close)
                maker = os.fork()
                if maker == 0:
                    init.run_maker(plan, theirs)
            return Environment(spec, slot, cgroup, ours, maker, log, address)
        finally:
            door.close_all(temporary)

    def hear(self, environment: Environment) -> Building:
        """Take one record from a child: fixed size, from code of ours, before any of the user's exists."""
        record, descriptors = door.receive(environment.channel)
        if not record:
            if environment.failure is None and not (environment.doors and environment.runtime):
                environment.failure = ("child", 0)
            return Building.OVER
        said, first, second, step = init.RECORD.unpack(record)
        match said:
            case init.Said.IN_NAMESPACES:
                try:
                    self._admit(environment)
                except (StepFailed, OSError) as error:
                    reached = error.step if isinstance(error, StepFailed) else "ids"
                    self.go_on(environment, (reached, error.errno or 0))
            case init.Said.DOORS:
                environment.doors = descriptors
            case init.Said.FORKED:
                environment.pid1, environment.runtime = first, second
                return Building.FORKED
            case init.Said.FAILED:
                environment.failure = environment.failure or (step.rstrip(b"\0").decode(), first)
        return Building.GOING_ON

    def _admit(self, environment: Environment) -> None:
        """The maker stands in its namespaces: give it ids, its cgroup, its rank for the out-of-memory killer; go on."""
        pid = environment.maker
        namespaces.map_ids_from_parent(pid, self.uid(environment.slot))
        with _step("cgroup"):
            environment.cgroup.enter(pid)
            with open(f"/proc/{pid}/oom_score_adj", "w") as file:
                file.write(str(_OOM_SCORE))
        if environment.address is None:
            self.go_on(environment)
            return
        with _step("network"):
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                spec = environment.spec
                self.router.admit(spec.environment_id, namespace, environment.address, spec.egress)
            finally:
                os.close(namespace)

    def go_on(self, environment: Environment, failure: tuple[str, int] | None = None) -> None:
        """Everything that comes from outside is in place, or has failed: the maker goes on, or ends."""
        if failure is None:
            environment.channel.send(b"\1")
        else:
            environment.failure = environment.failure or failure
            environment.channel.shutdown(socket.SHUT_WR)

    def remove(self, environment: Environment) -> bool:
        """Take away what an ended environment leaves: its cgroups, descriptors and uids. False: not yet ended."""
        if not environment.cgroup.remove():
            return False
        door.close_all(environment.doors)
        environment.doors = []
        if environment.log >= 0:
            os.close(environment.log)
            environment.log = -1
        self.slots.give_back(environment.slot)
        if environment.address is not None:
            self.router.release(environment.spec.environment_id, environment.address)
        return True


def _keep(descriptors: list[int], descriptor: int) -> int:
    descriptors.append(descriptor)
    return descriptor


class _step:  # noqa: N801  # reads as a with-statement
    """Names the step that an OSError ended."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self._name, error.errno or 0, str(error)) from error
