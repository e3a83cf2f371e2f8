"""The end of a function version: its environments retire, and when the last is gone its code goes.

Room: service. May: retire environments, drop packages.

An environment has the code directory mounted: to remove it earlier would pull the files from under a request in
flight. So a package goes when no invocation of it runs and no environment older than its replacement is left.
"""

from __future__ import annotations

import asyncio
import time

from sandboxd.api.protocols import Scheduler
from sandboxd.api.tasks import Tasks
from sandboxd.model.function import FunctionVersion
from sandboxd.store.code import Code

_LOOK_AGAIN = 0.25  # seconds


class Reclaimer:
    """Retires function versions, and knows which packages have an invocation under way."""

    def __init__(self, scheduler: Scheduler, code: Code, tasks: Tasks) -> None:
        self._running: dict[str, int] = {}
        self._scheduler, self._code, self._tasks = scheduler, code, tasks

    def began(self, digest: str) -> None:
        """An invocation of a version with this package began."""
        self._running[digest] = self._running.get(digest, 0) + 1

    def ended(self, digest: str) -> None:
        """It ended."""
        left = self._running[digest] - 1
        if left:
            self._running[digest] = left
        else:
            del self._running[digest]

    def retire(self, version: FunctionVersion) -> None:
        """End what a version leaves behind; to be called once nothing new can start from it."""
        self._scheduler.retire(version.key)
        self._tasks.start_patient(self._drop_code(version, time.monotonic()))

    async def _drop_code(self, version: FunctionVersion, since: float) -> None:
        digest = version.code_digest
        while digest in self._running or self._has_environment(version, time.monotonic() - since):
            if self._code.in_use(digest):
                return
            await asyncio.sleep(_LOOK_AGAIN)
        self._code.drop_unused(digest)

    def _has_environment(self, version: FunctionVersion, age: float) -> bool:
        whose = (version.name, version.version)
        return any(
            (row["Function"], row["Version"]) == whose and row["AgeSeconds"] >= age
            for row in self._scheduler.environments()
        )
