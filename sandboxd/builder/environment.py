"""The host side of one environment: what the builder prepares before the fork, hears during it and removes after it.

Room: root, parent side. Every kernel object of an environment is named here once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import IPv4Address

import prctl

from sandboxd.builder import code, init, namespaces, network, rootfs, zygote
from sandboxd.builder.cgroups import Cgroup, Cgroups
from sandboxd.builder.slots import Slots
from sandboxd.builder.steps import step
from sandboxd.builder.volumes import TEMPLATE_MB, Volumes
from sandboxd.config import UIDS_PER_INSTANCE, Config
from sandboxd.errors import StepFailed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.privsep import channel as door

Kind = tuple[bytes, int]  # of stems: their image, and the memory in MB that its runtime is told as it boots, or 0
log = logging.getLogger("sandboxd.builder")

_OOM_SCORE = 800  # a host out of memory takes a function before anything of the host's
_DESCRIPTORS = ("tmp", "memory", "log", "environ", "orders", "runtime_door")  # of an Environment, each -1 or its own


class Building(Enum):
    """How far a child has come."""

    GOING_ON = auto()
    FORKED = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Note:
    """What an environment is meant to be, kept with its cgroup for `sandboxd inspect`: it knows nothing else."""

    spec: EnvironmentSpec
    uid: int  # the first of its two on the host
    address: IPv4Address | None


@dataclass(slots=True, eq=False)
class Environment:
    """One environment as the builder knows it; pids are those of the outer pid namespace.

    Until it has a spec it is a *spare*: a pid 1 and a runtime that wait for a plan, made ahead because entering a
    cgroup waits for an RCU grace period (10 ms where no other process moved just before; cgroup_threadgroup_rwsem).
    A *stem* is a spare whose runtime has booted from an image and waits for its function.
    """

    slot: int
    cgroup: Cgroup
    channel: socket.socket
    maker: int
    tmp: int  # a volume of the default size, made ahead; -1 once used
    memory: int  # what will be its /proc/meminfo, open for writing; -1 once it has ended
    mother: zygote.Zygote | None = None  # of whom it is a child; else the builder's own
    admitted: bool = False  # of a zygote's child: its mapper was asked to let it in
    spec: EnvironmentSpec | None = None
    address: IPv4Address | None = None
    plan: tuple[bytes, list[int]] | None = None  # what pid 1 still waits for
    kind: Kind = (b"", 0)  # of a stem
    log: int = -1
    environ: int = -1  # what a stem gets at last: its variables
    orders: int = -1  # of a stem: write end of the pipe by which it gets its function's variables
    linking: bool = False  # the router has been asked for a link and has not answered
    pid1: int = 0
    runtime: int = 0
    exit_status: int | None = None  # of the runtime, as waitpid gives it
    runtime_door: int = -1  # the Runtime API's socket
    doors: list[int] = field(default_factory=list)  # the others, in the order of messages.Bound
    failure: tuple[str, int] | None = None
    running: bool = False
    ending: bool = False
    destroy_asked: bool = False

    def abandon(self, step_name: str, errno: int) -> None:
        """Have the child end, for a reason that is kept unless there is one already; its channel closes thereupon."""
        self.failure = self.failure or (step_name, errno)
        with contextlib.suppress(OSError):  # it has ended by itself
            self.channel.shutdown(socket.SHUT_WR)

    def take_descriptors(self) -> list[int]:
        """What the service gets, in the order of messages.Bound; they are the caller's to close."""
        doors, self.doors = self.doors, []
        first, self.runtime_door = self.runtime_door, -1
        log, self.log = self.log, -1
        group = self.cgroup
        return [first, log, group.open_freeze(), group.open_events(), group.open_memory_stat(), *doors]


class Host:
    """Makes and removes environments on this host."""

    def __init__(
        self, config: Config, cgroups: Cgroups, volumes: Volumes, router: network.Router, program: bytes
    ) -> None:
        self.router, self.volumes, self.cgroups = router, volumes, cgroups
        self._config, self._program = config, program
        self.slots = Slots(UIDS_PER_INSTANCE // namespaces.UIDS_PER_ENVIRONMENT)

    def function_uid(self, slot: int) -> int:
        """The host uid that a function has in this slot's environment."""
        return self.uid(slot) + 1

    def uid(self, slot: int) -> int:
        """First of the two host uids of a slot: the sandbox's own root; the function has the next one."""
        return self._config.uid_base + slot * namespaces.UIDS_PER_ENVIRONMENT

    def prepare(self, name: str, mother: zygote.Zygote | None = None) -> Environment:
        """Fork a maker into a new cgroup, or have a zygote do it; it goes on to its namespaces.

        Raises StepFailed, with nothing left.
        """
        slot = self.slots.take()
        try:
            with step("cgroup"):
                cgroup = self.cgroups.make(name)
        except BaseException:
            self.slots.give_back(slot)
            raise
        held: list[int] = []
        try:
            with step("tmp volume"):
                held.append(tmp := self.volumes.make(TEMPLATE_MB, self.function_uid(slot)))
            with step("facts"):
                *facts, memory = rootfs.facts_mounts_in_parent()
                held += [*facts, memory]
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            with step("fork"), theirs:
                if mother is not None:
                    maker = 0
                    mother.ask(ours, theirs, (facts[0], facts[1]))
                else:
                    maker = self._fork_maker(theirs, (facts[0], facts[1]), cgroup)
            door.close_all(facts)
            return Environment(slot, cgroup, ours, maker, tmp, memory, mother)
        except BaseException:
            door.close_all(held)
            cgroup.remove()
            self.slots.give_back(slot)
            raise

    def _fork_maker(self, channel: socket.socket, facts: tuple[int, int], cgroup: Cgroup) -> int:
        maker = os.fork()
        if maker == 0:
            prctl.set_proctitle("sandboxd: spare environment")
            init.run_maker(channel, facts, self._program, cgroup.enter_self, init.start_by_exec)
        return maker

    def bind(self, environment: Environment, spec: EnvironmentSpec, environ: int) -> None:
        """Make a spare the environment of a spec: limits, mounts, link; pid 1 goes on as soon as it is there.

        Raises StepFailed; the environment is then to be ended.
        """
        environment.spec = spec
        self._limit(environment, spec.memory_mb, spec.pids)
        if spec.tmp_mb != TEMPLATE_MB:
            with step("tmp volume"):
                os.close(environment.tmp)
                environment.tmp = -1
                environment.tmp = self.volumes.make(spec.tmp_mb, self.function_uid(environment.slot))
        self._note(environment, spec)
        descriptors = self._plan(environment, spec.image_digest, environ)
        with step("code"):
            descriptors.append(rootfs.code_mount_in_parent(spec.code_digest.hex()))
        if spec.layers:
            descriptors.append(self._layers(spec))
        environment.plan = (init.PLAN.pack(spec.open_files, False), descriptors)
        self._go_on_with_plan(environment)

    def boot(self, environment: Environment, kind: Kind, environ: int) -> None:
        """Make a spare a stem: a sandbox whose runtime boots and then waits for a function. Raises StepFailed."""
        limits = self._config.limits
        environment.kind = kind
        image, memory_mb = kind
        self._limit(environment, memory_mb or limits.memory_mb_min, limits.pids)
        descriptors = self._plan(environment, image, environ)
        with step("orders"):
            reader, environment.orders = os.pipe2(os.O_CLOEXEC)
            descriptors.append(reader)
        environment.plan = (init.PLAN.pack(limits.open_files, True), descriptors)
        self._go_on_with_plan(environment)

    def fits_stem(self, spec: EnvironmentSpec) -> bool:
        """Whether a stem can become this environment; what it cannot be given afterwards takes boot and bind in one."""
        same = spec.tmp_mb == TEMPLATE_MB and spec.open_files == self._config.limits.open_files
        return same and not spec.at_exec

    def bind_stem(self, environment: Environment, spec: EnvironmentSpec) -> None:
        """Make a stem the environment of a spec: limits, code, layers, doors, and its orders at last.

        Where it gets a link, its orders wait for that. Raises StepFailed; the environment is then to be ended.
        """
        environment.spec = spec
        self._limit(environment, spec.memory_mb, spec.pids)
        self._note(environment, spec)
        with step("code"):
            task = rootfs.code_mount_in_parent(spec.code_digest.hex())
            rootfs.attach_from_parent(environment.pid1, "var/task", task)
        if spec.layers:
            layers = self._layers(spec)
            with step("layers"):
                rootfs.attach_from_parent(environment.pid1, "opt", layers)
        self._lead_out(environment, spec)
        if not environment.linking:
            self.give_orders(environment)

    @staticmethod
    def give_orders(environment: Environment, failure: tuple[str, int] | None = None) -> None:
        """Give a stem its variables, which nobody here reads: all else is in place, or has failed (StepFailed)."""
        if failure is not None:
            raise StepFailed(*failure)
        with step("orders"):
            os.sendfile(environment.orders, environment.environ, 0, init.MAX_ENVIRON)
            os.write(environment.orders, init.END_OF_ORDERS)
            door.close_all((environment.orders, environment.environ))
            environment.orders = environment.environ = -1

    def _layers(self, spec: EnvironmentSpec) -> int:
        """A detached mount of its layers. Raises StepFailed.

        While a directory that several of them have is open, overlayfs keeps its whole listing, up to 500 bytes a name,
        in memory that no cgroup counts: all layers of a function may have as many files as one package.
        """
        with step("layers"):
            packages = os.open("/c", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                files = sum(code.contents(packages, layer.hex())[1] for layer in spec.layers)
            finally:
                os.close(packages)
            if files > self._config.limits.zip_entries:
                raise OSError(errno.E2BIG, "too many files")
            return rootfs.layers_mount_in_parent(spec.layers)

    def _note(self, environment: Environment, spec: EnvironmentSpec) -> None:
        if spec.linked:
            environment.address = self.router.addresses.take()
        with step("cgroup"):
            note = Note(spec, self.uid(environment.slot), environment.address)
            environment.cgroup.note(pickle.dumps(note))

    @staticmethod
    def _limit(environment: Environment, memory_mb: int, pids: int) -> None:
        with step("cgroup"):
            environment.cgroup.limit(memory_mb=memory_mb, pids=pids)
        with step("facts"):
            rootfs.write_memory_from_parent(environment.memory, memory_mb)

    def _plan(self, environment: Environment, image: bytes, environ: int) -> list[int]:
        """What every plan begins with: root, dev, /tmp, log, environ; the environment owns them until they are sent."""
        descriptors: list[int] = []
        environment.plan = (b"", descriptors)
        with step("image"):
            descriptors.append(rootfs.image_mount_in_parent(image.hex()))
        with step("dev"):
            descriptors.append(rootfs.dev_mount_in_parent())
        descriptors.append(environment.tmp)
        environment.tmp = -1
        with step("log pipe"):
            environment.log, log_writer = os.pipe2(os.O_CLOEXEC)
            descriptors += [log_writer, os.dup(environ)]
            uid = self.function_uid(environment.slot)
            os.fchown(log_writer, uid, uid)  # so that /dev/stdout can be opened again
            os.set_blocking(environment.log, False)
        return descriptors

    def hear(self, environment: Environment) -> Building:
        """Take one record from a child: fixed size, from code of ours, before any of the user's exists."""
        try:
            record, descriptors = door.receive(environment.channel)
        except ConnectionResetError:  # it ended with a word of ours unread: told once, ahead of what it said before
            record, descriptors = door.receive(environment.channel)
        if not record:
            if environment.mother is not None:
                environment.mother.unborn.pop(environment.channel, None)
            if environment.failure is None and not (environment.runtime_door >= 0 and environment.runtime):
                environment.failure = ("child", 0)
            return Building.OVER
        said, first, second, name = init.RECORD.unpack(record)
        match said:
            case init.Said.IN_NAMESPACES if environment.admitted:  # nobody follows whom it has let in
                environment.abandon("zygote", errno.EPERM)
            case init.Said.IN_NAMESPACES if environment.mother is not None:
                environment.admitted = True
                first_id = environment.slot * namespaces.UIDS_PER_ENVIRONMENT
                try:
                    environment.mother.admit(first, first_id, environment.channel, environment.cgroup)
                except OSError as error:
                    environment.abandon("zygote", error.errno or 0)
            case init.Said.IN_NAMESPACES:
                self._try(environment, self._admit)
            case init.Said.DOOR if environment.runtime_door < 0 and len(descriptors) == 1:
                (environment.runtime_door,) = descriptors
            case init.Said.DOOR:
                door.close_all(descriptors)
                environment.abandon("runtime door", errno.EPERM)
            case init.Said.FORKED:
                if environment.mother is not None:
                    environment.mother.unborn.pop(environment.channel, None)
                if environment.mother is not None and not environment.cgroup.holds(first, second):
                    environment.abandon("zygote", errno.EPERM)
                    return Building.GOING_ON
                environment.pid1, environment.runtime = first, second
                self._try(environment, self._go_on_with_plan)
                return Building.FORKED
            case init.Said.FAILED:
                environment.failure = environment.failure or (name.rstrip(b"\0").decode(), first)
        return Building.GOING_ON

    def _admit(self, environment: Environment) -> None:
        """The maker stands in its namespaces: give it its ids, clocks and rank for the out-of-memory killer."""
        pid = environment.maker
        namespaces.map_ids_from_parent(pid, self.uid(environment.slot))
        with step("clocks"):
            namespaces.start_clocks_from_parent(pid)
        offer_to_the_oom_killer(pid)
        environment.channel.send(b"\1")

    def _try(self, environment: Environment, action: Callable[[Environment], None]) -> None:
        try:
            action(environment)
        except (StepFailed, OSError) as error:
            self.go_on(environment, (error.step if isinstance(error, StepFailed) else "ids", error.errno or 0))

    def _go_on_with_plan(self, environment: Environment) -> None:
        """Send pid 1 its plan, once both are there; with a permission, when the router has given it a link."""
        if not environment.pid1 or environment.plan is None:
            return
        if environment.spec is not None and environment.orders < 0:
            self._lead_out(environment, environment.spec)
        if not environment.linking:
            self.go_on(environment)

    def _lead_out(self, environment: Environment, spec: EnvironmentSpec) -> None:
        """What leads out of a sandbox: doors that the service will serve, and a link, which the router is asked for."""
        if not (spec.invoke_door or spec.linked):
            return
        with step("network"), namespaces.network_from_parent(environment.pid1) as namespace:
            environment.doors = [one.detach() for one in _doors_here(spec)]
            if environment.address is not None:
                self.router.admit(spec, namespace, environment.address)
                environment.linking = True

    def go_on(self, environment: Environment, failure: tuple[str, int] | None = None) -> None:
        """Everything that comes from outside is in place, or has failed: pid 1 goes on, or ends."""
        if failure is not None:
            environment.abandon(*failure)
        elif environment.plan is not None:
            plan, descriptors = environment.plan
            environment.plan = None
            try:
                door.send(environment.channel, plan, descriptors)
            except OSError as error:
                environment.failure = environment.failure or ("child", error.errno or 0)
            finally:
                door.close_all(descriptors)

    def remove(self, environment: Environment) -> bool:
        """Take away what an ended environment leaves: its cgroups, descriptors and uids. False: not yet ended."""
        if not environment.cgroup.remove():
            return False
        held = [getattr(environment, name) for name in _DESCRIPTORS]
        planned = environment.plan[1] if environment.plan else []
        door.close_all([*environment.doors, *planned, *(one for one in held if one >= 0)])
        environment.doors, environment.plan = [], None
        for name in _DESCRIPTORS:
            setattr(environment, name, -1)
        self.slots.give_back(environment.slot)
        if environment.address is not None and environment.spec is not None:
            self.router.release(environment.spec.environment_id, environment.address)
        return True


def _doors_here(spec: EnvironmentSpec) -> list[socket.socket]:
    """The doors of an environment but for its Runtime API's, in the network namespace that the caller stands in."""
    doors = [namespaces.listen_here(init.INVOKE_DOOR_PORT, init.BACKLOG)] if spec.invoke_door else []
    if spec.host_ports:
        doors += [namespaces.resolver_here(kind, init.BACKLOG) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    return doors


def offer_to_the_oom_killer(pid: int) -> None:
    """Have a host that is out of memory take this process before any of its own."""
    with open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write(str(_OOM_SCORE))
