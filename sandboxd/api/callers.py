"""Who asks: a user by an access key, a function with its role, or whoever may do everything in an account.

Room: service. May: read the stores' maps.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxd.api.sessions import Session
from sandboxd.api.trust import lets_lambda_assume
from sandboxd.errors import ApiError
from sandboxd.model.function import FunctionVersion
from sandboxd.model.iam.decision import ANYBODY, Principal
from sandboxd.model.iam.policy import Policy, parse_identity
from sandboxd.store.principals import Identity
from sandboxd.store.store import Stores

_EVERYTHING = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "%s"}}'


@dataclass(frozen=True, slots=True)
class Root:
    """One who may do everything in an account."""

    account: str


Who = str | FunctionVersion | Session | Root


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks as policies know it, with policies and condition keys of its own."""

    principal: Principal
    policies: list[Policy]
    context: dict[str, str]
    boundary: Policy | None = None


class Callers:
    """Finds who asks, in whatever account. Raises ApiError where there is no such one any more."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def account(self, who: Who) -> str:
        """Whose who asks is."""
        if not isinstance(who, str):
            return who.account
        key = self._stores.key(who)
        if key is None:  # deleted since the signature was checked
            raise _unrecognized()
        return key.account

    def caller(self, who: Who | None) -> Caller:
        """Who asks; None is anybody."""
        if who is None:
            return Caller(ANYBODY, [], {"aws:principaltype": "Anonymous"})
        if isinstance(who, str):
            return self._user(who)
        if self._stores.get(who.account) is None:  # deleted, while the last environment of its functions ends
            raise _unrecognized()
        if isinstance(who, Root):
            return _root(who.account)
        caller = self.session(who)
        if caller is not None:
            return caller
        if isinstance(who, Session):  # the role was deleted
            raise _unrecognized()
        return _of_no_role(who)

    def role(self, function: FunctionVersion | Session) -> Identity | None:
        """The role of a function, None where its account has none of that ARN."""
        store = self._stores.get(function.account)
        if store is None or account_of(function.role, "") != function.account:
            return None
        if isinstance(function, Session) and function.store != store.incarnation:
            return None
        return store.roles.get(function.role.rpartition("/")[2])

    def context(self, function: FunctionVersion | Session) -> dict[str, str]:
        """The condition keys of a function with its role."""
        return {
            "aws:principalarn": function.role,
            "aws:principaltype": "AssumedRole",
            "lambda:sourcefunctionarn": function.arn,
        }

    def session(self, function: FunctionVersion | Session) -> Caller | None:
        """A function with its role; None where its account has none: the function's own permission is all there is."""
        role, account = self.role(function), function.account
        if role is None:
            return None
        session = f"arn:aws:sts::{account}:assumed-role/{role.name}/{function.name}"
        policies = role.policies() if lets_lambda_assume(role, function.role, function.arn, account) else []
        principal = Principal((session, function.role), account)
        return Caller(principal, policies, self.context(function), role.bounds())

    def _user(self, key_id: str) -> Caller:
        key = self._stores.key(key_id)
        store = self._stores.get(key.account) if key is not None else None
        user = store.users.get(key.user) if store is not None and key is not None else None
        if key is None or store is None or user is None:  # deleted since the signature was checked
            raise _unrecognized()
        arn = f"arn:aws:iam::{key.account}:user/{user.name}"
        context = {"aws:username": user.name, "aws:principalarn": arn, "aws:principaltype": "User"}
        return Caller(Principal((arn,), key.account), store.policies_of(user), context, user.bounds())


def account_of(arn: str, otherwise: str) -> str:
    """The account in an ARN."""
    parts = arn.split(":", 5)
    return parts[4] if len(parts) == 6 and parts[4] else otherwise


def name_of(who: Who) -> str:
    """What invocations of who asks are remembered by."""
    match who:
        case str():
            return who
        case Root(account):
            return f"root {account}"
        case Session(role, _, arn, store):
            return f"session {store} {role} {arn}"
        case FunctionVersion():
            return f"function {who.role} {who.arn}"


def _root(account: str) -> Caller:
    arn = f"arn:aws:iam::{account}:root"
    context = {"aws:principalarn": arn, "aws:principaltype": "Account"}
    return Caller(Principal((arn,), account), [parse_identity(_EVERYTHING % "*")], context)


def _of_no_role(function: FunctionVersion) -> Caller:
    """A function whose role its account has not: it may invoke what is its account's."""
    account = function.account
    name = f"arn:aws:sts::{account}:assumed-role/{function.role.rpartition('/')[2]}/{function.name}"
    policy = parse_identity(_EVERYTHING % f"arn:aws:lambda:*:{account}:*")
    return Caller(Principal((name,), account), [policy], {"aws:principaltype": "AssumedRole"})


def _unrecognized() -> ApiError:
    text = "The security token included in the request is invalid."
    return ApiError("UnrecognizedClientException", text, 403)
