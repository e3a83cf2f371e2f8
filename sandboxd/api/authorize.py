"""Who may call what: a request's action and resource, and the decision of the caller's and the function's policies.

The caller is a user, known by the key that signed, or a function whose role is kept here, known by its door.

Room: service. May: read the store's maps. May not: say whether what is asked for is there.
Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awslambda.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from sandboxd.api.errors import access_denied, function_not_found, not_offered, s3_denied
from sandboxd.api.names import Names
from sandboxd.api.permissions import policy_text
from sandboxd.api.revisions import KIND
from sandboxd.api.routes import read_query
from sandboxd.api.sessions import Session
from sandboxd.api.trust import lets_lambda_assume
from sandboxd.errors import ApiError
from sandboxd.http import Request as HttpRequest
from sandboxd.model.arn import LATEST, function_arn, parse_function_reference
from sandboxd.model.function import FunctionVersion
from sandboxd.model.iam.decision import ANYBODY, Decision, Principal, Request, decide
from sandboxd.model.iam.policy import Policy, parse_resource
from sandboxd.store.principals import Identity
from sandboxd.store.store import Store
from sandboxd.store.urls import FunctionUrl

_REMEMBERED = 10_000  # invocations that were allowed

_ACTIONS = {
    "Invoke": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
    "GetLayerVersionByArn": "GetLayerVersion",
}
_BY_URL = "InvokeFunctionUrl"  # no operation: a request to a function's URL
# Operations that concern no resource that a policy can name.
ANY_RESOURCE = frozenset(
    (
        "CreateCodeSigningConfig",
        "CreateEventSourceMapping",
        "GetAccountSettings",
        "ListCodeSigningConfigs",
        "ListEventSourceMappings",
        "ListFunctions",
        "ListLayerVersions",
        "ListLayers",
    )
)
# Operations that take a package, and the member that says which; none: their own do.
_SOURCES = {"CreateFunction": "Code", "UpdateFunctionCode": "", "PublishLayerVersion": "Content"}
# What a function's role needs to tell a destination of an event, by the destination's service.
SENDING = {
    "lambda": "lambda:InvokeFunction",
    "sqs": "sqs:SendMessage",
    "sns": "sns:Publish",
    "s3": "s3:PutObject",
    "events": "events:PutEvents",
}
# What a decision may depend on and may be another with the next request for the same.
_FLEETING = frozenset(("aws:currenttime", "aws:epochtime", "aws:sourceip", "aws:useragent"))


@dataclass(frozen=True, slots=True)
class _Caller:
    principal: Principal
    policies: list[Policy]
    context: dict[str, str]
    boundary: Policy | None = None


Who = str | FunctionVersion | Session


class Authorizer:
    """Decides on requests; keeps in mind which invocations it allowed.

    Who asks is the id of a user's access key, a function at its door, or a session: a function by its credentials.
    """

    def __init__(self, store: Store, names: Names) -> None:
        self._store, self._names = store, names
        self._allowed: set[tuple[str, tuple[str, str]]] = set()
        self._generation = -1

    def check_invoke(self, who: Who, target: tuple[str, str], request: HttpRequest) -> None:
        """Raise AccessDeniedException unless who asks may invoke a function (its name and the query as sent)."""
        name = who if isinstance(who, str) else f"{type(who).__name__} {who.role} {who.name}"
        if self._is_allowed(name, target):
            return
        # Of the query nothing else counts: it must not name another function than the path.
        members = {"FunctionName": unquote(target[0]), "Qualifier": read_query(target[1]).get("Qualifier")}
        if self.check(who, "Invoke", members, request):
            self._allowed.add((name, target))

    def check_url(self, who: Who | None, url: FunctionUrl, request: HttpRequest) -> None:
        """Raise AccessDeniedException unless who asks, or else anybody, may invoke by a URL: that takes two actions.

        Source: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
        """
        name = f"url {who}"  # no key's id, nor any other name, begins with this
        if self._is_allowed(name, (url.id, url.auth_type)):
            return
        arn, caller = self._names.arn(url.function), self._caller(who)
        members = {"FunctionName": arn, "Qualifier": url.qualifier or None, "AuthType": url.auth_type}
        caller = replace(caller, context=caller.context | {"lambda:invokedviafunctionurl": "true"})
        if self._check(caller, _BY_URL, members, request):
            self._allowed.add((name, (url.id, url.auth_type)))

    def caller(self, who: Who) -> tuple[str, str]:
        """The ARN and the account of who asks."""
        principal = self._caller(who).principal
        return principal.arn, principal.account

    def check(self, who: Who, operation: str, members: Mapping[str, Any], request: HttpRequest) -> bool:
        """Raise AccessDeniedException unless who asks may do an operation.

        Returns whether that is so until a policy changes.
        """
        if isinstance(who, FunctionVersion) and self._session(who) is None:
            return True
        return self._check(self._caller(who), operation, members, request)

    def _caller(self, who: Who | None) -> _Caller:
        if who is None:
            return _Caller(ANYBODY, [], {"aws:principaltype": "Anonymous"})
        caller = self._user(who) if isinstance(who, str) else self._session(who)
        if caller is None:  # the role was deleted
            raise _unrecognized()
        return caller

    def _is_allowed(self, name: str, target: tuple[str, str]) -> bool:
        """Whether it was allowed before, and no policy is another since."""
        store = self._store
        generation = store.settings.generation + store.users.generation + store.roles.generation
        if generation != self._generation or len(self._allowed) > _REMEMBERED:
            self._allowed.clear()
            self._generation = generation
        return (name, target) in self._allowed

    def _check(self, caller: _Caller, operation: str, members: Mapping[str, Any], request: HttpRequest) -> bool:
        principal, policies, account = caller.principal, caller.policies, caller.principal.account
        lasts = True
        for action, resource in self._needs(operation, members, account):
            policy = self._policy(resource)
            context = self._context(members, resource, account, request) | caller.context
            # Of roles it is asked who may pass them, not whose they are: none is kept here.
            owner = account if action == "iam:PassRole" else _account(resource, account)
            question = Request(principal, action, resource, owner, context)
            decision = decide(question, policies, policy, caller.boundary)
            if decision is not Decision.ALLOWED:
                raise _denied(principal, action, resource, decision)
            self._check_reachable(operation, resource, owner, account)
            every = (*policies, policy, caller.boundary or ())
            keys = (statement.keys() for part in every for statement in part)
            lasts = lasts and all(map(_FLEETING.isdisjoint, keys))
        return lasts

    def keeps_role(self, function: FunctionVersion) -> bool:
        """Whether a function's role is kept here."""
        return self.role(function) is not None

    def role(self, function: FunctionVersion | Session) -> Identity | None:
        """The role of a function, None where it is not kept here."""
        if _account(function.role, "") != self._names.account:
            return None
        return self._store.roles.get(function.role.rpartition("/")[2])

    def context(self, function: FunctionVersion | Session) -> dict[str, str]:
        """The condition keys of a function with its role."""
        return {
            "aws:principalarn": function.role,
            "aws:principaltype": "AssumedRole",
            "lambda:sourcefunctionarn": function.arn,
        }

    def may_send(self, function: FunctionVersion, arn: str) -> bool:
        """Whether a function's role, where it is kept here, may hand records of events to a destination."""
        return self.may(function, SENDING[arn.split(":")[2]], arn)

    def may(self, function: FunctionVersion, action: str, arn: str) -> bool:
        """Whether a function's role, where it is kept here, allows an action that is done for the function."""
        caller = self._session(function)
        if caller is None:
            return True
        context = self._context({}, arn, self._names.account, HttpRequest("POST", "", {})) | caller.context
        question = Request(caller.principal, action, arn, _account(arn, self._names.account), context)
        return decide(question, caller.policies, self._policy(arn), caller.boundary) is Decision.ALLOWED

    def _user(self, key_id: str) -> _Caller:
        name = self._store.keys.user(key_id)
        user = self._store.users.get(name) if name is not None else None
        if user is None:  # deleted since the signature was checked
            raise _unrecognized()
        account = user.account or self._names.account
        arn = f"arn:aws:iam::{account}:user/{user.name}"
        context = {"aws:username": user.name, "aws:principalarn": arn, "aws:principaltype": "User"}
        return _Caller(Principal((arn,), account), user.policies(), context, user.bounds())

    def _session(self, function: FunctionVersion | Session) -> _Caller | None:
        """A function with its role; None where that is not kept here: the function's own permission is all there is."""
        role, account = self.role(function), self._names.account
        if role is None:
            return None
        session = f"arn:aws:sts::{account}:assumed-role/{role.name}/{function.name}"
        policies = role.policies() if lets_lambda_assume(role, function.role, function.arn, account) else []
        principal = Principal((session, function.role), account)
        return _Caller(principal, policies, self.context(function), role.bounds())

    def _needs(self, operation: str, members: Mapping[str, Any], account: str) -> Iterator[tuple[str, str]]:
        """The actions that an operation takes, each with the ARN of its resource, or `*`."""
        resource = self.resource(operation, members, account)
        yield f"lambda:{_ACTIONS.get(operation, operation)}", resource
        if operation == _BY_URL:
            yield "lambda:InvokeFunction", resource
        if operation in ("CreateFunction", "UpdateFunctionConfiguration"):
            if "Role" in members:
                yield "iam:PassRole", _standing(members["Role"])
            for layer in map(_standing, members.get("Layers", ())):
                if _account(layer, account) == account:
                    yield "lambda:GetLayerVersion", layer
        if operation == "CreateFunction" and members.get("Tags"):
            yield "lambda:TagResource", resource
        code = members.get(_SOURCES[operation], members) if operation in _SOURCES else {}
        if "S3Bucket" in code and "S3Key" in code:
            action = "s3:GetObjectVersion" if "S3ObjectVersion" in code else "s3:GetObject"
            yield action, f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}"

    def resource(self, operation: str, members: Mapping[str, Any], account: str) -> str:
        """The ARN of what an operation concerns, as a caller of an account names it."""
        start = f"arn:aws:lambda:{self._names.region}:{account}:"
        if operation in ANY_RESOURCE:
            return "*"
        if "UUID" in members:
            return f"{start}event-source-mapping:{members['UUID']}"
        if "FunctionName" in members:
            return self._function(members["FunctionName"], members.get("Qualifier"), account)
        if "LayerName" in members:
            name, version = members["LayerName"], members.get("VersionNumber")
            layer = _standing(name) if name.startswith("arn:") else f"{start}layer:{name}"
            return layer if version is None else f"{layer}:{version}"
        for member in ("Resource", "CodeSigningConfigArn", "Arn"):
            if member in members:
                return _standing(members[member])
        return "*"

    def _function(self, text: str, qualifier: str | None, account: str) -> str:
        reference = parse_function_reference(text)
        if reference is None:  # refused by what looks it up
            return function_arn(self._names.region, account, text, qualifier)
        return function_arn(
            reference.region or self._names.region,
            reference.account or account,
            reference.name,
            qualifier or reference.qualifier,
        )

    def _policy(self, resource: str) -> Policy:
        """The policy of a function, version or alias of this instance."""
        reference = self._own(resource)
        if reference is None:
            return ()
        name, qualifier = reference
        document = self._store.settings.get(KIND, name, "" if qualifier == LATEST else qualifier)
        if document is None or not document["Statement"]:
            return ()
        return parse_resource(policy_text(document["Statement"]))

    def _own(self, resource: str) -> tuple[str, str] | None:
        """Name and qualifier of a function of this instance, by its ARN."""
        reference = parse_function_reference(resource) if ":function:" in resource else None
        if reference is None or (reference.region, reference.account) != (self._names.region, self._names.account):
            return None
        return reference.name, reference.qualifier or ""

    def _check_reachable(self, operation: str, resource: str, owner: str, account: str) -> None:
        """A user of another account has nothing here but what its owner grants by name."""
        if self._names.account in (account, owner):
            return
        if ":function:" in resource:
            raise function_not_found(resource)
        raise not_offered(f"{operation} in the account {account}")

    def _context(
        self, members: Mapping[str, Any], resource: str, account: str, request: HttpRequest
    ) -> dict[str, str | tuple[str, ...]]:
        """The condition keys of a request, beside those of who makes it.

        Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        """
        now = time.time()
        peer = request.peer.get_extra_info("peername") if request.peer is not None else None
        context: dict[str, str | tuple[str, ...]] = {
            "aws:requestedregion": self._names.region,
            "aws:resourceaccount": _account(resource, account),
            "aws:securetransport": "false",
            "aws:viaawsservice": "false",
            "aws:currenttime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "aws:epochtime": str(int(now)),
            "aws:useragent": request.headers.get("user-agent", ""),
        }
        if peer:
            context["aws:sourceip"] = str(peer[0])
        if account:
            context["aws:principalaccount"] = account
        if "Principal" in members:
            context["lambda:principal"] = str(members["Principal"])
        if "FunctionUrlAuthType" in members or "AuthType" in members:
            context["lambda:functionurlauthtype"] = str(members.get("FunctionUrlAuthType", members.get("AuthType")))
        if members.get("Layers"):
            context["lambda:layer"] = tuple(members["Layers"])
        if "Role" in members:
            context["iam:passedtoservice"] = "lambda.amazonaws.com"
        if "FunctionName" in members:
            context["lambda:functionarn"] = self._function(members["FunctionName"], None, account)
        tags = members.get("Tags") or {}
        context |= {f"aws:requesttag/{key.lower()}": value for key, value in tags.items()}
        if tags or members.get("TagKeys"):
            context["aws:tagkeys"] = tuple(tags or members["TagKeys"])
        own = self._own(resource)
        kept = self._store.settings.get("Tags", own[0]) if own else None
        return context | {f"aws:resourcetag/{key.lower()}": str(value) for key, value in (kept or {}).items()}


def _standing(arn: str) -> str:
    """An ARN as policies name it, whatever partition a caller wrote: what is looked up by it does not heed that."""
    return f"arn:aws:{arn.split(':', 2)[2]}"


def _account(resource: str, otherwise: str) -> str:
    """Whose a resource is."""
    parts = resource.split(":", 5)
    return parts[4] if len(parts) == 6 and parts[4] else otherwise


def _unrecognized() -> ApiError:
    text = "The security token included in the request is invalid."
    return ApiError("UnrecognizedClientException", text, 403)


def _denied(principal: Principal, action: str, resource: str, decision: Decision) -> ApiError:
    if action.startswith("s3:"):
        bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
        return s3_denied(bucket, key, "S3 Error Code: AccessDenied. S3 Error Message: Access Denied")
    return access_denied(
        f"User: {principal.arn} is not authorized to perform: {action} on resource: {resource} "
        + decision.value.format(action)
    )
