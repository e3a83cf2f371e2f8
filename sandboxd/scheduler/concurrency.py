"""How many invocations run at one time: the account's limit, and what functions and versions have of it for themselves.

Room: service, pure. May: count. May not: I/O, clock.

A reserved function has its number for itself and no more than that; all others share what is left. A provisioned
version has its number for itself, out of its function's or else of the common one, and more where there is more.
Where numbers change, whoever is over the new ones keeps what runs and gets nothing more. Until it has ended, nobody may
be over the account's limit either, not even with what is reserved.

Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Reason(Enum):
    """Why an invocation is not run."""

    CONCURRENCY = "ConcurrentInvocationLimitExceeded"
    RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
    DRAINING = "Draining"


@dataclass(slots=True)
class _Share:
    """A function's."""

    reserved: int | None = None
    provisioned: Mapping[str, int] = field(default_factory=dict)  # by version's key
    provisioned_sum: int = 0
    running: dict[str, int] = field(default_factory=dict)  # by version's key
    in_flight: int = 0
    on_demand: int = 0  # of these, beyond what their versions have provisioned

    @property
    def apart(self) -> int:
        """What nobody else has of the account's limit."""
        return self.provisioned_sum if self.reserved is None else self.reserved

    @property
    def common(self) -> int:
        """In flight at the expense of what all share."""
        return self.on_demand if self.reserved is None else 0


class Concurrency:
    """Counts invocations in flight against the account's limit and the parts of it."""

    __slots__ = ("_apart", "_common", "_shares", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit, self.in_flight = limit, 0
        self._apart = self._common = 0
        self._shares: dict[str, _Share] = {}

    def take(self, function_name: str, key: str) -> Reason | None:
        """Let one more of a version in; the reason where it must not."""
        share = self._shares.get(function_name)
        if share is None:
            if max(self._common + self._apart, self.in_flight) >= self.limit:
                return Reason.CONCURRENCY
            share = self._shares[function_name] = _Share()
        running = share.running.get(key, 0)
        on_demand = running >= share.provisioned.get(key, 0)
        if share.reserved is not None:
            left = share.reserved - share.provisioned_sum
            if share.in_flight >= share.reserved or (on_demand and share.on_demand >= left):
                return Reason.RESERVED
        elif on_demand and self._common + self._apart >= self.limit:
            return Reason.CONCURRENCY
        if self.in_flight >= self.limit:
            return Reason.CONCURRENCY
        share.running[key] = running + 1
        share.in_flight += 1
        self.in_flight += 1
        if on_demand:
            share.on_demand += 1
            self._common += share.reserved is None
        return None

    def give_back(self, function_name: str, key: str) -> None:
        """One has ended."""
        share = self._shares[function_name]
        running = share.running[key]
        if running > share.provisioned.get(key, 0):
            share.on_demand -= 1
            self._common -= share.reserved is None
        share.in_flight -= 1
        self.in_flight -= 1
        if running > 1:
            share.running[key] = running - 1
            return
        del share.running[key]
        self._drop_empty(function_name)

    def allot(self, function_name: str, reserved: int | None, provisioned: Mapping[str, int]) -> None:
        """From now on a function has these numbers: its own, or None, and those of its versions, by key."""
        share = self._shares.setdefault(function_name, _Share())
        self._apart -= share.apart
        self._common -= share.common
        share.reserved, share.provisioned = reserved, dict(provisioned)
        share.provisioned_sum = sum(provisioned.values())
        share.on_demand = sum(max(0, n - share.provisioned.get(key, 0)) for key, n in share.running.items())
        self._apart += share.apart
        self._common += share.common
        self._drop_empty(function_name)

    def _drop_empty(self, function_name: str) -> None:
        share = self._shares[function_name]
        if not share.running and share.reserved is None and not share.provisioned:
            del self._shares[function_name]
