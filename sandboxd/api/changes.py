"""One change of a function at a time: a second update meanwhile is AWS's ResourceConflictException, a deletion waits.

What is a function's own (aliases, settings) is changed in turn, whether or not the function itself is being changed:
what such an operation finds, be it the function or a RevisionId, is so until the operation is done.

Room: service. May: remember who changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from weakref import WeakValueDictionary

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.errors import in_state, update_in_progress
from sandboxd.errors import ApiError
from sandboxd.model.arn import parse_function_reference
from sandboxd.model.function import FunctionVersion

_READING = ("Get", "List")
_CONFLICTING = frozenset(("CreateFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration"))

Handler = Callable[[Call], Coroutine[Any, Any, Result]]


class Changes:
    """Which functions are being changed."""

    def __init__(self) -> None:
        self._changing: dict[str, asyncio.Event] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def busy(self) -> bool:
        """Whether any is."""
        return bool(self._changing)

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

    def in_turn(self, operations: Operations) -> Operations:
        """The operations, one at a time for each function; but for those that read, and those whose own changes are
        in each other's way."""
        return {
            name: handler if name.startswith(_READING) or name in _CONFLICTING else self._in_turn(handler)
            for name, handler in operations.items()
        }

    def _in_turn(self, handler: Handler) -> Handler:
        async def alone(call: Call) -> Result:
            reference = parse_function_reference(call.members.get("FunctionName", ""))
            if reference is None:
                return await handler(call)
            turn = self._turns.get(reference.name)
            if turn is None:
                turn = self._turns[reference.name] = asyncio.Lock()
            async with turn:
                return await handler(call)

        return alone

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
