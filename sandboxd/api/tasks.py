"""Work that outlives the request that began it.

Room: service. May: run coroutines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger("sandboxd.api")


class Tasks:
    """Holds tasks until they are done (the event loop itself only holds them weakly) and logs what they raise."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background."""
        self._hold(work).add_done_callback(_log_failure)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end even if whoever waits for it goes away, and return what it returns."""
        return await asyncio.shield(self._hold(work))

    async def close(self) -> None:
        """End what still runs in the background."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _hold(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("work in the background failed", exc_info=task.exception())
