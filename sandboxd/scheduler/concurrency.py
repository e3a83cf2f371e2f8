"""The account's limit of invocations at one time.

Room: service, pure. May: count. May not: I/O, clock.
"""

from __future__ import annotations


class Concurrency:
    """Counts invocations in flight against the account's limit."""

    __slots__ = ("in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit, self.in_flight = limit, 0

    def take(self) -> bool:
        """Let one more in; False where the limit is reached."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def give_back(self) -> None:
        """One has ended."""
        assert self.in_flight > 0
        self.in_flight -= 1
