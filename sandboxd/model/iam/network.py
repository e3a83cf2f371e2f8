"""What policies say of network destinations: `sandboxd:Connect` on `arn:sandboxd:network:::DESTINATION`.

Room: model.

A destination is `*`, NETWORK, NETWORK:PORT, NETWORK:FIRST-LAST, HOST or HOST:PORT: a network is an IPv4 CIDR or
address, a host a name or `*.` and a name, and without a port it is every port. There are no other wildcards and no
variables. `*` allows every destination, but opens public addresses only: closed ranges and names have to be named.
Nothing of a connection is known but who makes it, so that a condition can ask for that alone (`KEYS`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from sandboxd.model.egress import ALL_PORTS, MAX_RULES, EgressRule, HostRule, Reach, check_bounds, is_closed, parse
from sandboxd.model.iam.glob import Context, matches
from sandboxd.model.iam.policy import MalformedPolicy, Policy, Statement
from sandboxd.model.network import Network, Permission, compiled

CONNECT = "sandboxd:Connect"
PREFIX = "arn:sandboxd:network:::"
# What is known of who connects: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
KEYS = frozenset(
    ("aws:principalaccount", "aws:principalarn", "aws:principaltype", "lambda:sourcefunctionarn")
)  # in lower case

Place = EgressRule | HostRule | None  # None: every destination


def concerns(statement: Statement) -> bool:
    """Whether its actions include connecting."""
    action = CONNECT.lower()
    return any(matches(pattern, action) for pattern in statement.actions) != statement.not_actions


def within(statement: Statement, resource: str) -> bool:
    """Whether one of the destinations that a statement names holds the one that a resource is."""
    asked = _place(resource.removeprefix(PREFIX))
    return any(_covers(place, asked, statement.allows) for place in _places(statement))


def statements(policies: Iterable[Policy]) -> list[Statement]:
    """What policies say of connecting."""
    return [statement for policy in policies for statement in policy if concerns(statement)]


def check_role(policies: Iterable[Policy], *, opens: bool = True) -> None:
    """See that the policies of one role can be held by the router. Raises MalformedPolicy, naming the statement.

    Those of a boundary open nothing, so that they may name more ports than the router holds.
    """
    allowed: list[Place] = []
    denied: list[Place] = []
    others: list[Permission] = []  # what is not denied
    count = 0
    for policy in policies:
        for number, statement in enumerate(policy, 1):
            try:
                _check(statement, opens)
                found = list(_places(statement)) if concerns(statement) else []
            except ValueError as error:
                name = f"Statement {number}" + (f' (Sid "{statement.sid}")' if statement.sid else "")
                raise MalformedPolicy(f"{name}: {error}") from None
            count += len(found)
            if statement.allows or not statement.not_resources:
                (allowed if statement.allows else denied).extend(found)
            elif concerns(statement):
                others.append(_permission(found))
    if count > MAX_RULES:
        raise MalformedPolicy(f"A role names at most {MAX_RULES} network destinations in all its policies.")
    try:
        if opens:
            check_bounds(_networks(allowed), [place.port for place in allowed if isinstance(place, HostRule)])
            for narrowed in ([], others):
                compiled([_permission(allowed)], narrowed, [_permission(place for place in denied if place)])
    except ValueError as error:
        raise MalformedPolicy(f"The network destinations of a role's policies: {error}.") from None


def network(
    policies: Iterable[Policy], context: Context, own: Permission | None, boundary: Policy | None = None
) -> Network:
    """What a role permits to who is known by a context, within its boundary and a function's own setting where it has
    them.

    A condition that asks for something else never allows, and never keeps from denying. Raises ValueError where it is
    more than the router has room for.
    """
    granted = [] if own is None else [own]
    denied: list[Permission] = []
    narrowed: list[Permission] = []
    for part in (policies, *([] if boundary is None else [[boundary]])):
        granted.append(_allowed((statement for policy in part for statement in policy), context, narrowed, denied))
    return compiled(granted, narrowed, denied)


def _allowed(
    statements: Iterable[Statement], context: Context, narrowed: list[Permission], denied: list[Permission]
) -> Permission:
    """What statements allow; what they deny is added to the lists, as all there is but some or as itself."""
    allowed: list[Place] = []
    for statement in statements:
        if not concerns(statement):
            continue
        holds = [
            one.holds(context, statement.allows) if one.keys() <= KEYS else not statement.allows
            for one in statement.conditions
        ]
        if not all(holds):
            continue
        try:
            places = list(_places(statement))
        except ValueError:  # of before policies were looked at for this
            denied += [] if statement.allows else [Permission(everything=True)]
            continue
        if not statement.allows:
            (narrowed if statement.not_resources else denied).append(_permission(places))
        elif not statement.not_resources:
            allowed += places
        elif not places:
            allowed.append(None)
    return _permission(allowed)


def _check(statement: Statement, opens: bool) -> None:
    for pattern in statement.actions:
        text = "".join(character for character, _ in pattern)
        if text.startswith("sandboxd:") and not matches(pattern, CONNECT.lower()):
            raise ValueError(f"there is no action {text[:100]}, but {CONNECT}")
    if not concerns(statement):
        return
    places = list(_places(statement))
    if statement.allows and statement.not_resources and places:
        raise ValueError(f"{CONNECT} cannot be allowed by NotResource; deny what is meant")
    if statement.allows and opens and any(isinstance(place, HostRule) and not place.port for place in places):
        raise ValueError("a host that is allowed has a port")
    if not places and not statement.not_resources:
        return
    stray = set().union(*(condition.keys() for condition in statement.conditions)) - KEYS
    if stray:
        raise ValueError(
            f"it covers {CONNECT}, of which no {min(stray)} is known: {', '.join(sorted(KEYS))} are; "
            "name the actions that are meant"
        )


def _places(statement: Statement) -> Iterator[Place]:
    """The destinations among its resources. Raises ValueError."""
    for text in statement.resources:
        if text == "*":
            yield None
        elif text.startswith(PREFIX):
            yield _place(text.removeprefix(PREFIX))
        elif PREFIX.startswith(_literal(text)):
            raise ValueError(f"{text[:200]}: {CONNECT} takes * or {PREFIX}DESTINATION")


@functools.lru_cache(1024)
def _place(text: str) -> Place:
    if text == "*":
        return None
    _, separator, ports = text.rpartition(":")
    if "/" in ports and separator:
        raise ValueError(f"{PREFIX}{text[:200]}: a port is one of TCP and of UDP")
    try:
        found = parse(text if separator else f"{text}:1")
    except ValueError as error:
        raise ValueError(f"{PREFIX}{text[:200]}: {str(error).partition(': ')[2]}") from None
    if separator:
        return found
    return HostRule(found.name, 0) if isinstance(found, HostRule) else EgressRule(found.network, *ALL_PORTS)


def _literal(text: str) -> str:
    """What stands before the first wildcard or variable."""
    return re.split(r"[*?$]", text, maxsplit=1)[0]


def _covers(place: Place, asked: Place, allows: bool) -> bool:
    if place is None or asked is None:
        return place is None
    if isinstance(place, HostRule):
        return isinstance(asked, HostRule) and place.contains(asked)
    if isinstance(asked, HostRule) or not place.contains(asked):
        return False
    return not allows or place.reach is not Reach.PUBLIC or not is_closed(asked.network.network_address)


def _permission(places: Iterable[Place]) -> Permission:
    places = list(places)
    hosts = tuple(place for place in places if isinstance(place, HostRule))
    return Permission(tuple(_networks(places)), hosts, None in places)


def _networks(places: Iterable[Place]) -> list[EgressRule]:
    return [place for place in places if isinstance(place, EgressRule)]
