"""Provisioned concurrency: environments of a version or an alias that are initialised ahead of invocations.

Room: service. May: change the store, tell the scheduler.

Source: https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.concurrency import PROVISIONED, Allotments
from sandboxd.api.configuration import now_text
from sandboxd.api.errors import function_not_found, in_state, invalid_parameter
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.pages import page, read_marker
from sandboxd.api.protocols import Scheduler
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion
from sandboxd.model.limits import Limits
from sandboxd.store.store import Store

_COUNT = "ProvisionedConcurrentExecutions"
_ONLY_PUBLISHED = "The function resource provided must be an alias or a published version."
_UNPUBLISHED = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."


class ProvisionedApi:
    """The operations on provisioned concurrency."""

    def __init__(
        self, store: Store, names: Names, lookup: Lookup, allotments: Allotments, scheduler: Scheduler, limits: Limits
    ) -> None:
        self._store, self._names, self._lookup = store, names, lookup
        self._allotments, self._scheduler, self._limits = allotments, scheduler, limits

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "DeleteProvisionedConcurrencyConfig": self.delete_provisioned_concurrency_config,
            "GetProvisionedConcurrencyConfig": self.get_provisioned_concurrency_config,
            "ListProvisionedConcurrencyConfigs": self.list_provisioned_concurrency_configs,
            "PutProvisionedConcurrencyConfig": self.put_provisioned_concurrency_config,
        }

    async def put_provisioned_concurrency_config(self, call: Call) -> Result:
        """PutProvisionedConcurrencyConfig."""
        members, count = call.members, call.members[_COUNT]
        name, _ = self._target(members, "PutProvisionedConcurrencyConfig", _UNPUBLISHED)
        async with self._allotments.change(name):
            name, qualifier = self._target(members, "PutProvisionedConcurrencyConfig", _UNPUBLISHED)
            self._check_number(name, qualifier, count)
            self._check_place(name, qualifier)
            document = {_COUNT: count, "LastModified": now_text()}
            await self._store.settings.put(PROVISIONED, name, document, qualifier)
            self._allotments.apply(name)
        return Result(202, self._describe(name, qualifier) | {"Status": "IN_PROGRESS"})

    async def get_provisioned_concurrency_config(self, call: Call) -> Result:
        """GetProvisionedConcurrencyConfig."""
        name, qualifier = self._target(call.members, "GetProvisionedConcurrencyConfig", _ONLY_PUBLISHED)
        if self._store.settings.get(PROVISIONED, name, qualifier) is None:
            text = "No Provisioned Concurrency Config found for this function"
            raise ApiError("ProvisionedConcurrencyConfigNotFoundException", text, 404)
        return Result(200, self._describe(name, qualifier))

    async def list_provisioned_concurrency_configs(self, call: Call) -> Result:
        """ListProvisionedConcurrencyConfigs."""
        name = self._lookup.function(call.members, "ListProvisionedConcurrencyConfigs").name
        after = read_marker(call.members)
        rest = (qualifier for qualifier in self._allotments.provisioned(name) if qualifier > after)
        found, more = page(rest, call.members, str)
        rows = [{"FunctionArn": self._names.arn(name, one)} | self._describe(name, one) for one in found]
        return Result(200, {"ProvisionedConcurrencyConfigs": rows} | more)

    async def delete_provisioned_concurrency_config(self, call: Call) -> Result:
        """DeleteProvisionedConcurrencyConfig. AWS says of none that it is not there."""
        name, qualifier = self._target(call.members, "DeleteProvisionedConcurrencyConfig", _ONLY_PUBLISHED)
        if self._store.settings.get(PROVISIONED, name, qualifier) is not None:
            await self._store.settings.remove(PROVISIONED, name, qualifier)
            self._allotments.apply(name)
        return Result(204)

    def _target(self, members: Mapping[str, Any], action: str, not_latest: str) -> tuple[str, str]:
        """Function and qualifier of a request. Raises ApiError where it names no published version and no alias."""
        name, qualifier = self._names.resolve(members["FunctionName"], members["Qualifier"], action)
        if qualifier == LATEST:
            raise invalid_parameter(not_latest)
        arn = self._names.arn(name, qualifier)
        if qualifier and qualifier.isdigit():
            if self._store.functions.described(name, qualifier) is None:
                raise function_not_found(arn)
        elif not qualifier or self._store.aliases.get(name, qualifier) is None:
            raise ApiError("ResourceNotFoundException", f"Cannot find alias arn: {arn}", 404)
        return name, qualifier

    def _check_number(self, name: str, qualifier: str, count: int) -> None:
        """Raise InvalidParameterValueException where there is not so much."""
        present = self._allotments.provisioned(name)
        total = sum(present.values()) - present.get(qualifier, 0) + count
        reserved = self._allotments.reserved(name)
        limit, least = self._limits.concurrency, self._limits.unreserved_concurrency
        if reserved is not None and total > reserved:
            raise invalid_parameter(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                "function"
            )
        text = ""
        if count > limit:
            text = f"is greater than account's unreserved concurrency [{limit}]."
        elif reserved is None and self._allotments.unreserved() + sum(present.values()) - total < least:
            text = f"decreases account's UnreservedConcurrentExecution below its minimum value of [{least}]."
        if text:
            text = f"Specified ConcurrentExecutions for function {text}"
            raise ApiError("InvalidParameterValueException", text, fault=None)

    def _check_place(self, name: str, qualifier: str) -> None:
        """Raise ApiError where this version or alias cannot have any, because of others or of its own state."""
        present, alias = self._allotments.provisioned(name), self._store.aliases.get(name, qualifier)
        number = qualifier if alias is None else alias.version
        if alias is None:
            pointing = [
                one.name for one in self._store.aliases.of(name) if qualifier in (one.version, one.second_version)
            ]
            if any(one in present for one in pointing):
                raise ApiError(
                    "ResourceConflictException", "Version is pointed by a Provisioned Concurrency alias", 409
                )
        elif alias.version == LATEST:
            raise invalid_parameter(_UNPUBLISHED)
        elif alias.second_version:
            raise invalid_parameter("Alias with weights can not be used with Provisioned Concurrency")
        elif alias.version in present:
            text = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
            raise ApiError("ResourceConflictException", text, 409)
        version = self._store.functions.described(name, number)
        if version is not None and version.state != "Active":
            raise in_state(version.state)

    def _describe(self, name: str, qualifier: str) -> dict[str, Any]:
        """What was asked for and how far it is. Of two aliases of one version the first has what there is."""
        document = self._store.settings.get(PROVISIONED, name, qualifier)
        assert document is not None
        before: Counter[FunctionVersion] = Counter()
        for other, count in self._allotments.provisioned(name).items():
            if other < qualifier:
                before.update(self._allotments.parts(name, other, count))
        allocated = available = 0
        failing = False
        parts = self._allotments.parts(name, qualifier, document[_COUNT])
        for version, part in parts.items():
            standing = self._scheduler.standing(version.key)
            allocated += min(max(standing.allocated - before[version], 0), part)
            available += min(max(standing.available - before[version], 0), part)
            failing = failing or standing.failing
        answer = {
            "RequestedProvisionedConcurrentExecutions": document[_COUNT],
            "AvailableProvisionedConcurrentExecutions": available,
            "AllocatedProvisionedConcurrentExecutions": allocated,
            "Status": "READY" if allocated == document[_COUNT] else "IN_PROGRESS",
            "LastModified": document["LastModified"],
        }
        if allocated < document[_COUNT] and (failing or sum(parts.values()) < document[_COUNT]):
            reason = (
                "FUNCTION_ERROR_INIT_FAILURE" if failing else "The alias is of no published version that is Active."
            )
            answer |= {"Status": "FAILED", "StatusReason": reason}
        return answer
