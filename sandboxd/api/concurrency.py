"""Reserved concurrency, and what functions have of the account's limit altogether.

Room: service. May: change the store, tell the scheduler.

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.changes import Changes
from sandboxd.api.errors import function_not_found, functions_only
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.protocols import Scheduler
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion
from sandboxd.model.limits import Limits
from sandboxd.store.store import Store

RESERVED, PROVISIONED = "Concurrency", "ProvisionedConcurrency"  # kinds of documents
_MEMBER = {RESERVED: "ReservedConcurrentExecutions", PROVISIONED: "ProvisionedConcurrentExecutions"}


class Allotments:
    """What functions have of the account's limit, as the store has it; the scheduler is told."""

    def __init__(self, store: Store, names: Names, changes: Changes, scheduler: Scheduler, limits: Limits) -> None:
        self._store, self._names, self._changes = store, names, changes
        self._scheduler, self._limits = scheduler, limits
        self._one = asyncio.Lock()

    def reserved(self, name: str) -> int | None:
        """What a function has reserved; None: nothing."""
        document = self._store.settings.get(RESERVED, name)
        return None if document is None else int(document[_MEMBER[RESERVED]])

    def provisioned(self, name: str) -> dict[str, int]:
        """What was asked for to be provisioned, by qualifier."""
        documents = self._store.settings.of(PROVISIONED, name)
        return {qualifier: int(document[_MEMBER[PROVISIONED]]) for qualifier, document in documents}

    def apart(self, name: str) -> int:
        """What a function has that the others have not."""
        reserved = self.reserved(name)
        return sum(self.provisioned(name).values()) if reserved is None else reserved

    def unreserved(self) -> int:
        """What is left for functions that have nothing of their own."""
        return self._limits.concurrency - sum(self.apart(name) for name in self._functions())

    def parts(self, name: str, qualifier: str, count: int) -> dict[FunctionVersion, int]:
        """How many of which version's environments it takes to provision so many of a version or an alias."""
        alias = self._store.aliases.get(name, qualifier)
        counts = {qualifier: count}
        if alias is not None:
            second = round(count * alias.weight) if alias.second_version else 0
            counts = {alias.version: count - second, alias.second_version: second}
        versions = ((self._store.functions.resolve(name, number), part) for number, part in counts.items() if part)
        return {v: part for v, part in versions if v is not None and v.version != LATEST and v.state == "Active"}

    def apply(self, name: str) -> None:
        """Have the scheduler do what the store says of a function, or no longer says."""
        wanted: Counter[FunctionVersion] = Counter()
        for qualifier, count in self.provisioned(name).items():
            wanted.update(self.parts(name, qualifier, count))
        self._scheduler.allot(self._names.arn(name), self.reserved(name), wanted)

    def apply_all(self) -> None:
        """As `apply`, of every function: once, at the start."""
        for name in self._functions():
            self.apply(name)

    @contextlib.asynccontextmanager
    async def change(self, name: str) -> AsyncIterator[None]:
        """Nobody else changes the function, or takes of what is left, until the block has ended."""
        async with self._one:
            await self._changes.wait(name)
            with self._changes.one(name):
                yield

    def _functions(self) -> set[str]:
        return {name for kind in (RESERVED, PROVISIONED) for name, _, _ in self._store.settings.every(kind)}


class ConcurrencyApi:
    """The operations on reserved concurrency."""

    def __init__(self, store: Store, names: Names, lookup: Lookup, allotments: Allotments, limits: Limits) -> None:
        self._store, self._names, self._lookup = store, names, lookup
        self._allotments, self._limits = allotments, limits

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "DeleteFunctionConcurrency": self.delete_function_concurrency,
            "GetFunctionConcurrency": self.get_function_concurrency,
            "PutFunctionConcurrency": self.put_function_concurrency,
        }

    async def put_function_concurrency(self, call: Call) -> Result:
        """PutFunctionConcurrency."""
        wanted = call.members[_MEMBER[RESERVED]]
        async with self._allotments.change(self._name(call.members, "PutFunctionConcurrency")):
            name = self._name(call.members, "PutFunctionConcurrency")
            least = self._limits.unreserved_concurrency
            if self._allotments.unreserved() + self._allotments.apart(name) - wanted < least:
                raise _refused(
                    "Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{least}]."
                )
            provisioned = sum(self._allotments.provisioned(name).values())
            if wanted < provisioned:  # with AWS's own blanks
                raise _refused(
                    f" ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned "
                    f"concurrency [{provisioned}]."
                )
            await self._store.settings.put(RESERVED, name, {_MEMBER[RESERVED]: wanted})
            self._allotments.apply(name)
        return Result(200, {_MEMBER[RESERVED]: wanted})

    async def get_function_concurrency(self, call: Call) -> Result:
        """GetFunctionConcurrency."""
        name = self._lookup.function(call.members, "GetFunctionConcurrency").name
        return Result(200, self._store.settings.get(RESERVED, name) or {})

    async def delete_function_concurrency(self, call: Call) -> Result:
        """DeleteFunctionConcurrency."""
        name = self._name(call.members, "DeleteFunctionConcurrency")
        if self._allotments.reserved(name) is not None:
            await self._store.settings.remove(RESERVED, name)
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


def _refused(text: str) -> ApiError:
    return ApiError("InvalidParameterValueException", text, fault=None)
