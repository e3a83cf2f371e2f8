"""Environments that are initialised ahead and kept: of which version how many there shall be, and how many there are.

Room: service, pure. May: remember times it was told. May not: I/O, clock.

A few are made at a time, in turn for all versions that are short of some, so that neither invocations nor one another
wait for long. Where one fails, or ends before it was of use, the next one of its version has to wait: a second, and
each time twice as long, up to a minute. A version that is no longer wanted keeps what it has until the others of its
function have theirs: that is how an alias moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

AT_A_TIME = 8
_LONGEST_WAIT = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a version's environments are: initialised ones, those of them in which nothing runs, whether it fails."""

    allocated: int = 0
    available: int = 0
    failing: bool = False


@dataclass(slots=True)
class _Version:
    function_name: str
    key: str
    wanted: int = 0
    starting: set[int] = field(default_factory=set)
    ready: dict[int, None] = field(default_factory=dict)  # the one used last at the end
    busy: set[int] = field(default_factory=set)
    failures: int = 0  # since one was of use
    due: float = 0.0  # none is started before

    @property
    def initialised(self) -> int:
        return len(self.ready) + len(self.busy)

    @property
    def missing(self) -> int:
        return self.wanted - self.initialised - len(self.starting)


class Provisioned:
    """The environments made ahead, by their version's key."""

    __slots__ = ("_of_function", "_short", "_starting", "_versions")

    def __init__(self) -> None:
        self._versions: dict[str, _Version] = {}
        self._of_function: dict[str, dict[str, _Version]] = {}
        self._short: dict[str, _Version] = {}  # whose turn is next comes first
        self._starting = 0

    def want(self, function_name: str, wanted: Mapping[str, int]) -> None:
        """From now on there shall be so many of a function's versions, by key, and none of its others."""
        versions = self._of_function.setdefault(function_name, {})
        for key in wanted.keys() - versions.keys():
            self._versions[key] = versions[key] = _Version(function_name, key)
        for key in list(versions):
            version = versions[key]
            version.wanted = wanted.get(key, 0)
            version.failures, version.due = 0, 0.0
            self._look(version)
        if not versions:
            self._of_function.pop(function_name, None)

    def end(self, key: str) -> str | None:
        """None of a version any more; its function, where there were to be any."""
        version = self._versions.get(key)
        if version is None:
            return None
        version.wanted = 0
        self._look(version)
        return version.function_name

    def end_all(self) -> None:
        """None at all."""
        for key in list(self._versions):
            self.end(key)

    def take(self, key: str) -> int | None:
        """One in which nothing runs, for an invocation; None where there is none."""
        version = self._versions.get(key)
        if version is None or not version.ready:
            return None
        environment_id, _ = version.ready.popitem()
        version.busy.add(environment_id)
        return environment_id

    def put_back(self, key: str, environment_id: int) -> None:
        """The invocation is over, and it can take another."""
        version = self._versions[key]
        version.busy.remove(environment_id)
        version.ready[environment_id] = None
        version.failures = 0

    def next_missing(self, now: float) -> tuple[str, str] | None:
        """Function and key of the version of which one is to be started now."""
        if self._starting >= AT_A_TIME:
            return None
        due = ((version.function_name, version.key) for version in self._short.values() if version.due <= now)
        return next(due, None)

    def starts(self, key: str, environment_id: int) -> None:
        """One of this version is being made."""
        version = self._versions[key]
        version.starting.add(environment_id)
        self._starting += 1
        self._short.pop(key)  # to the end
        self._look(version)

    def ready(self, key: str, environment_id: int) -> None:
        """It is initialised."""
        version = self._versions[key]
        version.starting.remove(environment_id)
        self._starting -= 1
        version.ready[environment_id] = None

    def gone(self, key: str, environment_id: int) -> None:
        """It has ended, whatever it did."""
        version = self._versions[key]
        if environment_id in version.starting:
            version.starting.remove(environment_id)
            self._starting -= 1
        version.busy.discard(environment_id)
        version.ready.pop(environment_id, None)
        self._look(version)

    def failed(self, key: str, now: float) -> None:
        """One of this version ended before it was of use."""
        version = self._versions.get(key)
        if version is not None:
            version.due = now + min(2.0**version.failures, _LONGEST_WAIT)
            version.failures += 1

    def surplus(self, function_name: str) -> Iterator[int]:
        """Those of a function that are not wanted, one after another, each to be ended before the next one."""
        versions = self._of_function.get(function_name, {})
        if any(version.initialised < version.wanted for version in versions.values()):
            return
        for version in list(versions.values()):
            while version.initialised > version.wanted and version.ready:
                yield next(iter(version.ready))

    def next_due(self) -> float | None:
        """When one that had to wait is to be started; None where nothing waits for its time."""
        if self._starting >= AT_A_TIME:
            return None
        return min((version.due for version in self._short.values()), default=None)

    def standing(self, key: str) -> Standing:
        """How far a version's environments are."""
        version = self._versions.get(key)
        if version is None:
            return Standing()
        failing = version.failures > 0 and version.initialised < version.wanted
        return Standing(version.initialised, len(version.ready), failing)

    def _look(self, version: _Version) -> None:
        """Keep what is derived of a version: whether it is short of some, and whether it is needed at all."""
        if version.missing > 0:
            self._short.setdefault(version.key, version)
            return
        self._short.pop(version.key, None)
        if not (version.wanted or version.starting or version.ready or version.busy):
            del self._versions[version.key]
            versions = self._of_function[version.function_name]
            del versions[version.key]
            if not versions:
                del self._of_function[version.function_name]
