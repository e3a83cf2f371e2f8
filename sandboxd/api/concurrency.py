"""Reserved concurrency: what of the account's limit a function has for itself, and what is left for the others.

Room: service. May: change the store, tell the scheduler.

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.changes import Changes
from sandboxd.api.errors import function_not_found, functions_only
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.protocols import Scheduler
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.limits import Limits
from sandboxd.store.store import Store

_KIND = "Concurrency"
_RESERVED = "ReservedConcurrentExecutions"


class Allotments:
    """What functions have of the account's limit, as the store has it; the scheduler is told."""

    def __init__(self, store: Store, scheduler: Scheduler, limits: Limits) -> None:
        self._store, self._scheduler, self._limits = store, scheduler, limits

    def reserved(self, name: str) -> int | None:
        """What a function has reserved; None: nothing."""
        document = self._store.settings.get(_KIND, name)
        return None if document is None else int(document[_RESERVED])

    def unreserved(self) -> int:
        """What is left for functions that have nothing of their own."""
        reserved: int = sum(document[_RESERVED] for _, _, document in self._store.settings.every(_KIND))
        return self._limits.concurrency - reserved

    def apply(self, name: str) -> None:
        """Have the scheduler do what the store says of a function, or no longer says."""
        self._scheduler.allot(name, self.reserved(name))

    def apply_all(self) -> None:
        """As `apply`, of every function: once, at the start."""
        for name, _, _ in self._store.settings.every(_KIND):
            self.apply(name)


class ConcurrencyApi:
    """The operations on reserved concurrency."""

    def __init__(
        self, store: Store, names: Names, lookup: Lookup, changes: Changes, allotments: Allotments, limits: Limits
    ) -> None:
        self._store, self._names, self._lookup, self._changes = store, names, lookup, changes
        self._allotments, self._limits = allotments, limits
        self._one = asyncio.Lock()  # who looks at what is left takes of it before the next one looks

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "DeleteFunctionConcurrency": self.delete_function_concurrency,
            "GetFunctionConcurrency": self.get_function_concurrency,
            "PutFunctionConcurrency": self.put_function_concurrency,
        }

    async def put_function_concurrency(self, call: Call) -> Result:
        """PutFunctionConcurrency."""
        name, wanted = self._name(call.members, "PutFunctionConcurrency"), call.members[_RESERVED]
        async with self._one:
            await self._changes.wait(name)
            with self._changes.one(self._name(call.members, "PutFunctionConcurrency")):
                left = self._allotments.unreserved() + (self._allotments.reserved(name) or 0) - wanted
                least = self._limits.unreserved_concurrency
                if left < least:
                    text = (
                        "Specified ReservedConcurrentExecutions for function decreases account's "
                        f"UnreservedConcurrentExecution below its minimum value of [{least}]."
                    )
                    raise ApiError("InvalidParameterValueException", text, fault=None)
                await self._store.settings.put(_KIND, name, {_RESERVED: wanted})
                self._allotments.apply(name)
        return Result(200, {_RESERVED: wanted})

    async def get_function_concurrency(self, call: Call) -> Result:
        """GetFunctionConcurrency."""
        name = self._lookup.function(call.members, "GetFunctionConcurrency").name
        return Result(200, self._store.settings.get(_KIND, name) or {})

    async def delete_function_concurrency(self, call: Call) -> Result:
        """DeleteFunctionConcurrency."""
        name = self._name(call.members, "DeleteFunctionConcurrency")
        if self._allotments.reserved(name) is not None:
            await self._store.settings.remove(_KIND, name)
            self._allotments.apply(name)
        return Result(204)

    def _name(self, members: Mapping[str, Any], action: str) -> str:
        """The function of a request that no qualifier may come with, be it $LATEST."""
        name, qualifier = self._names.resolve(members["FunctionName"], action=action)
        if qualifier:
            raise functions_only()
        if self._store.functions.described(name) is None:
            raise function_not_found(self._names.arn(name, LATEST))
        return name
