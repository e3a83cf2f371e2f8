"""The events of one target: how many run at one time, and since when none.

Room: service. May: count, wait. May not: I/O.

Each target has a lane of its own, so that one that is throttled, slow or far behind holds up nobody else. A refusal is
the lane's: its events stay as they are on disk, in their order, and after a pause one of them tries again; what gets
through widens the lane.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field


@dataclass(slots=True)
class Lane:
    """One target's. Times are the queue's."""

    target: str
    widest: int
    pauses: tuple[float, ...]  # the first and the longest, in seconds
    width: int = 0
    running: set[int] = field(default_factory=set)  # by the events' ids
    refusals: int = 0  # in a row
    closed_until: float = 0.0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.width = self.widest

    @property
    def room(self) -> int:
        """How many more may run."""
        return max(0, self.width - len(self.running))

    def refused(self, now: float) -> float:
        """Nothing gets through: pause; seconds of the pause. What was refused at the same time is one refusal."""
        if now >= self.closed_until:
            self.closed_until = now + self.pause(self.refusals)
            self.refusals += 1
            self.width = 1
        return self.closed_until - now

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures before: twice as long each time."""
        first, longest = self.pauses
        return float(min(longest, first * 2 ** min(failures, 30)))

    def passed(self) -> None:
        """Something got through."""
        self.refusals, self.width = 0, min(self.widest, 2 * self.width)

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

    async def wait(self, seconds: float | None) -> None:
        """Return when something changes, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
