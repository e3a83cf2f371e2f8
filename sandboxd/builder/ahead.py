"""What is made ahead of its request: spares, and stems of the images that functions use.

Room: root, parent side. May: make and end environments that are nobody's yet. May not: answer the service.

A spare is an empty sandbox; a stem is one whose runtime has booted from an image and waits for its function. Where a
runtime is told as it boots how large its function is, each size is a kind of stems by itself. How many stems there
shall be is for `demand` to say. Spares and stems are made, and what is too many is ended, when nothing has happened for
a moment, so that what they cost is nobody's latency.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable

from sandboxd.builder.demand import Demand
from sandboxd.builder.environment import Environment, Host, Kind
from sandboxd.builder.zygote import Zygote
from sandboxd.builder.zygotes import Zygotes
from sandboxd.errors import StepFailed
from sandboxd.model.environment import EnvironmentSpec

log = logging.getLogger("sandboxd.builder")

SPARES = 2
WARM_KINDS = 4
# Of what environments may hold (`memory`), and of what the host has left, stems beyond the least get a part. MB of one:
_PART = 16
FORKED_MB, BOOTED_MB = 5, 22
KEPT_SECONDS = 10  # a kind that was asked for within makes no room for another
REFILL_SECONDS = 0.02
_RETRY_SECONDS = 2.0  # after one that could not be made
_PACE_SECONDS = 1.0  # from one end of a stem that is too many to the next
_COUNT_SECONDS = 0.1  # how long what was found to be wanted holds: it is asked for with every message


class Ahead:
    """Holds spares and stems until they are asked for. `prepare` makes a spare, `end` ends an environment; `memory` is
    what the configuration says that environments may hold, in MB, or 0."""

    def __init__(
        self,
        host: Host,
        prepare: Callable[[Zygote | None], Environment],
        zygotes: Zygotes,
        end: Callable[[Environment], None],
        memory: int,
    ) -> None:
        self._host, self._prepare, self._zygotes, self._end = host, prepare, zygotes, end
        self._memory = memory
        self._demand = Demand[Kind]()
        self._spares: deque[Environment] = deque()
        self._stems: dict[Kind, deque[Environment]] = {}  # booted
        self._booting: dict[Kind, Environment] = {}
        self._warm: dict[Kind, int] = {}  # the environ of each kind's stems, longest unasked first
        self._asked: dict[Kind, float] = {}
        self._not_before = 0.0
        self._no_end_before = 0.0
        self._wanted: dict[Kind, int] = {}  # stems of each kind, as they were counted last
        self._count_at = 0.0

    def take_stem(self, spec: EnvironmentSpec) -> Environment | None:
        """A stem that can become the environment of this spec, if one is ready."""
        kind = self._kind(spec)
        if kind is None:
            return None
        self._demand.taken(kind, time.monotonic())
        stems = self._stems[kind]
        return stems.popleft() if stems else None

    def take_child(self, spec: EnvironmentSpec) -> Environment | None:
        """A zygote's child on its way to be a stem, where there is a zygote whose child can become this environment."""
        kind = self._kind(spec)
        mother = self._zygotes.of(kind) if kind is not None else None
        if kind is None or mother is None:
            return None
        try:
            child = self._prepare(mother)
        except StepFailed as error:
            if error.errno != errno.EAGAIN:  # it is behind with those that it was asked for: no reason to end them
                log.warning("%s", error)
                self._zygotes.give_up(kind)
            return None
        try:
            self._host.boot(child, kind, self._warm[kind])
        except StepFailed as error:
            child.abandon(error.step, error.errno)
        return child

    def _kind(self, spec: EnvironmentSpec) -> Kind | None:
        """The kind of stems that can become the environment of this spec, if there is one."""
        kinds = (spec.image_digest, spec.memory_mb), (spec.image_digest, 0)
        fits = self._host.fits_stem(spec)
        return next((kind for kind in kinds if kind in self._warm), None) if fits else None

    def take_spare(self) -> Environment:
        """A spare, made now where none is ready. Raises StepFailed."""
        return self._spares.popleft() if self._spares else self._prepare(None)

    def warm(self, kind: Kind, environ: int) -> None:
        """Boot runtimes of this kind ahead from now on; of too many kinds, the longest unasked goes.

        Where more kinds take turns than there is room for, some go without: none is booted only to make room.
        """
        now = time.monotonic()
        if kind not in self._warm and len(self._warm) == WARM_KINDS:
            oldest = next(iter(self._warm))
            if now - self._asked[oldest] < KEPT_SECONDS:
                return
            self._cool(oldest)
        held = self._warm.pop(kind, None)
        self._warm[kind] = os.dup(environ) if held is None else held
        self._asked[kind] = now
        self._count_at = 0.0
        self._stems.setdefault(kind, deque())

    def _cool(self, kind: Kind) -> None:
        os.close(self._warm.pop(kind))
        self._zygotes.give_up(kind)
        self._demand.forget(kind)
        self._wanted.pop(kind, None)
        del self._asked[kind]
        for stem in self._stems.pop(kind):
            self._end(stem)

    def wanting(self) -> bool:
        """Whether there is something to be made or ended now."""
        self._zygotes.end_late()
        return self._is_short() or self._surplus() is not None

    def refill(self) -> None:
        """Make one spare or stem; where none is missing, end one that is too many."""
        if self._is_short():
            self._make()
        elif (kind := self._surplus()) is not None:
            self._no_end_before = time.monotonic() + _PACE_SECONDS
            self._end(self._stems[kind].popleft())

    def _is_short(self) -> bool:
        """Whether there is something to be made now."""
        missing = len(self._spares) < SPARES or self._wanted_stem() is not None or self._wanted_zygote() is not None
        return missing and time.monotonic() >= self._not_before

    def _make(self) -> None:
        kind = self._wanted_stem()
        try:
            if kind is None and (wanted := self._wanted_zygote()) is not None:
                self._zygotes.fresh(wanted, self._warm[wanted])
                return
            if kind is None or not self._spares:
                self._spares.append(self._prepare(None))
                return
            mother = self._zygotes.fresh(kind, self._warm[kind])
            stem = self._booting[kind] = self._spares.popleft() if mother is None else self._prepare(mother)
            self._host.boot(stem, kind, self._warm[kind])
        except (StepFailed, OSError) as error:
            log.warning("nothing could be made ahead: %s", error)
            self._not_before = time.monotonic() + _RETRY_SECONDS
            if kind in self._booting:
                self._end(self._booting.pop(kind))
            if kind is not None:
                self._zygotes.give_up(kind)

    def _count(self) -> None:
        """See how many stems of each kind there shall be."""
        now = time.monotonic()
        if now >= self._count_at:
            available = _available_mb()
            room = min(self._memory or available, available) // _PART
            sizes = {kind: BOOTED_MB if self._zygotes.of(kind) is None else FORKED_MB for kind in self._warm}
            self._wanted, self._count_at = self._demand.wanted(sizes, room, now), now + _COUNT_SECONDS

    def _wanted_stem(self) -> Kind | None:
        """A kind that has too few stems, none of it booting: the one that has fewest."""
        self._count()
        wanted = self._wanted.items()
        short = (kind for kind, n in wanted if len(self._stems[kind]) < n and kind not in self._booting)
        return min(short, key=lambda kind: len(self._stems[kind]), default=None)

    def _surplus(self) -> Kind | None:
        """A kind of which a stem is to be ended now: one after the other, since the kernel has work with each."""
        if time.monotonic() < self._no_end_before:
            return None
        return next((kind for kind, n in self._wanted.items() if len(self._stems[kind]) > n), None)

    def _wanted_zygote(self) -> Kind | None:
        """A kind that should have a zygote and has none."""
        return next((kind for kind in self._warm if self._zygotes.wants(kind)), None)

    def settle(self, environment: Environment) -> None:
        """Its channel closed: a stem runs its image's code now, or whatever it was has failed."""
        if self._booting.get(environment.kind) is environment:
            del self._booting[environment.kind]
            sound = environment.failure is None and environment.exit_status is None and not environment.ending
            if sound and environment.kind in self._warm and self._zygotes.confirm(environment):
                self._stems[environment.kind].append(environment)
                return
        self.lose(environment)

    def lose(self, environment: Environment) -> None:
        """It ended before it was anybody's; its like is not made again at once."""
        for kept in (self._spares, self._stems.get(environment.kind, self._spares)):
            if environment in kept:
                kept.remove(environment)
        if not environment.ending:
            log.warning("an environment made ahead ended: %s, exit status %s", *_story(environment))
            self._not_before = time.monotonic() + _RETRY_SECONDS
            self._end(environment)
            if environment.mother is not None:  # it may be what is wrong
                self._zygotes.distrust(environment.kind)

    def lose_zygote(self, environment: Environment) -> None:
        """A zygote ended, by itself or because it was to: its like is made with the next stem, but not at once."""
        if self._zygotes.lose(environment):
            self._not_before = time.monotonic() + _RETRY_SECONDS

    def end(self) -> None:
        """End everything that is held."""
        self._zygotes.end()
        stems = (stem for stems in self._stems.values() for stem in stems)
        for environment in [*self._spares, *self._booting.values(), *stems]:
            self._end(environment)


def _available_mb() -> int:
    """What the host could give to new processes without swapping (proc_meminfo(5))."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("MemAvailable:"))


def _story(environment: Environment) -> tuple[object, object]:
    return environment.failure, environment.exit_status
