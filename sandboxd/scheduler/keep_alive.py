"""Idle environments: found by what they are reused for, ended by how long they were not.

Room: service, pure. May: remember times it was told. May not: I/O, clock.
"""

from __future__ import annotations

from collections import OrderedDict


class IdleEnvironments:
    """Idle environments by their version's key and by age. Every operation takes the same time at any number of them:
    all are kept equally long, so that the order in which they became idle is that in which they expire."""

    __slots__ = ("_by_age", "_by_key", "_keep_alive")

    def __init__(self, keep_alive: float) -> None:
        self._keep_alive = keep_alive
        self._by_age: OrderedDict[int, tuple[str, float]] = OrderedDict()  # id -> key, idle since
        self._by_key: dict[str, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._by_age)

    def add(self, environment_id: int, key: str, now: float) -> None:
        """It is idle from now on."""
        self._by_age[environment_id] = (key, now)
        self._by_key.setdefault(key, {})[environment_id] = None

    def take(self, key: str) -> int | None:
        """The one of this key that was used last, no longer idle; None where there is none.

        The last one used has the warmest caches, and lets the others grow old.
        """
        same = self._by_key.get(key)
        if not same:
            return None
        environment_id, _ = same.popitem()
        if not same:
            del self._by_key[key]
        del self._by_age[environment_id]
        return environment_id

    def remove(self, environment_id: int) -> None:
        """It is idle no more; nothing where it was not."""
        entry = self._by_age.pop(environment_id, None)
        if entry is not None:
            same = self._by_key[entry[0]]
            del same[environment_id]
            if not same:
                del self._by_key[entry[0]]

    def expired(self, now: float) -> list[int]:
        """Those whose time is over, idle no more."""
        gone = []
        while (at := self.next_expiry()) is not None and at <= now:
            environment_id = next(iter(self._by_age))
            self.remove(environment_id)
            gone.append(environment_id)
        return gone

    def next_expiry(self) -> float | None:
        """When the next one's time is over; None where none is idle."""
        for _, since in self._by_age.values():
            return since + self._keep_alive
        return None
