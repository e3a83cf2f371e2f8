"""Idle environments: found by what they are reused for, ended by age, or by worth when memory is wanted.

Room: service, pure. May: remember times it was told. May not: I/O, clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Used(NamedTuple):
    """What an environment that gets idle has shown."""

    key: str  # of its version
    uses: int
    cost: float  # seconds it took to start
    memory: int  # bytes it holds


class KeepAlive(Protocol):
    """How long idle environments stay, and which go first when memory is wanted.

    A histogram of arrivals (Serverless in the Wild, ATC '20) would be one more of these.
    """

    def seconds(self, used: Used) -> float:
        """How long one that is idle from now on stays."""

    def worth(self, used: Used) -> float:
        """Of one that is idle from now on; the lowest goes first."""

    def evicted(self, worth: float) -> None:
        """One of this worth went, because memory was wanted."""


class OldestFirst:
    """Every idle environment stays equally long; the one that has been idle longest goes first."""

    __slots__ = ("_keep_alive", "_turn")

    def __init__(self, keep_alive: float) -> None:
        self._keep_alive, self._turn = keep_alive, 0

    def seconds(self, used: Used) -> float:
        """The same for all."""
        return self._keep_alive

    def worth(self, used: Used) -> float:
        """Its turn."""
        self._turn += 1
        return self._turn

    def evicted(self, worth: float) -> None:
        """The order says it all."""


class GreedyDual:
    """What is cheap to start again, large and seldom used goes first.

    Greedy-Dual-Size-Frequency as in FaasCache (Fuerst and Sharma, ASPLOS '21, section 4): worth is the clock, plus
    uses x seconds of a cold start / memory; the clock rises to the worth of each that goes, so that what was worth much
    long ago goes at last. Uses are those of the environment, not of the function as in the paper: the tenth one of a
    busy function, which only a burst needs, is worth little (`sandboxd simulate` shows half the cold starts).
    """

    __slots__ = ("_clock", "_keep_alive")

    def __init__(self, keep_alive: float) -> None:
        self._keep_alive, self._clock = keep_alive, 0.0

    def seconds(self, used: Used) -> float:
        """The same for all."""
        return self._keep_alive

    def worth(self, used: Used) -> float:
        """Seconds saved per byte, above the clock."""
        return self._clock + used.uses * used.cost / max(used.memory, 1)

    def evicted(self, worth: float) -> None:
        """The clock never goes back."""
        self._clock = max(self._clock, worth)


POLICIES: dict[str, Callable[[float], KeepAlive]] = {"greedy-dual": GreedyDual, "oldest-first": OldestFirst}


class _Lowest:
    """Environments by a number, lowest first. What was dropped stays in the heap until it surfaces or is the half of
    it, so that a step costs the logarithm of what is kept, over time."""

    __slots__ = ("_heap", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def put(self, environment_id: int, number: float) -> None:
        self._numbers[environment_id] = number
        heapq.heappush(self._heap, (number, environment_id))

    def drop(self, environment_id: int) -> None:
        del self._numbers[environment_id]
        if len(self._heap) > 2 * len(self._numbers) + 64:
            self._heap = [(number, environment_id) for environment_id, number in self._numbers.items()]
            heapq.heapify(self._heap)

    def lowest(self) -> tuple[float, int] | None:
        while self._heap:
            number, environment_id = self._heap[0]
            if self._numbers.get(environment_id) == number:
                return self._heap[0]
            heapq.heappop(self._heap)
        return None


class IdleEnvironments:
    """Idle environments by their version's key, by when their time is over and by worth."""

    __slots__ = ("_by_end", "_by_key", "_by_worth", "_keys", "_policy")

    def __init__(self, policy: KeepAlive) -> None:
        self._policy = policy
        self._keys: dict[int, str] = {}
        self._by_key: dict[str, dict[int, None]] = {}
        self._by_end, self._by_worth = _Lowest(), _Lowest()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, environment_id: int, used: Used, now: float) -> None:
        """It is idle from now on."""
        self._keys[environment_id] = used.key
        self._by_key.setdefault(used.key, {})[environment_id] = None
        self._by_end.put(environment_id, now + self._policy.seconds(used))
        self._by_worth.put(environment_id, self._policy.worth(used))

    def take(self, key: str) -> int | None:
        """The one of this key that was used last, no longer idle; None where there is none.

        The last one used has the warmest caches, and lets the others grow old.
        """
        same = self._by_key.get(key)
        if not same:
            return None
        environment_id = next(reversed(same))
        self.remove(environment_id)
        return environment_id

    def remove(self, environment_id: int) -> None:
        """It is idle no more."""
        key = self._keys.pop(environment_id)
        same = self._by_key[key]
        del same[environment_id]
        if not same:
            del self._by_key[key]
        self._by_end.drop(environment_id)
        self._by_worth.drop(environment_id)

    def expired(self, now: float) -> list[int]:
        """Those whose time is over, idle no more."""
        gone = []
        while (first := self._by_end.lowest()) is not None and first[0] <= now:
            self.remove(first[1])
            gone.append(first[1])
        return gone

    def next_expiry(self) -> float | None:
        """When the next one's time is over; None where none is idle."""
        first = self._by_end.lowest()
        return first and first[0]

    def evict(self) -> int | None:
        """The one of least worth, idle no more; None where none is idle."""
        first = self._by_worth.lowest()
        if first is None:
            return None
        self._policy.evicted(first[0])
        self.remove(first[1])
        return first[1]
