"""Work that outlives the request that began it.

Room: service. May: run coroutines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSE_SECONDS = 10

_log = logging.getLogger("sandboxd.api")


class Tasks:
    """Holds tasks until they are done (the event loop itself only holds them weakly) and logs what they raise."""

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[Any]] = set()
        self._patient: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a change in the background, to its end."""
        _hold(work, self._ending).add_done_callback(_log_failure)

    def start_patient(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what waits for its moment in the background; it may be cut off at any point."""
        _hold(work, self._patient).add_done_callback(_log_failure)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end even if whoever waits for it goes away, and return what it returns."""
        return await asyncio.shield(_hold(work, self._ending))

    async def close(self) -> None:
        """Let changes under way come to their end, and cut off the rest."""
        for task in self._patient:
            task.cancel()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSE_SECONDS)
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, *self._patient, return_exceptions=True)


def _hold(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("work in the background failed", exc_info=task.exception())
