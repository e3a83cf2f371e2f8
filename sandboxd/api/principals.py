"""The administration of users, groups, roles and their policies, a part of what is under /sandboxd/v1/.

Room: service. May: change users, groups and roles.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Set
from dataclasses import replace
from typing import Any, TypeVar

from sandboxd.api.calls import Result
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.roles import Roles
from sandboxd.api.trust import DEFAULT
from sandboxd.api.validation import read_json
from sandboxd.errors import ApiError
from sandboxd.http import Request
from sandboxd.model.iam.policy import MalformedPolicy, parse_identity, parse_trust
from sandboxd.store.principals import ADMIN, Identity, NameTaken, Principals
from sandboxd.store.store import Store

_NAME = re.compile(
    r"[\w+=,.@-]{1,64}", re.ASCII
)  # https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html
_POLICY_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
Handler = Callable[[Request, str, dict[str, str]], Coroutine[Any, Any, Result]]
_TRUST = "AssumeRolePolicyDocument"
T = TypeVar("T")
_GROUPS = 10  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: of one user
_POLICIES = 10  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: of one principal


class PrincipalsApi:
    """Users, roles or groups: principals with policies by name. `one` is for one change of any of them at a time."""

    noun = ""  # as in paths

    def __init__(self, store: Store, kept: Principals, roles: Roles, one: asyncio.Lock) -> None:
        self._store, self._kept, self._roles, self._one = store, kept, roles, one

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What the paths are answered by."""
        paths = f"{self.noun}s"
        return {
            ("GET", paths): self.list,
            ("POST", paths): self.create,
            ("GET", f"{paths}/*"): self.get,
            ("DELETE", f"{paths}/*"): self.delete,
            ("PUT", f"{paths}/*/policies"): self.put_policy,
            ("DELETE", f"{paths}/*/policies"): self.delete_policy,
            ("PUT", f"{paths}/*/boundary"): self.put_boundary,
            ("DELETE", f"{paths}/*/boundary"): self.delete_boundary,
        }

    async def list(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        """All, without the policies' documents."""
        return Result(200, {f"{self.noun.title()}s": [self._describe(one) for one in self._kept.all()]})

    async def create(self, request: Request, _: str, __: dict[str, str]) -> Result:
        """Add one: UserName, GroupName or RoleName."""
        member = f"{self.noun.title()}Name"
        body = _members(request, {member}, {_TRUST} if self.noun == "role" else set())
        name, trust = body[member], body.get(_TRUST, "")
        if not _NAME.fullmatch(name):
            raise invalid_parameter(f"{member} is up to 64 letters, digits and _+=,.@-")
        if trust:
            _checked(parse_trust, trust)
        try:
            made = await self._kept.create(name, trust)
        except NameTaken:
            text = f"{self.noun.title()} with name {name} already exists."
            raise ApiError("EntityAlreadyExistsException", text, 409) from None
        self._changed(None, made)
        return Result(201, self._describe(made))

    async def get(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """One with the policies."""
        identity = self._named(subject)
        documents = {name: json.loads(document) for name, document in identity.documents.items()}
        answer = self._describe(identity) | {"PolicyDocuments": documents}
        if identity.boundary:
            answer["PermissionsBoundary"] = json.loads(identity.boundary)
        return Result(200, answer)

    async def delete(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """Remove one with the policies."""
        identity = self._named(subject)
        await self._kept.delete(identity.name)
        self._changed(identity, None)
        return Result(204)

    async def put_policy(self, request: Request, subject: str, _: dict[str, str]) -> Result:
        """Give one a policy, or another document to a policy: PolicyName and PolicyDocument, which is a text."""
        body = _members(request, {"PolicyName", "PolicyDocument"})
        name, document = body["PolicyName"], body["PolicyDocument"]
        if not _POLICY_NAME.fullmatch(name):
            raise invalid_parameter("PolicyName is up to 128 letters, digits and _+=,.@-")
        _checked(parse_identity, document)
        async with self._one:
            identity = self._named(subject)
            documents = identity.documents | {name: document}
            if len(documents) > _POLICIES:
                quota = f"PoliciesPer{self.noun.title()}: {_POLICIES}"
                raise ApiError("LimitExceededException", f"Cannot exceed quota for {quota}", 409)
            await self._update(identity, replace(identity, documents=documents))
        return Result(204)

    async def delete_policy(self, _: Request, subject: str, query: dict[str, str]) -> Result:
        """Take the policy of the query's `name` away."""
        name = query.get("name", "")
        async with self._one:
            identity = self._named(subject)
            if name not in identity.documents:
                text = f"The {self.noun} policy with name {name[:128]} cannot be found."
                raise ApiError("ResourceNotFoundException", text, 404)
            documents = {key: document for key, document in identity.documents.items() if key != name}
            await self._update(identity, replace(identity, documents=documents))
        return Result(204)

    async def put_boundary(self, request: Request, subject: str, _: dict[str, str]) -> Result:
        """Let the policies of one allow nothing beyond another: PolicyDocument, which is a text."""
        document = _members(request, {"PolicyDocument"}, set())["PolicyDocument"]
        _checked(parse_identity, document)
        async with self._one:
            identity = self._named(subject)
            await self._update(identity, replace(identity, boundary=document))
        return Result(204)

    async def delete_boundary(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """Take the boundary away."""
        async with self._one:
            identity = self._named(subject)
            if not identity.boundary:
                text = f"The {self.noun} {identity.name} has no permissions boundary."
                raise ApiError("ResourceNotFoundException", text, 404)
            await self._update(identity, replace(identity, boundary=""))
        return Result(204)

    async def _update(self, before: Identity, after: Identity) -> None:
        await self._kept.update(after)
        self._changed(before, after)

    def _changed(self, before: Identity | None, after: Identity | None) -> None:
        """What follows when one was made, changed or deleted."""

    def _named(self, name: str) -> Identity:
        identity = self._kept.get(name)
        if identity is None:
            text = f"The {self.noun} with name {name[:64]} cannot be found."
            raise ApiError("ResourceNotFoundException", text, 404)
        return identity

    def _describe(self, identity: Identity) -> dict[str, Any]:
        return {
            f"{self.noun.title()}Name": identity.name,
            "Arn": f"arn:aws:iam::{self._store.account}:{self.noun}/{identity.name}",
            "CreateDate": identity.create_date,
            "Policies": sorted(identity.documents),
        }


class RolesApi(PrincipalsApi):
    """Roles, which functions have by name."""

    noun = "role"

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What the paths are answered by."""
        return super().routes() | {("PUT", "roles/*/trust"): self.put_trust}

    async def put_trust(self, request: Request, subject: str, _: dict[str, str]) -> Result:
        """Say who may assume a role: PolicyDocument, which is a text."""
        document = _members(request, {"PolicyDocument"}, set())["PolicyDocument"]
        _checked(parse_trust, document)
        async with self._one:
            identity = self._named(subject)
            await self._update(identity, replace(identity, trust=document))
        return Result(204)

    async def _update(self, before: Identity, after: Identity) -> None:
        _checked(self._roles.check_role, after)
        await super()._update(before, after)

    def _changed(self, before: Identity | None, after: Identity | None) -> None:
        found = after or before
        assert found is not None
        self._roles.changed(found.name, before, after)

    def _describe(self, identity: Identity) -> dict[str, Any]:
        return super()._describe(identity) | {_TRUST: json.loads(identity.trust or DEFAULT)}


class GroupsApi(PrincipalsApi):
    """Groups, whose policies are those of every user in them too."""

    noun = "group"

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What the paths are answered by; a group has no boundary."""
        return {key: handler for key, handler in super().routes().items() if not key[1].endswith("/boundary")}

    async def delete(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """Remove a group that nobody is in."""
        async with self._one:
            if self._users(self._named(subject)):
                text = "Cannot delete entity, must remove users from group first."
                raise ApiError("DeleteConflictException", text, 409)
            await self._kept.delete(subject)
        return Result(204)

    def _users(self, group: Identity) -> list[str]:
        return [user.name for user in self._store.users.all() if group.name in user.groups]

    def _describe(self, identity: Identity) -> dict[str, Any]:
        return super()._describe(identity) | {"Users": self._users(identity)}


class UsersApi(PrincipalsApi):
    """Users, who have keys."""

    noun = "user"

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What the paths are answered by."""
        more = {("PUT", "users/*/groups"): self.enter, ("DELETE", "users/*/groups"): self.leave}
        return super().routes() | more

    async def enter(self, request: Request, subject: str, _: dict[str, str]) -> Result:
        """Add a user to a group: GroupName."""
        group = only(request, "GroupName")
        async with self._one:
            user = self._named(subject)
            if self._store.groups.get(group) is None:
                raise _no_group(group)
            groups = tuple(sorted({*user.groups, group}))
            if len(groups) > _GROUPS:
                raise ApiError("LimitExceededException", f"Cannot exceed quota for GroupsPerUser: {_GROUPS}", 409)
            await self._update(user, replace(user, groups=groups))
        return Result(204)

    async def leave(self, _: Request, subject: str, query: dict[str, str]) -> Result:
        """Take a user out of the group of the query's `name`."""
        group = query.get("name", "")
        async with self._one:
            user = self._named(subject)
            if group not in user.groups:
                raise _no_group(group)
            await self._update(user, replace(user, groups=tuple(name for name in user.groups if name != group)))
        return Result(204)

    def _describe(self, identity: Identity) -> dict[str, Any]:
        return super()._describe(identity) | {"Groups": list(identity.groups)}

    async def delete(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """Remove a user with keys and policies."""
        if self._named(subject).name == ADMIN:
            raise invalid_parameter(f"{ADMIN} cannot be deleted: keys that name no user are that one's")
        await self._store.delete_user(subject)
        return Result(204)


def _no_group(name: str) -> ApiError:
    return ApiError("ResourceNotFoundException", f"The group with name {name[:128]} cannot be found.", 404)


def only(request: Request, member: str) -> str:
    """The text that a request consists of. Raises InvalidParameterValueException."""
    return _members(request, {member})[member]


def _checked(check: Callable[[T], object], document: T) -> None:
    try:
        check(document)
    except MalformedPolicy as error:
        raise ApiError("MalformedPolicyDocumentException", str(error)) from None


def _members(request: Request, required: set[str], optional: Set[str] = frozenset()) -> dict[str, str]:
    body = read_json(request.body)
    if not isinstance(body, dict) or not required <= body.keys() <= required | optional:
        raise invalid_parameter(f"The request has {', '.join(sorted(required | optional))}, and nothing else")
    if not all(isinstance(value, str) for value in body.values()):
        raise invalid_parameter("Every member is a text")
    return body
