"""Who may call what: a request's action and resource, and the decision of the caller's and the resource's policies.

The caller is a user, known by the key that signed, a function whose role is kept here, known by its door or by its
credentials, or whoever may do everything in an account. Within that account either policy is enough; what is another
account's takes both, and an answer does not tell whether it is there.

Room: service. May: read the store's maps. May not: say whether what is asked for is there.
Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awslambda.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote

from sandboxd.api.callers import Caller, Callers, Who, account_of, name_of
from sandboxd.api.errors import access_denied, s3_denied
from sandboxd.api.event_source_kinds import KIND as MAPPING
from sandboxd.api.event_source_kinds import PREFIX
from sandboxd.api.permissions import policy_text
from sandboxd.api.revisions import KIND
from sandboxd.api.routes import read_query
from sandboxd.api.sessions import Session
from sandboxd.api.tags import CODE_SIGNING_PREFIX
from sandboxd.errors import ApiError
from sandboxd.http import Request as HttpRequest
from sandboxd.model.arn import LATEST, function_arn, layer_arn, parse_function_reference, parse_layer_reference
from sandboxd.model.function import FunctionVersion
from sandboxd.model.iam.decision import Decision, Principal, Request, decide
from sandboxd.model.iam.policy import Policy, parse_resource
from sandboxd.store.generation import Generation
from sandboxd.store.principals import Identity
from sandboxd.store.store import Store, Stores
from sandboxd.store.urls import FunctionUrl

_REMEMBERED = 10_000  # invocations that were allowed

_ACTIONS = {
    "Invoke": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
    "GetLayerVersionByArn": "GetLayerVersion",
}
_KEPT = (PREFIX, CODE_SIGNING_PREFIX)
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
# Operations on what is another account's, where its policy allows them.
# https://docs.aws.amazon.com/lambda/latest/dg/permissions-function-cross-account.html
_ACROSS = frozenset(
    (
        "CreateAlias",
        "DeleteAlias",
        "DeleteFunction",
        "DeleteFunctionConcurrency",
        "GetAlias",
        "GetFunction",
        "GetFunctionConfiguration",
        "GetLayerVersion",
        "GetLayerVersionByArn",
        "GetPolicy",
        "Invoke",
        "InvokeFunctionUrl",
        "InvokeWithResponseStream",
        "ListAliases",
        "ListTags",
        "ListVersionsByFunction",
        "PublishVersion",
        "PutFunctionConcurrency",
        "TagResource",
        "UntagResource",
        "UpdateAlias",
        "UpdateFunctionCode",
    )
)
_LAYER = "lambda:GetLayerVersion"  # of layers that a function shall have too
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


class Grant(NamedTuple):
    """That a request is allowed: whose what it asks for is, and whether it is so until a policy changes."""

    account: str
    lasts: bool


class _Allowed(NamedTuple):
    """An invocation that was allowed, as long as no policy of either side is another."""

    account: str
    policies: Generation  # of that account
    then: int
    asks: Generation  # of the caller's account
    asked: int

    @property
    def stands(self) -> bool:
        """Whether that is so."""
        return self.policies.number == self.then and self.asks.number == self.asked


class Authorizer:
    """Decides on requests, of all accounts; keeps in mind which invocations it allowed.

    Who asks is the id of a user's access key, a function at its door, a session, which is a function by its
    credentials, or an account's root.
    """

    def __init__(self, stores: Stores, region: str) -> None:
        self._stores, self._region, self._callers = stores, region, Callers(stores)
        self._allowed: dict[tuple[str, tuple[str, str]], _Allowed] = {}

    def check_invoke(self, who: Who, target: tuple[str, str], request: HttpRequest) -> str:
        """Raise AccessDeniedException unless who asks may invoke a function (its name and the query as sent).

        Returns whose the function is.
        """
        name = who if isinstance(who, str) else name_of(who)
        allowed = self._allowed.get((name, target))
        if allowed is None or not allowed.stands:
            # Of the query nothing else counts: it must not name another function than the path.
            members = {"FunctionName": unquote(target[0]), "Qualifier": read_query(target[1]).get("Qualifier")}
            grant = self.check(who, "Invoke", members, request)
            allowed = self._seen(grant.account, self._callers.account(who))
            if grant.lasts:
                self._remember((name, target), allowed)
        if allowed.asks is not allowed.policies and request.headers.get("x-amz-log-type") == "Tail":
            raise access_denied("Cross-account log access is not allowed")
        return allowed.account

    def check_url(self, who: Who | None, url: FunctionUrl, owner: str, request: HttpRequest) -> None:
        """Raise AccessDeniedException unless who asks, or else anybody, may invoke by an account's URL: that takes two
        actions.

        Source: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
        """
        key = (f"url {who}", (url.id, url.auth_type))  # no key's id, nor any other name, begins with this
        allowed = self._allowed.get(key)
        if allowed is not None and allowed.stands:
            return
        caller = self._callers.caller(who)
        arn = function_arn(self._region, owner, url.function)
        members = {"FunctionName": arn, "Qualifier": url.qualifier or None, "AuthType": url.auth_type}
        caller = replace(caller, context=caller.context | {"lambda:invokedviafunctionurl": "true"})
        if self._check(caller, _BY_URL, members, request).lasts:
            self._remember(key, self._seen(owner, caller.principal.account or owner))

    def caller(self, who: Who) -> tuple[str, str]:
        """The ARN and the account of who asks."""
        principal = self._callers.caller(who).principal
        return principal.arn, principal.account

    def check(self, who: Who, operation: str, members: Mapping[str, Any], request: HttpRequest) -> Grant:
        """Raise AccessDeniedException unless who asks may do an operation."""
        return self._check(self._callers.caller(who), operation, members, request)

    def _seen(self, owner: str, asks: str) -> _Allowed:
        """What is allowed to one account's with what is another's, or its own, as policies are now."""
        stores = self._stores.get(owner), self._stores.get(asks)
        assert stores[0] is not None and stores[1] is not None
        policies, others = stores[0].generation, stores[1].generation
        return _Allowed(owner, policies, policies.number, others, others.number)

    def _remember(self, key: tuple[str, tuple[str, str]], allowed: _Allowed) -> None:
        if len(self._allowed) >= _REMEMBERED:
            self._allowed.clear()
        self._allowed[key] = allowed

    def _check(self, caller: Caller, operation: str, members: Mapping[str, Any], request: HttpRequest) -> Grant:
        principal, policies, account = caller.principal, caller.policies, caller.principal.account
        whose, lasts = "", True
        for action, resource in self._needs(operation, members, account):
            owner = self._owner(action, resource, account)
            across = owner != account and operation not in _ACROSS and action != _LAYER
            policy = () if across else self._policy(resource)
            for function in self._functions(members, account):
                context = self._context(members, resource, account, request) | function | caller.context
                question = Request(principal, action, resource, owner, context)
                decision = decide(question, policies, policy, caller.boundary)
                if decision is not Decision.ALLOWED:
                    raise _denied(principal, action, resource, decision)
            every = (*policies, policy, caller.boundary or ())
            keys = (statement.keys() for part in every for statement in part)
            lasts = lasts and all(map(_FLEETING.isdisjoint, keys))
            whose = whose or owner
        return Grant(whose, lasts)

    def keeps_role(self, function: FunctionVersion) -> bool:
        """Whether a function's role is kept here."""
        return self.role(function) is not None

    def role(self, function: FunctionVersion | Session) -> Identity | None:
        """The role of a function, None where it is not kept in its account."""
        return self._callers.role(function)

    def context(self, function: FunctionVersion | Session) -> dict[str, str]:
        """The condition keys of a function with its role."""
        return self._callers.context(function)

    def may_send(self, function: FunctionVersion, arn: str) -> bool:
        """Whether a function's role, where it is kept here, may hand records of events to a destination."""
        return self.may(function, SENDING[arn.split(":")[2]], arn)

    def may(self, function: FunctionVersion, action: str, arn: str) -> bool:
        """Whether a function's role, where it is kept here, allows an action that is done for the function.

        No function may on what is another account's.
        """
        if self._stores.owner(arn) != function.account:
            return False
        caller = self._callers.session(function)
        if caller is None:
            return True
        context = self._context({}, arn, function.account, HttpRequest("POST", "", {})) | caller.context
        question = Request(caller.principal, action, arn, account_of(arn, function.account), context)
        return decide(question, caller.policies, self._policy(arn), caller.boundary) is Decision.ALLOWED

    def _owner(self, action: str, resource: str, account: str) -> str:
        """Whose what an account's caller asks for is."""
        if action == "iam:PassRole":  # a role counts only in functions of its own account
            return account
        # A bucket is asked with the configuration's key, whoever wants a package out of it.
        return self._stores.owner(resource) if action.startswith("s3:") else account_of(resource, account)

    def _needs(self, operation: str, members: Mapping[str, Any], account: str) -> Iterator[tuple[str, str]]:
        """The actions that an operation takes, each with the ARN of its resource, or `*`."""
        resource = self.resource(operation, members, account)
        yield f"lambda:{_ACTIONS.get(operation, operation)}", resource
        if operation == _BY_URL:
            yield "lambda:InvokeFunction", resource
        if operation in ("CreateFunction", "UpdateFunctionConfiguration"):
            if "Role" in members:
                yield "iam:PassRole", _standing(members["Role"])
            for layer in members.get("Layers", ()):
                yield _LAYER, _layer(layer)
        if operation == "CreateFunction" and members.get("Tags"):
            yield "lambda:TagResource", resource
        code = members.get(_SOURCES[operation], members) if operation in _SOURCES else {}
        if "S3Bucket" in code and "S3Key" in code:
            action = "s3:GetObjectVersion" if "S3ObjectVersion" in code else "s3:GetObject"
            yield action, f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}"

    def resource(self, operation: str, members: Mapping[str, Any], account: str) -> str:
        """The ARN of what an operation concerns, as a caller of an account names it."""
        start = f"arn:aws:lambda:{self._region}:{account}:"
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
        if "Arn" in members:
            return _layer(members["Arn"])
        for member in ("Resource", "CodeSigningConfigArn"):
            if member in members:
                return _standing(members[member])
        return "*"

    def _function(self, text: str, qualifier: str | None, account: str) -> str:
        reference = parse_function_reference(text)
        if reference is None:  # refused by what looks it up
            return function_arn(self._region, account, text, qualifier)
        return function_arn(
            reference.region or self._region,
            reference.account or account,
            reference.name,
            qualifier or reference.qualifier,
        )

    def _policy(self, resource: str) -> Policy:
        """The policy of an account's function, version, alias or version of a layer."""
        layer = parse_layer_reference(resource) if ":layer:" in resource else None
        if layer is not None:
            store = self._stores.get(layer.account) if layer.region == self._region else None
            version = None if store is None else store.layers.get(layer.name, layer.version or 0)
            return parse_resource(version.policy) if version is not None and version.policy else ()
        found = self._function_at(resource)
        if found is None:
            return ()
        store, name, qualifier = found
        document = store.settings.get(KIND, name, "" if qualifier == LATEST else qualifier)
        if document is None or not document["Statement"]:
            return ()
        return parse_resource(policy_text(document["Statement"]))

    def _functions(self, members: Mapping[str, Any], account: str) -> list[dict[str, str]]:
        """The condition key of each function of a request: that which a mapping has, and that which it shall have."""
        found = []
        if "FunctionName" in members:
            found.append(self._function(members["FunctionName"], None, account))
        mapping = self._kept_at(self.resource("", members, account)) if "UUID" in members else None
        document = mapping[0].settings.get(MAPPING, mapping[1]) if mapping else None
        if document is not None:
            found.append(document["FunctionArn"])
        return [{"lambda:functionarn": arn} for arn in found] or [{}]

    def _kept_at(self, resource: str) -> tuple[Store, str] | None:
        """The store of a mapping's or a signing configuration's account, and by what it is kept there, by its ARN."""
        parts = resource.split(":", 5)
        store = self._stores.get(parts[4]) if len(parts) == 6 and parts[5].startswith(_KEPT) else None
        return None if store is None or parts[3] != self._region else (store, parts[5])

    def _function_at(self, resource: str) -> tuple[Store, str, str] | None:
        """The store of a function's account, the function's name and the qualifier, by its ARN."""
        reference = parse_function_reference(resource) if ":function:" in resource else None
        store = self._stores.get(reference.account) if reference is not None else None
        if reference is None or store is None or reference.region != self._region:
            return None
        return store, reference.name, reference.qualifier or ""

    def _context(
        self, members: Mapping[str, Any], resource: str, account: str, request: HttpRequest
    ) -> dict[str, str | tuple[str, ...]]:
        """The condition keys of a request, beside those of who makes it.

        Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        """
        now = time.time()
        peer = request.peer.get_extra_info("peername") if request.peer is not None else None
        context: dict[str, str | tuple[str, ...]] = {
            "aws:requestedregion": self._region,
            "aws:resourceaccount": account_of(resource, account),
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
        tags = members.get("Tags") or {}
        context |= {f"aws:requesttag/{key.lower()}": value for key, value in tags.items()}
        if tags or members.get("TagKeys"):
            context["aws:tagkeys"] = tuple(tags or members["TagKeys"])
        found = self._function_at(resource) or self._kept_at(resource)
        # Of what is another account's a policy must not find out which tags it has, or that it is there.
        kept = found[0].settings.get("Tags", found[1]) if found and found[0].account == account else None
        return context | {f"aws:resourcetag/{key.lower()}": str(value) for key, value in (kept or {}).items()}


def _standing(arn: str) -> str:
    """An ARN as policies name it, whatever partition a caller wrote: what is looked up by it does not heed that."""
    return f"arn:aws:{arn.split(':', 2)[2]}"


def _layer(arn: str) -> str:
    """The ARN of a version of a layer as policies name it: with no zeros before its number."""
    reference = parse_layer_reference(arn)
    if reference is None or reference.region is None or reference.account is None:  # refused by what looks it up
        return _standing(arn) if arn.startswith("arn:") else arn
    return layer_arn(reference.region, reference.account, reference.name, reference.version)


def _denied(principal: Principal, action: str, resource: str, decision: Decision) -> ApiError:
    if action.startswith("s3:"):
        bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
        return s3_denied(bucket, key, "S3 Error Code: AccessDenied. S3 Error Message: Access Denied")
    return access_denied(
        f"User: {principal.arn} is not authorized to perform: {action} on resource: {resource} "
        + decision.value.format(action)
    )
