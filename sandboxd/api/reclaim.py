"""The end of a function version: its environments retire, and when the last is gone its packages go.

Room: service. May: retire environments, drop packages.

An environment has code and layers mounted: to remove them earlier would pull the files from under a request in flight.
So a package goes when no invocation of it runs and no environment older than its replacement is left.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from sandboxd.api.protocols import Scheduler
from sandboxd.api.tasks import Tasks
from sandboxd.model.function import FunctionVersion
from sandboxd.store.code import Code

_LOOK_AGAIN = 0.25  # seconds


class Reclaimer:
    """Retires function versions, and knows what has an invocation under way."""

    def __init__(self, scheduler: Scheduler, code: Code, tasks: Tasks) -> None:
        self._running: dict[str, int] = {}
        self._retiring: Counter[str] = Counter()  # packages
        self._scheduler, self._code, self._tasks = scheduler, code, tasks

    def began(self, version: FunctionVersion) -> None:
        """An invocation of a version began."""
        what = _what_runs(version)
        self._running[what] = self._running.get(what, 0) + 1

    def ended(self, version: FunctionVersion) -> None:
        """It ended."""
        what = _what_runs(version)
        left = self._running[what] - 1
        if left:
            self._running[what] = left
        else:
            del self._running[what]

    def retire(self, version: FunctionVersion) -> None:
        """End what a version leaves behind; to be called once nothing new can start from it."""
        self._scheduler.retire(version.key)
        self._retiring.update(version.packages)
        self._tasks.start_patient(self._drop_packages(version, time.monotonic()))

    def drop(self, digest: str) -> None:
        """Remove a package that nothing is made from, unless a version that retires still has it."""
        if not self._retiring[digest]:
            self._code.drop_unused(digest)

    async def _drop_packages(self, version: FunctionVersion, since: float) -> None:
        what = _what_runs(version)
        while what in self._running or self._has_environment(version, time.monotonic() - since):
            if all(map(self._code.in_use, version.packages)):
                break
            await asyncio.sleep(_LOOK_AGAIN)
        self._retiring -= Counter(version.packages)
        for digest in version.packages:
            self.drop(digest)

    def _has_environment(self, version: FunctionVersion, age: float) -> bool:
        whose = (version.account, version.name, version.version)
        return any(
            (row["Account"], row["Function"], row["Version"]) == whose and row["AgeSeconds"] >= age
            for row in self._scheduler.environments()
        )


def _what_runs(version: FunctionVersion) -> str:
    """What invocations are counted by: versions of the same code are one, unless their layers may differ."""
    return version.key if version.layers else version.code_digest
