"""Which environment serves which invocation: a pure state machine, fed with events, answering with instructions.

Room: service, pure. May: decide. May not: I/O, clock, asyncio; `now` is told.

An environment of a version: STARTING (for one invocation) -> BUSY -> IDLE -> BUSY ... and then gone. It is reserved in
the same step that finds it or asks for it, so that it is never ready for two. Reuse goes by FunctionVersion.key, never
across. A retired or dead one that is in use ends with its invocation. What environments hold together may be bounded:
idle ones go until the rest is within the bound, busy ones are never taken away. A provisioned one is made AHEAD of any
invocation, is idle from then on, and goes neither by age nor for memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sandboxd.scheduler.concurrency import Concurrency, Reason
from sandboxd.scheduler.keep_alive import IdleEnvironments, KeepAlive, Used
from sandboxd.scheduler.provisioned import Provisioned, Standing

# events


@dataclass(frozen=True, slots=True)
class InvocationArrived:
    """Someone wants a version of an account's function run. Answered by exactly one of Assign, Start, Reject."""

    request_id: str
    function_name: str
    key: str
    account: str = ""


@dataclass(frozen=True, slots=True)
class EnvironmentReady:
    """An environment that was to start runs its invocation now; one made ahead could run one, and holds `memory`."""

    environment_id: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class EnvironmentFailed:
    """An environment did not take its invocation, or was not made. `again`: the invocation shall have a new one."""

    environment_id: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class InvocationFinished:
    """An environment's invocation is over; `lives`: the environment can take another, and holds `memory` bytes."""

    environment_id: int
    lives: bool
    memory: int = 0


@dataclass(frozen=True, slots=True)
class EnvironmentDied:
    """An environment ended by itself."""

    environment_id: int


@dataclass(frozen=True, slots=True)
class VersionRetired:
    """A version was replaced or deleted: none of its environments takes another invocation."""

    key: str


@dataclass(frozen=True, slots=True)
class Allotted:
    """A function has this much of its account's limit for itself from now on (None: nothing); so many environments of
    its versions, by key, are made ahead and kept."""

    function_name: str
    reserved: int | None
    provisioned: Mapping[str, int] = field(default_factory=dict)
    account: str = ""


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """The service is to end: nothing new, and what runs runs to its end."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    InvocationArrived
    | EnvironmentReady
    | EnvironmentFailed
    | InvocationFinished
    | EnvironmentDied
    | VersionRetired
    | Allotted
    | DrainStarted
    | Tick
)

# instructions


@dataclass(frozen=True, slots=True)
class Assign:
    """Run the invocation in this environment, which lives."""

    request_id: str
    environment_id: int


@dataclass(frozen=True, slots=True)
class Start:
    """Start this environment, and run the invocation in it."""

    request_id: str
    environment_id: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Start this environment of a version, with no invocation."""

    environment_id: int
    key: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Do not run the invocation."""

    request_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing runs in this environment for now."""

    environment_id: int


@dataclass(frozen=True, slots=True)
class Destroy:
    """End this environment; it is not heard of again."""

    environment_id: int


Instruction = Assign | Start | Prepare | Reject | Freeze | Destroy


class _Use(Enum):
    STARTING = 1
    AHEAD = 2
    BUSY = 3
    IDLE = 4


@dataclass(slots=True)
class _Environment:
    id: int
    function_name: str
    key: str
    use: _Use
    request_id: str  # of the invocation it is reserved for; of the last one while idle
    account: str  # at whose expense that one runs
    since: float  # when it was asked for
    provisioned: bool
    cost: float = 0.0  # seconds from then until it was ready
    uses: int = 0
    memory: int = 0  # bytes it held after its last invocation
    retired: bool = False  # ends with its invocation, and so does whatever takes its place
    dead: bool = False  # has ended by itself


class Pool:
    """Every environment and whom it serves. Idle ones go when all together hold more than `memory` bytes.

    `concurrency` is each account's. Functions are known by names, and versions by keys, that are nobody else's, in no
    account.
    """

    def __init__(self, concurrency: int, keep_alive: KeepAlive, memory: int) -> None:
        self._limit = concurrency
        self._concurrency: dict[str, Concurrency] = {}  # by account
        self._idle, self._provisioned = IdleEnvironments(keep_alive), Provisioned()
        self._memory, self._memory_limit = 0, memory
        self._environments: dict[int, _Environment] = {}
        self._of_version: dict[str, set[int]] = {}
        self._last_id = 0
        self._draining = False

    @property
    def in_flight(self) -> int:
        """Invocations accepted and not over."""
        return sum(of_account.in_flight for of_account in self._concurrency.values())

    @property
    def memory(self) -> int:
        """Bytes that all environments held after their last invocation."""
        return self._memory

    def next_tick(self) -> float | None:
        """When a Tick is due; None while there is nothing to wait for."""
        times = (self._idle.next_expiry(), self._provisioned.next_due())
        return min((time for time in times if time is not None), default=None)

    def standing(self, key: str) -> Standing:
        """How far the environments of a version that are made ahead are."""
        return self._provisioned.standing(key)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take one event; what is to be done. `now` never goes back."""
        match event:
            case InvocationArrived():
                return [self._place(event, now)]
            case InvocationFinished(environment_id, lives, memory):
                return self._finish(self._environments[environment_id], lives, memory, now)
            case EnvironmentReady(environment_id, memory):
                return self._ready(self._environments[environment_id], memory, now)
            case EnvironmentFailed(environment_id, again):
                return self._fail(self._environments[environment_id], again, now)
            case EnvironmentDied(environment_id):
                environment = self._environments.get(environment_id)
                return [] if environment is None else self._bury(environment, now)
            case VersionRetired(key):
                name = self._provisioned.end(key)
                gone = self._retire(sorted(self._of_version.get(key, ())))
                return gone if name is None else [*gone, *self._provide(name, now)]
            case Allotted(function_name, reserved, provisioned, account):
                self._of_account(account).allot(function_name, reserved, provisioned)
                if self._draining:
                    return []
                self._provisioned.want(function_name, provisioned)
                return self._provide(function_name, now)
            case DrainStarted():
                self._draining = True
                self._provisioned.end_all()
                return self._retire(list(self._environments))
            case Tick():
                gone = [self._forget(self._environments[i]) for i in self._idle.expired(now)]
                return [*gone, *self._provide("", now)]

    def _place(self, arrived: InvocationArrived, now: float) -> Instruction:
        if self._draining:
            return Reject(arrived.request_id, Reason.DRAINING)
        refusal = self._of_account(arrived.account).take(arrived.function_name, arrived.key)
        if refusal is not None:
            return Reject(arrived.request_id, refusal)
        environment_id = self._provisioned.take(arrived.key)
        if environment_id is None:
            environment_id = self._idle.take(arrived.key)
        if environment_id is None:
            return self._start(arrived, now)
        environment = self._environments[environment_id]
        environment.use, environment.request_id = _Use.BUSY, arrived.request_id
        environment.account = arrived.account
        return Assign(arrived.request_id, environment_id)

    def _of_account(self, account: str) -> Concurrency:
        found = self._concurrency.get(account)
        if found is None:
            found = self._concurrency[account] = Concurrency(self._limit)
        return found

    def _start(self, arrived: InvocationArrived, now: float) -> Start:
        return Start(arrived.request_id, self._make(arrived, _Use.STARTING, now))

    def _make(self, arrived: InvocationArrived, use: _Use, now: float) -> int:
        self._last_id += 1
        name, key = arrived.function_name, arrived.key
        environment = _Environment(
            self._last_id, name, key, use, arrived.request_id, arrived.account, now, use is _Use.AHEAD
        )
        self._environments[environment.id] = environment
        self._of_version.setdefault(key, set()).add(environment.id)
        return environment.id

    def _provide(self, function_name: str, now: float) -> list[Instruction]:
        """End what a function has ahead and need not have, start what any is short of."""
        instructions: list[Instruction] = [
            self._forget(self._environments[i]) for i in self._provisioned.surplus(function_name)
        ]
        while (missing := self._provisioned.next_missing(now)) is not None:
            name, key = missing
            environment_id = self._make(InvocationArrived("", name, key), _Use.AHEAD, now)
            self._provisioned.starts(key, environment_id)
            instructions.append(Prepare(environment_id, key))
        return instructions

    def _ready(self, environment: _Environment, memory: int, now: float) -> list[Instruction]:
        environment.cost = now - environment.since
        if not environment.provisioned:
            assert environment.use is _Use.STARTING
            environment.use = _Use.BUSY
            return []
        assert environment.use is _Use.AHEAD
        if environment.dead:
            return self._fail(environment, False, now)
        if environment.retired:
            return [self._forget(environment), *self._replace(environment, now)]
        environment.use, environment.memory = _Use.IDLE, memory
        self._memory += memory
        self._provisioned.ready(environment.key, environment.id)
        return [Freeze(environment.id), *self._replace(environment, now), *self._evict()]

    def _finish(self, environment: _Environment, lives: bool, memory: int, now: float) -> list[Instruction]:
        assert environment.use is _Use.BUSY
        self._concurrency[environment.account].give_back(environment.function_name, environment.key)
        if not lives or environment.dead or environment.retired:
            return [self._forget(environment), *self._replace(environment, now)]
        self._memory += memory - environment.memory
        environment.use, environment.memory = _Use.IDLE, memory
        environment.uses += 1
        if environment.provisioned:
            self._provisioned.put_back(environment.key, environment.id)
            return [Freeze(environment.id), *self._replace(environment, now), *self._evict()]
        used = Used(environment.key, environment.uses, environment.cost, memory)
        self._idle.add(environment.id, used, now)
        return [Freeze(environment.id), *self._evict()]

    def _evict(self) -> list[Destroy]:
        gone = []
        while self._memory > self._memory_limit and (environment_id := self._idle.evict()) is not None:
            gone.append(self._forget(self._environments[environment_id]))
        return gone

    def _fail(self, environment: _Environment, again: bool, now: float) -> list[Instruction]:
        assert environment.use is not _Use.IDLE
        gone = self._forget(environment)
        if environment.use is _Use.AHEAD:
            self._provisioned.failed(environment.key, now)
            return [gone, *self._replace(environment, now)]
        if again:  # it was accepted once: neither the limit nor a drain takes that back
            arrived = InvocationArrived(
                environment.request_id, environment.function_name, environment.key, environment.account
            )
            start = self._start(arrived, now)
            self._environments[start.environment_id].retired = environment.retired
            return [gone, start, *self._replace(environment, now)]
        self._concurrency[environment.account].give_back(environment.function_name, environment.key)
        return [gone, *self._replace(environment, now)]

    def _replace(self, environment: _Environment, now: float) -> list[Instruction]:
        """What a change of this one means for those that are made ahead."""
        return self._provide(environment.function_name, now) if environment.provisioned else []

    def _bury(self, environment: _Environment, now: float) -> list[Instruction]:
        environment.dead = True
        if environment.use is not _Use.IDLE:  # what it is in use for is about to be told
            return []
        gone = self._end_idle(environment)
        if environment.provisioned and not environment.uses:
            self._provisioned.failed(environment.key, now)
        return [gone, *self._replace(environment, now)]

    def _end_idle(self, environment: _Environment) -> Destroy:
        if not environment.provisioned:
            self._idle.remove(environment.id)
        return self._forget(environment)

    def _retire(self, environment_ids: list[int]) -> list[Instruction]:
        gone: list[Instruction] = []
        for environment_id in environment_ids:
            environment = self._environments[environment_id]
            environment.retired = True
            if environment.use is _Use.IDLE:
                gone.append(self._end_idle(environment))
        return gone

    def _forget(self, environment: _Environment) -> Destroy:
        del self._environments[environment.id]
        self._memory -= environment.memory
        if environment.provisioned:
            self._provisioned.gone(environment.key, environment.id)
        same = self._of_version[environment.key]
        same.discard(environment.id)
        if not same:
            del self._of_version[environment.key]
        return Destroy(environment.id)
