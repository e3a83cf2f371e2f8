"""How a function's asynchronous events are tried, and who is told how they ended: by version, alias or $LATEST.

Room: service. May: change the store.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sandboxd.api.authorize import SENDING, Authorizer
from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.destinations import Destinations
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.names import Names
from sandboxd.api.pages import page, read_marker
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST, parse_function_reference
from sandboxd.model.function import FunctionVersion
from sandboxd.store.store import Store

_KIND = "EventInvokeConfig"
_MEMBERS = ("DestinationConfig", "MaximumEventAgeInSeconds", "MaximumRetryAttempts")


class EventInvokeApi:
    """The operations on the settings of asynchronous invocations."""

    def __init__(self, store: Store, names: Names, authorizer: Authorizer, destinations: Destinations) -> None:
        self._store, self._names, self._authorizer, self._destinations = store, names, authorizer, destinations

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "DeleteFunctionEventInvokeConfig": self.delete_config,
            "GetFunctionEventInvokeConfig": self.get_config,
            "ListFunctionEventInvokeConfigs": self.list_configs,
            "PutFunctionEventInvokeConfig": self.put_config,
            "UpdateFunctionEventInvokeConfig": self.update_config,
        }

    async def put_config(self, call: Call) -> Result:
        """PutFunctionEventInvokeConfig: what the request leaves out is the default again."""
        name, qualifier = self._to_change(call.members, "PutFunctionEventInvokeConfig")
        self._check_destinations(name, qualifier, call.members)
        return await self._put(name, qualifier, {}, call.members)

    async def update_config(self, call: Call) -> Result:
        """UpdateFunctionEventInvokeConfig: what the request leaves out stays."""
        name, qualifier = self._to_change(call.members, "UpdateFunctionEventInvokeConfig")
        current = self._found(name, qualifier)
        self._check_destinations(name, qualifier, call.members)
        return await self._put(name, qualifier, current, call.members)

    async def get_config(self, call: Call) -> Result:
        """GetFunctionEventInvokeConfig."""
        name, qualifier = self._named(call.members, "GetFunctionEventInvokeConfig")
        return Result(200, self._describe(name, qualifier, self._found(name, qualifier)))

    async def delete_config(self, call: Call) -> Result:
        """DeleteFunctionEventInvokeConfig."""
        name, qualifier = self._named(call.members, "DeleteFunctionEventInvokeConfig")
        self._found(name, qualifier)
        await self._store.settings.remove(_KIND, name, qualifier)
        return Result(204)

    async def list_configs(self, call: Call) -> Result:
        """ListFunctionEventInvokeConfigs."""
        name, _ = self._names.resolve(call.members["FunctionName"], action="ListFunctionEventInvokeConfigs")
        if self._store.functions.described(name) is None:
            raise _no_function()
        after = read_marker(call.members)
        rest = (row for row in self._store.settings.of(_KIND, name) if row[0] > after)
        found, more = page(rest, call.members, lambda row: row[0])
        rows = [self._describe(name, qualifier, document) for qualifier, document in found]
        return Result(200, {"FunctionEventInvokeConfigs": rows} | more)

    def _named(self, members: Mapping[str, Any], action: str) -> tuple[str, str]:
        name, qualifier = self._names.resolve(members["FunctionName"], members.get("Qualifier"), action)
        return name, qualifier or LATEST

    def _to_change(self, members: Mapping[str, Any], action: str) -> tuple[str, str]:
        name, qualifier = self._named(members, action)
        if not any(member in members for member in _MEMBERS):
            raise invalid_parameter("You must specify at least one of error handling or destination setting.")
        if self._version(name, qualifier) is None:
            raise _no_function()
        return name, qualifier

    def _version(self, name: str, qualifier: str | None) -> FunctionVersion | None:
        number = self._store.aliases.version(name, qualifier) if qualifier else None
        return self._store.functions.described(name, number or qualifier)

    def _found(self, name: str, qualifier: str) -> dict[str, Any]:
        document = self._store.settings.get(_KIND, name, qualifier)
        if document is None:
            text = f"The function {self._names.arn(name, qualifier)} doesn't have an EventInvokeConfig"
            raise ApiError("ResourceNotFoundException", text, 404)
        return document

    async def _put(self, name: str, qualifier: str, current: dict[str, Any], members: Mapping[str, Any]) -> Result:
        document = current | {member: members[member] for member in _MEMBERS if member in members}
        document["LastModified"] = time.time()
        await self._store.settings.put(_KIND, name, document, qualifier)
        return Result(200, self._describe(name, qualifier, document))

    def _check_destinations(self, name: str, qualifier: str, members: Mapping[str, Any]) -> None:
        config, version = members.get("DestinationConfig", {}), self._version(name, qualifier)
        assert version is not None
        for side in ("OnSuccess", "OnFailure"):
            arn = config.get(side, {}).get("Destination")
            if arn:
                self._check_destination(name, arn, config)
                if not self._authorizer.may_send(version, arn):
                    action = SENDING[arn.split(":")[2]].partition(":")[2]
                    raise invalid_parameter(
                        f"The function's execution role does not have permissions to call {action} on {arn}"
                    )

    def _check_destination(self, name: str, arn: str, config: Mapping[str, Any]) -> None:
        service = arn.split(":")[2] if arn.startswith("arn:") else ""
        if service not in SENDING:
            raise invalid_parameter(f"The provided destination config {_java_text(config)} is invalid.")
        if service != "lambda":
            self._destinations.check(arn)
            return
        reference = parse_function_reference(arn)
        here = (self._names.region, self._names.account)
        if reference is None or (reference.region, reference.account) != here:
            raise invalid_parameter(f"The destination ARN {arn} is invalid.")
        if reference.name == name:
            raise invalid_parameter("You can't specify the function as a destination for itself.")
        if self._version(reference.name, reference.qualifier) is None:
            raise invalid_parameter(f"The destination ARN {arn} is invalid.")

    def _describe(self, name: str, qualifier: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """AWS's FunctionEventInvokeConfig."""
        config = document.get("DestinationConfig", {})
        sides = {side: config.get(side) or {} for side in ("OnSuccess", "OnFailure")}
        return {**document, "FunctionArn": self._names.arn(name, qualifier), "DestinationConfig": sides}


def _no_function() -> ApiError:
    return ApiError("ResourceNotFoundException", "The function doesn't exist.", 404)


def _java_text(config: Mapping[str, Any]) -> str:
    sides = []
    for side in ("OnSuccess", "OnFailure"):
        value = config.get(side)
        shown = "null" if value is None else f"{side}(destination={value.get('Destination', 'null')})"
        sides.append(f"{side[0].lower()}{side[1:]}={shown}")
    return f"DestinationConfig({', '.join(sides)})"
