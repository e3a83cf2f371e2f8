"""One change of a function at a time: a second update meanwhile is AWS's ResourceConflictException, a deletion waits.

Room: service. May: remember who changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from sandboxd.api.errors import in_state, update_in_progress
from sandboxd.errors import ApiError
from sandboxd.model.function import FunctionVersion


class Changes:
    """Which functions are being changed."""

    def __init__(self) -> None:
        self._changing: dict[str, asyncio.Event] = {}

    def begin(self, name: str) -> None:
        """A change of the function begins, and nobody else's does before `end`."""
        assert name not in self._changing
        self._changing[name] = asyncio.Event()

    def end(self, name: str) -> None:
        """The change is over."""
        self._changing.pop(name).set()

    @contextlib.contextmanager
    def one(self, name: str) -> Iterator[None]:
        """A change that ends with the block."""
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    @contextlib.contextmanager
    def unless_handed_on(self, name: str) -> Iterator[None]:
        """A change that goes on behind the block, which ends it only where it fails."""
        self.begin(name)
        try:
            yield
        except BaseException:
            self.end(name)
            raise

    async def wait(self, name: str) -> None:
        """Return when nobody changes the function."""
        while name in self._changing:
            await self._changing[name].wait()

    def check(self, name: str, arn: str, version: FunctionVersion | None) -> None:
        """Raise ResourceConflictException where somebody changes the function; `version` is what is shown of it."""
        if name in self._changing:
            raise self._conflict(arn, version)

    def _conflict(self, arn: str, version: FunctionVersion | None) -> ApiError:
        return in_state("Pending") if version is not None and version.state == "Pending" else update_in_progress(arn)
