"""Resource-based policies of functions, versions and aliases.

Room: service. May: change the store. May not: decide what a policy permits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.changes import Changes
from sandboxd.api.configuration import new_revision
from sandboxd.api.errors import function_not_found, invalid_parameter, revision_differs
from sandboxd.api.names import Names
from sandboxd.api.revisions import KIND, Revisions, own_revision
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.function import Alias, FunctionVersion
from sandboxd.model.iam.policy import RESOURCE_LIMIT, MalformedPolicy, parse_resource
from sandboxd.store.store import Store

_ACCOUNT = re.compile(r"\d{12}")
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazon(?:aws)?\.com(?:\.cn)?")
_ARN = re.compile(
    r"arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)/[\w+=,.@/-]+)|sts::\d{12}:assumed-role/[\w+=,.@/-]+)"
)
_ALIAS = re.compile(r"(?!\d+$)[a-zA-Z0-9-_]+")
_NO_RESOURCE = "The resource you requested does not exist."


class PermissionsApi:
    """AddPermission, GetPolicy and RemovePermission."""

    def __init__(self, store: Store, names: Names, changes: Changes, revisions: Revisions) -> None:
        self._store, self._names, self._changes, self._revisions = store, names, changes, revisions

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "AddPermission": self.add_permission,
            "GetPolicy": self.get_policy,
            "RemovePermission": self.remove_permission,
        }

    async def add_permission(self, call: Call) -> Result:
        """AddPermission."""
        members = call.members
        name, qualifier = self._names.resolve(members["FunctionName"], members.get("Qualifier"), "AddPermission")
        if qualifier == LATEST:
            raise invalid_parameter("We currently do not support adding policies for $LATEST.")
        statement = _statement(members, self._names.arn(name, qualifier))
        await self._changes.wait(name)
        subject = self._subject(name, qualifier)
        self._check_revision(members, name, qualifier, subject)
        before = self._statements(name, qualifier)
        if any(row["Sid"] == statement["Sid"] for row in before):
            text = (
                f"The statement id ({statement['Sid']}) provided already exists. Please provide a new statement id, or "
                "remove the existing statement."
            )
            raise ApiError("ResourceConflictException", text, 409)
        statements = [*before, statement]
        _check(policy_text(statements))
        await self._put(name, qualifier, subject, statements)
        return Result(201, {"Statement": json.dumps(statement, separators=(",", ":"))})

    async def get_policy(self, call: Call) -> Result:
        """GetPolicy."""
        members = call.members
        name, qualifier = self._names.resolve(members["FunctionName"], members.get("Qualifier"), "GetPolicy")
        document = self._store.settings.get(KIND, name, _key(qualifier))
        if document is None or not document["Statement"]:
            raise ApiError("ResourceNotFoundException", _NO_RESOURCE, 404)
        return Result(200, {"Policy": policy_text(document["Statement"]), "RevisionId": document["RevisionId"]})

    async def remove_permission(self, call: Call) -> Result:
        """RemovePermission."""
        members = call.members
        name, qualifier = self._names.resolve(members["FunctionName"], members.get("Qualifier"), "RemovePermission")
        await self._changes.wait(name)
        if self._store.functions.described(name) is None:
            raise ApiError("ResourceNotFoundException", f"No policy found for: {self._names.arn(name)}", 404)
        subject = self._subject(name, qualifier)
        before = self._statements(name, qualifier)
        if not before:
            raise ApiError("ResourceNotFoundException", "No policy is associated with the given resource.", 404)
        rest = [row for row in before if row["Sid"] != members["StatementId"]]
        if len(rest) == len(before):
            text = f"Statement {members['StatementId']} is not found in resource policy."
            raise ApiError("ResourceNotFoundException", text, 404)
        self._check_revision(members, name, qualifier, subject)
        await self._put(name, qualifier, subject, rest)
        return Result(204)

    def _subject(self, name: str, qualifier: str | None) -> FunctionVersion | Alias:
        """What a policy belongs to. Raises ApiError where it is not there."""
        latest = self._store.functions.described(name)
        if latest is None:
            raise function_not_found(self._names.arn(name))
        if qualifier in (None, LATEST):
            return latest
        subject = self._store.aliases.get(name, qualifier) or self._store.functions.described(name, qualifier)
        if subject is not None:
            return subject
        if _ALIAS.fullmatch(qualifier):
            text = f"Cannot find alias arn: {self._names.arn(name, qualifier)}"
            raise ApiError("ResourceNotFoundException", text, 404)
        raise function_not_found(self._names.arn(name, qualifier))

    def _statements(self, name: str, qualifier: str | None) -> list[dict[str, Any]]:
        document = self._store.settings.get(KIND, name, _key(qualifier))
        return [] if document is None else list(document["Statement"])

    def _check_revision(
        self, members: Mapping[str, Any], name: str, qualifier: str | None, subject: FunctionVersion | Alias
    ) -> None:
        """Of a policy the RevisionId is its own, until there is one that of whose it will be."""
        document = self._store.settings.get(KIND, name, _key(qualifier))
        present = document["RevisionId"] if document and document["Statement"] else self._revisions.of(subject)
        if members.get("RevisionId", present) != present:
            raise revision_differs("GetPolicy" if isinstance(subject, Alias) else "GetFunction/GetAlias")

    async def _put(
        self, name: str, qualifier: str | None, subject: FunctionVersion | Alias, statements: list[dict[str, Any]]
    ) -> None:
        # A policy without a statement stays: a RevisionId does not come back.
        with self._changes.one(name):
            document = {"Statement": statements, "RevisionOf": own_revision(subject), "RevisionId": new_revision()}
            await self._store.settings.put(KIND, name, document, _key(qualifier))


def policy_text(statements: list[dict[str, Any]]) -> str:
    """A policy as GetPolicy gives it."""
    document = {"Version": "2012-10-17", "Id": "default", "Statement": statements}
    return json.dumps(document, separators=(",", ":"))


def _key(qualifier: str | None) -> str:
    return "" if qualifier in (None, LATEST) else str(qualifier)


def _check(text: str) -> None:
    size = len(text.encode())
    if size > RESOURCE_LIMIT:
        words = f"The final policy size ({size}) is bigger than the limit ({RESOURCE_LIMIT})."
        raise ApiError("PolicyLengthExceededException", words)
    try:
        parse_resource(text)
    except MalformedPolicy as error:
        raise invalid_parameter(str(error)) from None


def _statement(members: Mapping[str, Any], arn: str) -> dict[str, Any]:
    """The statement that AddPermission makes of its members."""
    action = members["Action"]
    for member, of in (("FunctionUrlAuthType", "InvokeFunctionUrl"), ("InvokedViaFunctionUrl", "InvokeFunction")):
        if member in members and action != f"lambda:{of}":
            raise invalid_parameter(f"{member} is only supported for lambda:{of} action")
    statement = {
        "Sid": members["StatementId"],
        "Effect": "Allow",
        "Principal": _principal(members["Principal"]),
        "Action": action,
        "Resource": arn,
    }
    equals = {
        "lambda:FunctionUrlAuthType": members.get("FunctionUrlAuthType"),
        "lambda:EventSourceToken": members.get("EventSourceToken"),
        "aws:PrincipalOrgID": members.get("PrincipalOrgID"),
        "AWS:SourceAccount": members.get("SourceAccount"),
    }
    condition: dict[str, dict[str, str]] = {
        "StringEquals": {key: value for key, value in equals.items() if value is not None},
        "ArnLike": {"AWS:SourceArn": members["SourceArn"]} if "SourceArn" in members else {},
    }
    if "InvokedViaFunctionUrl" in members:
        condition["Bool"] = {"lambda:InvokedViaFunctionUrl": str(members["InvokedViaFunctionUrl"]).lower()}
    condition = {operator: keys for operator, keys in condition.items() if keys}
    return statement | ({"Condition": condition} if condition else {})


def _principal(text: str) -> str | dict[str, str]:
    if text == "*":
        return text
    if _ACCOUNT.fullmatch(text):
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    if _ARN.fullmatch(text):
        return {"AWS": text}
    raise invalid_parameter("The provided principal was invalid. Please check the principal and try again.")
