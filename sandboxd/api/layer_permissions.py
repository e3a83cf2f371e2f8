"""Permissions of layer versions: a policy document each, in the form of AWS's.

Room: service. May: change the store. May not: judge by a policy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.configuration import new_revision
from sandboxd.api.layers import LayersApi
from sandboxd.errors import ApiError
from sandboxd.model.layer import LayerVersion
from sandboxd.store.layers import Layers

_POLICY_BYTES = 20_480  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html


class LayerPermissionsApi:
    """The operations on the policies of layer versions. One at a time, since each makes a policy from the last."""

    def __init__(self, layers: LayersApi, store: Layers) -> None:
        self._layers, self._store = layers, store
        self._turn = asyncio.Lock()

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "AddLayerVersionPermission": self.add_layer_version_permission,
            "GetLayerVersionPolicy": self.get_layer_version_policy,
            "RemoveLayerVersionPermission": self.remove_layer_version_permission,
        }

    async def add_layer_version_permission(self, call: Call) -> Result:
        """AddLayerVersionPermission."""
        async with self._turn:
            version = self._version(call.members, "AddLayerVersionPermission")
            statements = _statements(version)
            sid = call.members["StatementId"]
            if any(statement["Sid"] == sid for statement in statements):
                text = (
                    f"The statement id ({sid}) provided already exists. "
                    "Please provide a new statement id, or remove the existing statement."
                )
                raise ApiError("ResourceConflictException", text, 409)
            _check_revision(version, call.members)
            statement = self._statement(version, call.members)
            version = await self._set(version, [*statements, statement])
        return Result(201, {"Statement": _compact(statement), "RevisionId": version.policy_revision})

    async def get_layer_version_policy(self, call: Call) -> Result:
        """GetLayerVersionPolicy."""
        version = self._version(call.members, "GetLayerVersionPolicy")
        _check_policy(version)
        return Result(200, {"Policy": version.policy, "RevisionId": version.policy_revision})

    async def remove_layer_version_permission(self, call: Call) -> Result:
        """RemoveLayerVersionPermission."""
        async with self._turn:
            version = self._version(call.members, "RemoveLayerVersionPermission")
            _check_policy(version)
            _check_revision(version, call.members)
            statements, sid = _statements(version), call.members["StatementId"]
            left = [statement for statement in statements if statement["Sid"] != sid]
            if len(left) == len(statements):
                raise _not_found(f"Statement {sid} is not found in resource policy.")
            await self._set(version, left)
        return Result(204)

    def _version(self, members: Mapping[str, Any], action: str) -> LayerVersion:
        version = self._layers.numbered(members, action)
        if version is None:
            arn = self._layers.arn(self._layers.named(members, action), members["VersionNumber"])
            raise _not_found(f"Layer version {arn} does not exist.")
        return version

    async def _set(self, version: LayerVersion, statements: list[dict[str, Any]]) -> LayerVersion:
        document = {"Version": "2012-10-17", "Id": "default", "Statement": statements}
        policy = _compact(document) if statements else ""
        if len(policy) > _POLICY_BYTES:
            text = f"The final policy size ({len(policy)}) is bigger than the limit ({_POLICY_BYTES})."
            raise ApiError("PolicyLengthExceededException", text)
        version = replace(version, policy=policy, policy_revision=new_revision())
        await self._store.update(version)
        return version

    def _statement(self, version: LayerVersion, members: Mapping[str, Any]) -> dict[str, Any]:
        principal: str = members["Principal"]
        if principal.isdigit():
            principal = f"arn:aws:iam::{principal}:root"
        statement = {
            "Sid": members["StatementId"],
            "Effect": "Allow",
            "Principal": principal if principal == "*" else {"AWS": principal},
            "Action": members["Action"],
            "Resource": self._layers.arn(version.layer, version.version),
        }
        if "OrganizationId" in members:
            statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": members["OrganizationId"]}}
        return statement


def _statements(version: LayerVersion) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads(version.policy)["Statement"] if version.policy else []
    return statements


def _check_policy(version: LayerVersion) -> None:
    if not version.policy:
        raise _not_found("No policy is associated with the given resource.")


def _check_revision(version: LayerVersion, members: Mapping[str, Any]) -> None:
    if members.get("RevisionId", version.policy_revision) != version.policy_revision:
        text = (
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetLayerPolicy API to retrieve the latest Revision Id"
        )
        raise ApiError("PreconditionFailedException", text, 412)


def _not_found(text: str) -> ApiError:
    return ApiError("ResourceNotFoundException", text, 404)


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
