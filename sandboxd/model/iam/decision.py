"""The decision over a request: an explicit Deny wins, what nobody allows is denied.

Room: model.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic-cross-account.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from sandboxd.model.iam import network
from sandboxd.model.iam.glob import EVERYTHING, Context, Wild, expand, matches
from sandboxd.model.iam.policy import Policy, Principals, Statement


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an account's user or a role's session, or else a service, or anybody, who have no account.

    `names` are the ARNs by which a policy may name it: its own and, of a session, its role's.
    """

    names: tuple[str, ...]
    account: str = ""
    service: str = ""

    @property
    def arn(self) -> str:
        """The ARN that answers call it by."""
        return self.names[0]


ANYBODY = Principal(("anonymous",))  # who gave no signature, as AWS's answers call such a one; policies say "*"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: `action` as "lambda:InvokeFunction", `resource` an ARN or "*", `account` whose that is."""

    principal: Principal
    action: str
    resource: str
    account: str
    context: Context = field(default_factory=dict)


class Decision(Enum):
    """The answer; a denial's value is AWS's end of "is not authorized to perform: ... on resource: ...".

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """

    ALLOWED = ""
    DENIED_BY_IDENTITY = "with an explicit deny in an identity-based policy"
    DENIED_BY_RESOURCE = "with an explicit deny in a resource-based policy"
    DENIED_BY_BOUNDARY = "with an explicit deny in a permissions boundary"
    NO_IDENTITY = "because no identity-based policy allows the {} action"
    NO_RESOURCE = "because no resource-based policy allows the {} action"
    NO_BOUNDARY = "because no permissions boundary allows the {} action"


class _Grant(Enum):
    NONE = 0
    ACCOUNT = 1  # the principal's account, which has to pass it on
    PRINCIPAL = 2


def decide(
    request: Request, identity: Iterable[Policy], resource: Policy = (), boundary: Policy | None = None
) -> Decision:
    """Whether the request is allowed by the policies of who asks, within its boundary, and of what is asked for.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html
    """
    own = [statement for policy in identity for statement in policy if _covers(statement, request)]
    if any(not statement.allows for statement in own):
        return Decision.DENIED_BY_IDENTITY
    bounds = [statement for statement in boundary or () if _covers(statement, request)]
    if any(not statement.allows for statement in bounds):
        return Decision.DENIED_BY_BOUNDARY
    bounded = boundary is None or bool(bounds)
    granted, by_name = _Grant.NONE, False
    for statement in resource:
        assert statement.principals is not None
        grant = _named(statement.principals, request.principal)
        if grant is _Grant.NONE or not _covers(statement, request):
            continue
        if not statement.allows:
            return Decision.DENIED_BY_RESOURCE
        granted = max(granted, grant, key=lambda kind: kind.value)
        # What names a user, or a session, itself is no matter of its boundary; what names a session's role is.
        by_name = by_name or {("AWS", name) for name in request.principal.names[:1]} <= statement.principals.named
    if not request.principal.account:
        return Decision.ALLOWED if granted is _Grant.PRINCIPAL else Decision.NO_RESOURCE
    if request.principal.account == request.account:
        if (own and bounded) or (granted is _Grant.PRINCIPAL and (bounded or by_name)):
            return Decision.ALLOWED
        return Decision.NO_BOUNDARY if own or granted is _Grant.PRINCIPAL else Decision.NO_IDENTITY
    if not own:
        return Decision.NO_IDENTITY
    if not bounded:
        return Decision.NO_BOUNDARY
    return Decision.NO_RESOURCE if granted is _Grant.NONE else Decision.ALLOWED


def _covers(statement: Statement, request: Request) -> bool:
    """Whether a statement is about the request, whoever makes it."""
    action = request.action.lower()
    if any(matches(pattern, action) for pattern in statement.actions) == statement.not_actions:
        return False
    if request.action == network.CONNECT:
        within = network.within(statement, request.resource)
    else:
        patterns = [_resource(text, request.context) for text in statement.resources]
        if statement.allows and None in patterns:
            return False
        within = any(pattern is not None and matches(pattern, request.resource, arn=True) for pattern in patterns)
    if within == statement.not_resources:
        return False
    return all(condition.holds(request.context, statement.allows) for condition in statement.conditions)


def _resource(text: str, context: Context) -> tuple[Wild, ...] | None:
    return EVERYTHING if text == "*" else expand(text, context)


def _named(principals: Principals, principal: Principal) -> _Grant:
    """How a statement names who asks. One that denies all but some does not deny whom it names with its account."""
    if principal.service:
        direct = not principals.named.isdisjoint({("*", "*"), ("Service", principal.service)})
        return _Grant.PRINCIPAL if direct != principals.negated else _Grant.NONE
    everybody = {("*", "*"), ("AWS", "*")}
    account = {("AWS", principal.account), ("AWS", f"arn:aws:iam::{principal.account}:root")}
    of_account = not principals.named.isdisjoint(everybody | account)
    direct = not principals.named.isdisjoint(everybody | {("AWS", name) for name in principal.names})
    if principals.negated:
        return _Grant.NONE if direct and of_account else _Grant.PRINCIPAL
    if direct:
        return _Grant.PRINCIPAL
    return _Grant.ACCOUNT if of_account else _Grant.NONE
