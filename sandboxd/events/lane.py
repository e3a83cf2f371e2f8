"""The events of one target: how many run at one time, and since when none.

Room: service. May: count, wait. May not: I/O.

Each target has a lane of its own, so that one that is throttled, slow or far behind holds up nobody else. A refusal is
the lane's: its events stay as they are on disk, in their order. It narrows to what did get through; one more tries
after a pause, which doubles while nothing does.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class Lane:
    """One target's. Times are the queue's."""

    target: str
    widest: int
    pauses: tuple[float, ...]  # the first and the longest, in seconds
    width: int = 0  # how many got through at one time, as far as is known
    running: set[int] = field(default_factory=set)  # by the events' ids
    refusals: int = 0  # since something got through
    closed_until: float = 0.0  # before then no more than `width` try
    _passes: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.width = self.widest

    def room(self, now: float) -> int:
        """How many more may run."""
        tries = self.refusals and now >= self.closed_until and len(self.running) < self.widest
        return max(1 if tries else 0, self.width - len(self.running))

    def refused(self, now: float) -> None:
        """One that runs, as far as this lane knows, did not get through."""
        self.width, self._passes = len(self.running) - 1, 0
        if now >= self.closed_until:  # what was refused at the same time is one refusal
            self.closed_until = now + self.pause(self.refusals)
            self.refusals += 1

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures before: twice as long each time."""
        first, longest = self.pauses
        return float(min(longest, first * 2 ** min(failures, 30)))

    def passed(self) -> None:
        """One got through; when all that may run did, one more may."""
        self.refusals, self._passes = 0, self._passes + 1
        if self._passes >= self.width:
            self.width, self._passes = min(self.widest, self.width + 1), 0

    def wake(self) -> None:
        """Something changed: look again."""
        self._news.set()

    def look(self) -> None:
        """What changed so far is seen."""
        self._news.clear()

    @property
    def woken(self) -> bool:
        """Whether something changed since the last look."""
        return self._news.is_set()

    async def wait(self, seconds: float) -> None:
        """Return when something changes, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if seconds < math.inf else None):
                await self._news.wait()
