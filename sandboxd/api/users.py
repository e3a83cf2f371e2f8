"""The administration of users and their policies, a part of what is under /sandboxd/v1/.

Room: service. May: change users.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

from sandboxd.api.calls import Result
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.validation import read_json
from sandboxd.errors import ApiError
from sandboxd.http import Request
from sandboxd.model.iam.policy import MalformedPolicy, parse_identity
from sandboxd.store.principals import ADMIN, User, UserExists
from sandboxd.store.store import Store

_NAME = re.compile(
    r"[\w+=,.@-]{1,64}", re.ASCII
)  # https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html
_POLICY_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_POLICIES = 10  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: of one user


class UsersApi:
    """Users, each with an account and policies by name."""

    def __init__(self, store: Store, account: str) -> None:
        self._store, self._account = store, account
        self._one = asyncio.Lock()  # a policy is put to those that the one before left

    async def list(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        """Every user, without the policies' documents."""
        return Result(200, {"Users": [self._describe(user) for user in self._store.principals.all()]})

    async def create(self, request: Request, _: str, __: dict[str, str]) -> Result:
        """Add a user: UserName and, where it is another, AccountId."""
        body = _members(request, {"UserName"}, {"AccountId"})
        name, account = body["UserName"], body.get("AccountId", "")
        if not _NAME.fullmatch(name):
            raise invalid_parameter("UserName is up to 64 letters, digits and _+=,.@-")
        if account and not _ACCOUNT.fullmatch(account):
            raise invalid_parameter("AccountId is 12 digits")
        try:
            user = await self._store.principals.create(name, account)
        except UserExists:
            text = f"User with name {name} already exists."
            raise ApiError("EntityAlreadyExistsException", text, 409) from None
        return Result(201, self._describe(user))

    async def get(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """A user with the policies."""
        user = self.named(subject)
        documents = {name: json.loads(document) for name, document in user.documents.items()}
        return Result(200, self._describe(user) | {"PolicyDocuments": documents})

    async def delete(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """Remove a user with keys and policies."""
        if self.named(subject).name == ADMIN:
            raise invalid_parameter(f"{ADMIN} cannot be deleted: keys that name no user are that one's")
        await self._store.delete_user(subject)
        return Result(204)

    async def put_policy(self, request: Request, subject: str, _: dict[str, str]) -> Result:
        """Give a user a policy, or another document to one: PolicyName and PolicyDocument, which is a text."""
        body = _members(request, {"PolicyName", "PolicyDocument"}, set())
        name, document = body["PolicyName"], body["PolicyDocument"]
        if not _POLICY_NAME.fullmatch(name):
            raise invalid_parameter("PolicyName is up to 128 letters, digits and _+=,.@-")
        try:
            parse_identity(document)
        except MalformedPolicy as error:
            raise ApiError("MalformedPolicyDocumentException", str(error)) from None
        async with self._one:
            user = self.named(subject)
            documents = user.documents | {name: document}
            if len(documents) > _POLICIES:
                raise ApiError("LimitExceededException", f"Cannot exceed quota for PoliciesPerUser: {_POLICIES}", 409)
            await self._store.principals.update(replace(user, documents=documents))
        return Result(204)

    async def delete_policy(self, _: Request, subject: str, query: dict[str, str]) -> Result:
        """Take the policy of the query's `name` from a user."""
        name = query.get("name", "")
        async with self._one:
            user = self.named(subject)
            if name not in user.documents:
                text = f"The user policy with name {name[:128]} cannot be found."
                raise ApiError("ResourceNotFoundException", text, 404)
            documents = {key: document for key, document in user.documents.items() if key != name}
            await self._store.principals.update(replace(user, documents=documents))
        return Result(204)

    def named(self, name: str) -> User:
        """A user. Raises ApiError where there is none."""
        user = self._store.principals.get(name)
        if user is None:
            raise ApiError("ResourceNotFoundException", f"The user with name {name[:64]} cannot be found.", 404)
        return user

    def _describe(self, user: User) -> dict[str, Any]:
        account = user.account or self._account
        return {
            "UserName": user.name,
            "Arn": f"arn:aws:iam::{account}:user/{user.name}",
            "CreateDate": user.create_date,
            "Policies": sorted(user.documents),
        }


def _members(request: Request, required: set[str], optional: set[str]) -> dict[str, str]:
    body = read_json(request.body)
    if not isinstance(body, dict) or not required <= body.keys() <= required | optional:
        raise invalid_parameter(f"The request has {', '.join(sorted(required | optional))}, and nothing else")
    if not all(isinstance(value, str) for value in body.values()):
        raise invalid_parameter("Every member is a text")
    return body
