"""What a role's policies say of the network, and that what is compiled of them permits what the evaluator allows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.model.egress import ALL_PORTS, EVERYTHING, MAX_RULES, EgressRule, HostRule, Reach, is_closed, parse
from sandboxd.model.iam.decision import Decision, Principal, Request, decide
from sandboxd.model.iam.network import CONNECT, PREFIX, check_role, network
from sandboxd.model.iam.policy import MalformedPolicy, Policy, parse_identity
from sandboxd.model.network import Network, Permission

HERE = "111111111111"
SESSION = Principal((f"arn:aws:sts::{HERE}:assumed-role/r/f", f"arn:aws:iam::{HERE}:role/r"), HERE)
FUNCTION = f"arn:aws:lambda:us-east-1:{HERE}:function:f"
CONTEXT = {"aws:principalarn": SESSION.names[1], "lambda:sourcefunctionarn": FUNCTION}


def to(*places: str) -> list[str]:
    return [PREFIX + place for place in places]


def statement(effect: str, resource: Any, element: str = "Resource", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": CONNECT, element: resource, **more}


def policy(*statements: dict[str, Any]) -> Policy:
    return parse_identity(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))


def own(*rules: str) -> Permission:
    found = [parse(rule) for rule in rules]
    networks = tuple(rule for rule in found if isinstance(rule, EgressRule))
    return Permission(networks, tuple(rule for rule in found if isinstance(rule, HostRule)))


def shown(found: Network) -> list[str]:
    return [str(rule) for rule in (*found.egress, *found.hosts)] + [
        f"not {rule}" for rule in (*found.denied, *found.denied_hosts)
    ]


COMPILED: list[tuple[list[dict[str, Any]], Permission | None, list[str]]] = [
    ([], None, []),
    ([], own("0.0.0.0/0:80"), []),
    ([statement("Allow", to("10.0.0.0/8:80", "a.org:443"))], None, ["10.0.0.0/8:80", "a.org:443"]),
    ([statement("Allow", to("8.8.8.8:53", "8.8.8.8:54-60"))], None, ["8.8.8.8/32:53-60"]),
    ([statement("Allow", "*")], None, [str(EVERYTHING)]),
    ([statement("Allow", to("*"))], None, [str(EVERYTHING)]),
    ([statement("Allow", "*")], own("10.0.0.0/8:80", "*.a.org:1"), ["10.0.0.0/8:80", "*.a.org:1"]),
    ([statement("Allow", to("10.0.0.0/8:80", "a.org:1"))], own(), []),
    ([statement("Allow", to("10.0.0.0/8:80-90"))], own("10.1.0.0/16:85-99"), ["10.1.0.0/16:85-90"]),
    ([statement("Allow", to("0.0.0.0/0:80"))], own("10.1.0.0/16:80"), []),
    ([statement("Allow", to("*.a.org:443", "a.org:443"))], own("b.a.org:443", "a.org:80"), ["b.a.org:443"]),
    ([statement("Allow", to("b.a.org:443"))], own("*.a.org:443"), ["b.a.org:443"]),
    ([statement("Allow", "*"), statement("Deny", to("8.0.0.0/8"))], None, [str(EVERYTHING), "not 8.0.0.0/8:1-65535"]),
    ([statement("Allow", to("8.0.0.0/8:80")), statement("Deny", to("9.0.0.0/8"))], None, ["8.0.0.0/8:80"]),
    (
        [statement("Allow", to("8.0.0.0/8:80-90")), statement("Deny", to("8.1.0.0/16", "8.2.0.0/16:85-99"))],
        None,
        ["8.0.0.0/8:80-90", "not 8.1.0.0/16:80-90", "not 8.2.0.0/16:85-90"],
    ),
    ([statement("Allow", to("8.0.0.0/8:80")), statement("Deny", to("8.8.8.8:81"))], None, ["8.0.0.0/8:80"]),
    ([statement("Allow", to("8.8.8.8:80")), statement("Deny", to("8.0.0.0/8"))], None, []),
    (
        [statement("Allow", to("8.0.0.0/8:80", "a.org:443")), statement("Deny", to("9.0.0.0/8", "7.7.7.7:80"))],
        None,
        ["8.0.0.0/8:80", "a.org:443", "not 9.0.0.0/8:443"],
    ),
    ([statement("Allow", to("*.a.org:1")), statement("Deny", to("b.a.org"))], None, ["*.a.org:1", "not b.a.org"]),
    ([statement("Allow", to("b.a.org:1", "a.org:1")), statement("Deny", to("*.a.org"))], None, ["a.org:1"]),
    ([statement("Allow", "*"), statement("Deny", "*")], own("a.org:1", "8.0.0.0/8:1"), []),
    ([statement("Allow", "*"), statement("Deny", to("8.0.0.0/8:80"), "NotResource")], None, ["8.0.0.0/8:80"]),
    ([statement("Allow", to("8.8.8.8:1")), statement("Deny", f"{FUNCTION}", "NotResource")], None, []),
    ([statement("Allow", to("*.a.org:1")), statement("Deny", to("b.a.org"), "NotResource")], None, ["b.a.org:1"]),
    ([{"Effect": "Allow", "Action": "*", "Resource": "*"}], None, [str(EVERYTHING)]),
    ([{"Effect": "Allow", "NotAction": "lambda:*", "Resource": "*"}], None, [str(EVERYTHING)]),
    ([{"Effect": "Allow", "NotAction": "lambda:*", "NotResource": FUNCTION}], None, [str(EVERYTHING)]),
    ([{"Effect": "Allow", "Action": "lambda:*", "Resource": "*"}], None, []),
    ([{"Effect": "Allow", "Action": "*", "Resource": FUNCTION}], None, []),
]


@pytest.mark.parametrize(("statements", "setting", "expected"), COMPILED)
def test_what_policies_come_to(
    statements: list[dict[str, Any]], setting: Permission | None, expected: list[str]
) -> None:
    policies = [policy(one) for one in statements]
    check_role(policies)
    assert shown(network(policies, CONTEXT, setting)) == expected


def test_one_address_of_a_network_goes_no_further_than_the_network() -> None:
    for allowed, setting, reach in (
        ("10.0.0.0/8:80", "10.1.2.3:80", Reach.NAMED),
        ("10.1.2.3:80", "10.0.0.0/8:80", Reach.NAMED),
        ("8.8.8.8:80", "0.0.0.0/0:80", Reach.PUBLIC),
        ("8.8.8.8:80", "8.8.8.8:80", Reach.EXACT),
    ):
        (rule,) = network([policy(statement("Allow", to(allowed)))], CONTEXT, own(setting)).egress
        assert rule.network.prefixlen == 32 and rule.reach is reach, (allowed, setting)
    only = [policy(statement("Allow", to("10.0.0.0/8:80")), statement("Deny", to("10.1.2.3:80"), "NotResource"))]
    assert network(only, CONTEXT, None).egress[0].reach is Reach.NAMED


def test_conditions_ask_for_who_connects() -> None:
    def allows(condition: dict[str, Any]) -> bool:
        policies = [policy(statement("Allow", to("8.8.8.8:53"), Condition=condition))]
        check_role(policies)
        return bool(network(policies, CONTEXT, None).egress)

    assert allows({"ArnLike": {"lambda:SourceFunctionArn": FUNCTION}})
    assert allows({"StringLike": {"aws:PrincipalArn": "*:role/r"}})
    assert not allows({"ArnLike": {"lambda:SourceFunctionArn": f"{FUNCTION}2"}})


ADDRESS = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (statement("Allow", to("10.0.0.0/33:80"), Sid="db"), '2 (Sid "db"): @10.0.0.0/33:80: '),
    (statement("Allow", to("10.0.0.1/8:80")), "2: @10.0.0.1/8:80: 10.0.0.1/8 has host"),
    (statement("Allow", to("10.0.0.0/8:0")), "2: @10.0.0.0/8:0: port '0' is not within"),
    (statement("Allow", to("8.8.8.8:53/udp")), "2: @8.8.8.8:53/udp: a port is one of TCP"),
    (statement("Allow", to("[::1]:80")), "2: @[::1]:80: there is no egress by IPv6"),
    (statement("Allow", to("a.*.org:80")), "2: @a.*.org:80: expected"),
    (statement("Deny", to("a b")), "2: @a b: expected"),
    (statement("Deny", to("${aws:PrincipalArn}")), "2: @${aws:PrincipalArn}: "),
    (statement("Allow", to("a.org")), "2: a host that is allowed has a port"),
    (statement("Allow", to("a.org:1-2")), "2: @a.org:1-2: a host has one port"),
    (statement("Allow", "arn:*:network:::8.8.8.8:80"), "2: arn:*:network:::8.8.8.8:80: sandboxd:Connect takes"),
    (statement("Allow", "arn:sandboxd:net*:::*"), "2: arn:sandboxd:net*:::*: sandboxd:Connect takes * or"),
    (statement("Allow", to("8.8.8.8:80"), "NotResource"), "2: sandboxd:Connect cannot be allowed by NotResource"),
    (statement("Allow", "*", Condition=ADDRESS), "2: it covers sandboxd:Connect, of which no aws:sourceip is"),
    (statement("Deny", to("*"), Condition=ADDRESS), "2: it covers sandboxd:Connect, of which no aws:sourceip"),
    (statement("Allow", "*") | {"Action": "*", "Condition": ADDRESS}, "2: it covers sandboxd:Connect"),
    (statement("Allow", "*") | {"Action": "sandboxd:Conect"}, "2: there is no action sandboxd:conect"),
    (statement("Allow", to("10.0.0.0/8")), "The network destinations of a role's policies: 65536 ports; 1024 are"),
    (
        statement("Allow", to(*(f"8.8.{number}.0/24:80" for number in range(MAX_RULES)))),
        f"A role names at most {MAX_RULES} network destinations",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_cannot_be_judged_is_refused_by_statement(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedPolicy) as caught:
        check_role([policy(statement("Allow", to("9.9.9.9:53")), row)])
    assert str(caught.value).removeprefix("Statement ").startswith(reason.replace("@", PREFIX))


def test_what_is_left_of_everything_has_to_fit() -> None:
    with pytest.raises(MalformedPolicy, match="65535 ports"):
        check_role([policy(statement("Allow", "*"), statement("Deny", to("8.0.0.0/8"), "NotResource"))])
    with pytest.raises(MalformedPolicy, match="2000 ports"):
        check_role([policy(statement("Allow", "*"), statement("Deny", to("8.0.0.0/8:1-2000")))])
    check_role([policy(statement("Allow", to("8.0.0.0/8:80")), statement("Deny", to("8.8.0.0/16:1-2000")))])
    check_role([policy(statement("Allow", "*"), statement("Deny", to("8.0.0.0/8:80"), "NotResource"))])


def test_what_two_have_in_common_is_bounded_on_the_way() -> None:
    """Lists that fit each have hundreds of rules in common, of which the boundary would leave one."""
    ports = [f"10.0.0.0/8:{port}" for port in range(1, 128, 2)]
    networks = own(*(f"10.{number}.0.0/16:1-16" for number in range(64)))
    with pytest.raises(ValueError, match="more than 64 rules"):
        network(
            [policy(statement("Allow", to(*ports)))], CONTEXT, networks, policy(statement("Allow", to("10.0.0.0/16:1")))
        )


def test_a_boundary_may_name_every_port() -> None:
    bounds = policy(statement("Allow", to("10.0.0.0/9", "*.a.org")), statement("Deny", to("10.1.0.0/16")))
    check_role([bounds], opens=False)
    role = [policy(statement("Allow", to("10.0.0.0/8:80", "b.a.org:443", "c.org:443")))]
    assert shown(network(role, CONTEXT, None, bounds)) == [
        "10.0.0.0/9:80", "b.a.org:443", "not 10.1.0.0/16:80", "not 10.1.0.0/16:443",
    ]  # fmt: skip
    assert network([policy(statement("Allow", "*"))], CONTEXT, own("10.2.0.0/16:80"), bounds).egress


def test_what_is_not_about_the_network_is_none_of_this() -> None:
    rows: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": "lambda:*", "Resource": "*", "Condition": ADDRESS},
        {"Effect": "Allow", "Action": "*", "Resource": FUNCTION, "Condition": ADDRESS},
        {"Effect": "Deny", "Action": "lambda:*", "Resource": "arn:*:*:*:*:*"},
    ]
    check_role([policy(*rows)])


def test_policies_of_before_they_were_checked_open_nothing_by_what_is_refused_now() -> None:
    public = [statement("Allow", to("8.8.8.8:53"))]
    for row in (
        statement("Allow", "arn:*:*:*:*:*"),
        statement("Allow", "*", Condition=ADDRESS),
        statement("Allow", to("8.8.8.8:80"), "NotResource"),
    ):
        assert network([policy(row)], CONTEXT, None) == Network()
    for row in (statement("Deny", "arn:*:*:*:*:*"), statement("Deny", "*", Condition=ADDRESS)):
        assert network([policy(*public, row)], CONTEXT, None) == Network()


# Few enough places that what is drawn meets; among them closed ranges, single addresses and wildcards of names.
PORTS = (":80", ":80-82", ":82-85")
NETWORKS = ("0.0.0.0/0", "8.0.0.0/8", "8.8.0.0/16", "8.8.8.8", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/1")
HOSTS = ("a.org", "b.a.org", "*.a.org", "*.b.a.org", "c.org")
ASKED = [
    f"{destination}:{port}"
    for destination in (
        "8.8.8.8", "8.8.1.1", "8.1.1.1", "9.9.9.9", "200.1.1.1", "10.1.2.3", "10.1.9.9", "10.9.9.9",
        "a.org", "b.a.org", "c.b.a.org", "c.org", "d.org",
    )
    for port in (79, 80, 82, 84, 9000)
]  # fmt: skip
OF_NETWORKS = st.builds(str.__add__, st.sampled_from(NETWORKS), st.sampled_from(PORTS))
OF_HOSTS = st.builds(str.__add__, st.sampled_from(HOSTS), st.sampled_from((":80", ":82")))
WHOLE = st.sampled_from((*NETWORKS, *HOSTS))  # with every port
CONDITIONS = st.sampled_from(("ArnLike", "ArnNotLike", "")).map(
    lambda name: {"Condition": {name: {"lambda:SourceFunctionArn": FUNCTION}}} if name else {}
)


def places(*more: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    one = st.one_of(OF_NETWORKS, OF_HOSTS, *more)
    return st.lists(one, min_size=1, max_size=3).map(lambda rows: to(*rows))


STATEMENTS = st.one_of(
    st.builds(
        lambda where, condition: statement("Allow", where, **condition),
        places(st.sampled_from(("*", "0.0.0.0/0"))),
        CONDITIONS,
    ),
    st.builds(
        lambda where, element, condition: statement("Deny", where, element, **condition),
        places(WHOLE),
        st.sampled_from(("Resource", "NotResource")),
        CONDITIONS,
    ),
)
SETTINGS = st.none() | st.lists(OF_NETWORKS | OF_HOSTS, max_size=4).map(lambda rules: own(*rules))


def reached(found: Network, asked: EgressRule | HostRule) -> bool:
    """Whether the rules lead somewhere, as the router (builder/egress.py) and the resolver go by them."""
    if isinstance(asked, HostRule):
        return asked.port in found.ports_of(asked.name)
    if any(rule.contains(asked) for rule in found.denied):
        return False
    closed = is_closed(asked.network.network_address)
    return any(rule.contains(asked) and (rule.reach > Reach.PUBLIC or not closed) for rule in found.egress)


def names(rules: Iterable[EgressRule | HostRule], asked: EgressRule | HostRule) -> bool:
    rules = list(rules)
    hosts = tuple(rule for rule in rules if isinstance(rule, HostRule))
    return reached(Network(tuple(rule for rule in rules if isinstance(rule, EgressRule)), hosts), asked)


def _named(text: str) -> EgressRule | HostRule:
    return EVERYTHING if text == "*" else parse(text if ":" in text else f"{text}:1-65535")


@settings(deadline=None)
@given(st.lists(STATEMENTS, max_size=5), SETTINGS)
def test_the_rules_permit_what_the_evaluator_allows_and_nothing_else(
    statements: list[dict[str, Any]], setting: Permission | None
) -> None:
    policies = [policy(one) for one in statements]
    try:
        check_role(policies)
        found = network(policies, CONTEXT, setting)
    except ValueError as error:  # every port of a network, which is what is left of all
        assert "ports; 1024 are the most" in str(error) and "NotResource" in str(statements)
        return
    if setting is None:  # what the role allows by name, and where it allows everything, what is public
        holding = [one for one in statements if "ArnNotLike" not in one.get("Condition", {})]
        texts = [text for one in holding if one["Effect"] == "Allow" for text in one["Resource"]]
        named = [_named(text.removeprefix(PREFIX)) for text in texts]
    else:
        named = [*setting.networks, *setting.hosts]
    for text in ASKED:
        decision = decide(Request(SESSION, CONNECT, PREFIX + text, HERE, CONTEXT), policies)
        asked = parse(text)
        meant = decision is Decision.ALLOWED and names(named, asked)
        assert reached(found, asked) == meant, (text, decision, shown(found))


def test_a_range_that_is_denied_keeps_every_port_of_it() -> None:
    found = network([policy(statement("Allow", "*"), statement("Deny", to("8.8.8.8")))], CONTEXT, None)
    assert found.denied == (EgressRule(IPv4Network("8.8.8.8/32"), *ALL_PORTS),)
    assert not found.denied[0].partial and IPv4Address("8.8.8.8") in found.denied[0].network
