"""Aliases: names for versions, with a second version for a part of the invocations.

Room: service. May: change the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.concurrency import Allotments
from sandboxd.api.configuration import new_revision
from sandboxd.api.errors import function_not_found, invalid_parameter, revision_differs
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.pages import page, read_marker
from sandboxd.api.revisions import Revisions
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.function import Alias
from sandboxd.store.aliases import AliasExists
from sandboxd.store.store import Store


class AliasesApi:
    """The operations on aliases."""

    def __init__(
        self, store: Store, names: Names, lookup: Lookup, revisions: Revisions, allotments: Allotments
    ) -> None:
        self._store, self._names, self._lookup, self._revisions = store, names, lookup, revisions
        self._allotments = allotments

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "CreateAlias": self.create_alias,
            "DeleteAlias": self.delete_alias,
            "GetAlias": self.get_alias,
            "ListAliases": self.list_aliases,
            "UpdateAlias": self.update_alias,
        }

    async def create_alias(self, call: Call) -> Result:
        """CreateAlias."""
        members = call.members
        name, _ = self._names.resolve(members["FunctionName"], action="CreateAlias")
        alias = Alias(name, members["Name"], members["FunctionVersion"], members.get("Description", ""), new_revision())
        alias = self._routed(alias, members.get("RoutingConfig", {}))
        try:
            await self._store.aliases.create(alias)
        except AliasExists:
            text = f"Alias already exists: {self._names.arn(name, alias.name)}"
            raise ApiError("ResourceConflictException", text, 409) from None
        return Result(201, self._describe(alias))

    async def get_alias(self, call: Call) -> Result:
        """GetAlias."""
        function = self._lookup.function(call.members, "GetAlias")
        alias = self._store.aliases.get(function.name, call.members["Name"])
        if alias is None:
            raise self._not_found("Cannot find alias arn: ", function.name, call.members["Name"])
        return Result(200, self._describe(alias))

    async def list_aliases(self, call: Call) -> Result:
        """ListAliases."""
        function, after = self._lookup.function(call.members, "ListAliases"), read_marker(call.members)
        version = call.members.get("FunctionVersion")
        rest = (
            alias
            for alias in self._store.aliases.of(function.name)
            if alias.name > after and version in (None, alias.version, alias.second_version)
        )
        found, more = page(rest, call.members, lambda alias: alias.name)
        return Result(200, {"Aliases": [self._describe(alias) for alias in found]} | more)

    async def update_alias(self, call: Call) -> Result:
        """UpdateAlias."""
        members = call.members
        function = self._lookup.function(members, "UpdateAlias")
        alias = self._store.aliases.get(function.name, members["Name"])
        if alias is None:
            raise self._not_found("Alias not found: ", function.name, members["Name"])
        present = self._revisions.of(alias)
        if members.get("RevisionId", present) != present:
            raise revision_differs()
        alias = replace(
            alias,
            version=members.get("FunctionVersion", alias.version),
            description=members.get("Description", alias.description),
            revision_id=new_revision(),
        )
        weights = {alias.second_version: alias.weight} if alias.second_version else {}
        alias = self._routed(alias, members.get("RoutingConfig", {"AdditionalVersionWeights": weights}))
        await self._store.aliases.update(alias)
        self._allotments.apply(alias.function)
        return Result(200, self._describe(alias))

    async def delete_alias(self, call: Call) -> Result:
        """DeleteAlias. AWS says of no alias that it is not there."""
        function = self._lookup.function(call.members, "DeleteAlias")
        if self._store.aliases.get(function.name, call.members["Name"]) is not None:
            await self._store.delete_qualified(function.name, call.members["Name"])
            self._allotments.apply(function.name)
        return Result(204)

    def _routed(self, alias: Alias, routing: Mapping[str, Any]) -> Alias:
        """The alias with the second version of a RoutingConfig. Raises ApiError where it cannot be one."""
        weights = routing.get("AdditionalVersionWeights", {})
        if len(weights) > 1:
            raise invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
        second, weight = next(iter(weights.items()), ("", 0.0))
        if second == alias.version:
            raise invalid_parameter(
                f"Invalid function version {second}. Function version {second} is already included in routing "
                "configuration."
            )
        if second and alias.version == LATEST:
            text = "$LATEST is not supported for an alias pointing to more than 1 version"
            raise ApiError("InvalidParameterValueException", text, fault=None)
        for number in filter(None, (alias.version, second)):
            if self._store.functions.described(alias.function, number) is None:
                raise function_not_found(self._names.arn(alias.function, number))
        return replace(alias, second_version=second, weight=float(weight))

    def _not_found(self, words: str, function: str, name: str) -> ApiError:
        return ApiError("ResourceNotFoundException", words + self._names.arn(function, name), 404)

    def _describe(self, alias: Alias) -> dict[str, Any]:
        """AWS's AliasConfiguration."""
        answer: dict[str, Any] = {
            "AliasArn": self._names.arn(alias.function, alias.name),
            "Name": alias.name,
            "FunctionVersion": alias.version,
            "Description": alias.description,
            "RevisionId": self._revisions.of(alias),
        }
        if alias.second_version:
            answer["RoutingConfig"] = {"AdditionalVersionWeights": {alias.second_version: alias.weight}}
        return answer
