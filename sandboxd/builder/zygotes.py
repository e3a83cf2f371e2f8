"""The zygotes of this builder: one for each kind of stems that can be forked, renewed after a while.

Room: root, parent side. May: make and end zygotes, hold their children against the kernel's word.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sandboxd.builder import namespaces, zygote
from sandboxd.builder.cgroups import Cgroup
from sandboxd.builder.environment import Environment, Host, Kind, offer_to_the_oom_killer
from sandboxd.builder.steps import step
from sandboxd.config import UIDS_PER_INSTANCE
from sandboxd.errors import StepFailed

log = logging.getLogger("sandboxd.builder")

# What children share for life, as the seed of hashes and the layout of memory, is renewed with their zygote.
CHILDREN, SECONDS = 256, 600.0
_FAILURES = 3  # of children in a row, after which
_WITHOUT_SECONDS = 60.0  # stems of their kind boot by exec


@dataclass(frozen=True, slots=True)
class _Held:
    zygote: zygote.Zygote
    environment: Environment  # as which its kernel objects are accounted for
    until: float


class Zygotes:
    """Zygotes by kind. `begin` has a new one's processes and channel watched, `end` ends it; `name` names a cgroup."""

    def __init__(
        self,
        host: Host,
        files: list[int],
        name: Callable[[], str],
        begin: Callable[[Environment], None],
        end: Callable[[Environment], None],
    ) -> None:
        self._host, self._files, self._name, self._begin, self._end = host, files, name, begin, end
        self._held: dict[Kind, _Held] = {}
        self._failures: Counter[Kind] = Counter()
        self._without: dict[Kind, float] = {}  # until when a kind has no zygote

    def of(self, kind: Kind) -> zygote.Zygote | None:
        """The zygote of a kind that there is now, if there is one."""
        held = self._held.get(kind)
        return held.zygote if held is not None else None

    def fresh(self, kind: Kind, environ: int) -> zygote.Zygote | None:
        """The zygote of a kind, a new one where the last has served its time; None: the kind cannot be forked.

        Raises StepFailed.
        """
        if not self.wants(kind):
            return self.of(kind)
        self.give_up(kind)
        held = self._held[kind] = self._make(kind, environ)
        return held.zygote

    def wants(self, kind: Kind) -> bool:
        """Whether a kind should have a zygote, or a new one."""
        held = self._held.get(kind)
        if held is not None:
            served = held.zygote.children >= CHILDREN or time.monotonic() > held.until
            return served and not held.zygote.unborn  # somebody waits for these, and they would go with it
        return time.monotonic() > self._without.get(kind, 0.0) and zygote.can_fork(kind[0].hex())

    def _make(self, kind: Kind, environ: int) -> _Held:
        slot = self._host.slots.take()
        cgroup: Cgroup | None = None
        try:
            with step("cgroup"):
                cgroup = self._host.cgroups.make(self._name())
                cgroup.limit(memory_mb=zygote.MEMORY_MB, pids=zygote.PIDS)
            first_id = slot * namespaces.UIDS_PER_ENVIRONMENT
            made, mapper = zygote.fork(cgroup, kind[0].hex(), [*self._files, environ], first_id)
        except BaseException:
            if cgroup is not None:
                cgroup.remove()
            self._host.slots.give_back(slot)
            raise
        environment = Environment(slot, cgroup, made.mapper, mapper, -1, -1, kind=kind)
        self._begin(environment)
        return _Held(made, environment, time.monotonic() + SECONDS)

    def hear(self, environment: Environment) -> bool:
        """Its mapper said that it stands in its user namespace, in which every environment's ids get a place.

        False: it has ended.
        """
        try:
            if not environment.channel.recv(1):
                return False
            namespaces.map_all_ids_from_parent(environment.maker, self._host.uid(0), UIDS_PER_INSTANCE)
            offer_to_the_oom_killer(environment.maker)
            environment.channel.send(b"\1")
        except OSError:
            return False
        return True

    def give_up(self, kind: Kind) -> None:
        """End the zygote of a kind, if there is one; its children live on."""
        held = self._held.pop(kind, None)
        if held is not None:
            held.zygote.close()
            self._end(held.environment)

    def end_late(self) -> None:
        """End those whose children do not come."""
        for kind in [kind for kind, held in self._held.items() if held.zygote.is_late()]:
            log.warning("a zygote's child did not come")
            self.distrust(kind)

    def distrust(self, kind: Kind) -> None:
        """A child failed before it was anything: its zygote goes; after a few, the kind does without for a while."""
        self.give_up(kind)
        self._failures[kind] += 1
        if self._failures[kind] >= _FAILURES:
            self._without[kind] = time.monotonic() + _WITHOUT_SECONDS

    def lose(self, environment: Environment) -> bool:
        """A zygote's processes ended; False: that was asked for."""
        held = self._held.get(environment.kind)
        if held is None or held.environment is not environment:
            return False
        log.warning("a zygote ended")
        self.give_up(environment.kind)
        return True

    def end(self) -> None:
        """End them all."""
        for kind in list(self._held):
            self.give_up(kind)

    def confirm(self, environment: Environment) -> bool:
        """Whether an environment has given up what every environment gives up, and is but its two processes; of a
        zygote's child, the kernel says."""
        if environment.mother is None:
            return True
        try:
            uids = {environment.pid1: self._host.uid(environment.slot)}
            uids[environment.runtime] = self._host.function_uid(environment.slot)
            zygote.check_child(environment.cgroup, uids)
        except (StepFailed, OSError) as error:
            environment.failure = ("zygote", error.errno or errno.EPERM)
            log.error("%s", error)
            return False
        self._failures.pop(environment.kind, None)
        return True
