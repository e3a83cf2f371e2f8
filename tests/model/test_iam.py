"""IAM's logic as its documentation has it, and what has to be so for any policies at all.

The pages that tables name are below https://docs.aws.amazon.com/IAM/latest/UserGuide/
"""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.model.iam.decision import Decision, Principal, Request, decide
from sandboxd.model.iam.glob import literal, matches
from sandboxd.model.iam.policy import (
    IDENTITY_LIMIT,
    RESOURCE_LIMIT,
    MalformedPolicy,
    parse_identity,
    parse_resource,
)

HERE, THERE = "111111111111", "222222222222"
ALICE = Principal((f"arn:aws:iam::{HERE}:user/alice",), HERE)
FUNCTION = f"arn:aws:lambda:us-east-1:{HERE}:function:hello"


def document(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def statement(effect: str = "Allow", action: Any = "lambda:*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def asked(
    context: dict[str, Any] | None = None,
    action: str = "lambda:InvokeFunction",
    resource: str = FUNCTION,
    principal: Principal = ALICE,
) -> Request:
    return Request(principal, action, resource, HERE, context or {})


def allowed(request: Request, *statements: dict[str, Any]) -> bool:
    return decide(request, [parse_identity(document(*statements))]) is Decision.ALLOWED


# reference_policies_elements_resource.html: "If the wildcard * is the last character of a resource ARN segment, it can
# expand to match beyond the colon boundaries."
ARNS = [
    ("arn:aws:lambda:us-east-1:1:function:hello", "arn:aws:lambda:us-east-1:1:function:hello", True),
    ("arn:aws:lambda:us-east-1:1:function:hello", "arn:aws:lambda:us-east-1:1:function:hello:1", False),
    ("arn:aws:lambda:us-east-1:1:function:hello*", "arn:aws:lambda:us-east-1:1:function:hello:1", True),
    ("arn:aws:lambda:us-east-1:1:function:hello:*", "arn:aws:lambda:us-east-1:1:function:hello", False),
    ("arn:aws:lambda:*:1:function:hello", "arn:aws:lambda:eu-west-1:1:function:hello", True),
    ("arn:aws:lambda:*", "arn:aws:lambda:eu-west-1:1:function:hello", True),
    ("arn:aws:lambda:us-*-1:1:function:hello", "arn:aws:lambda:us-east-1:1:function:hello", True),
    ("arn:aws:lambda:us-*t:1:function:hello", "arn:aws:lambda:us-east-1:1:function:x:t:1:function:hello", False),
    ("arn:aws:lambda:us-east-?:1:function:h?llo", "arn:aws:lambda:us-east-1:1:function:hello", True),
    ("arn:aws:lambda:us-east-1:1:function:hello?1", "arn:aws:lambda:us-east-1:1:function:hello:1", False),
    ("arn:aws:lambda:us-east-1:1:function:Hello", "arn:aws:lambda:us-east-1:1:function:hello", False),
    ("arn:aws:lambda:us-east-1:1:function:a*b*c", "arn:aws:lambda:us-east-1:1:function:axxbyyc", True),
]


@pytest.mark.parametrize(("pattern", "arn", "expected"), ARNS)
def test_wildcards_in_arns(pattern: str, arn: str, expected: bool) -> None:
    assert matches(literal(pattern), arn, arn=True) is expected


@given(st.text("ab*?:", max_size=12), st.text("ab:", max_size=12))
def test_wildcards_as_fnmatch_has_them(pattern: str, text: str) -> None:
    assert matches(literal(pattern), text) == fnmatch.fnmatchcase(text, pattern)


@given(st.text("ab*?:", max_size=10), st.text("ab:", max_size=10))
def test_an_arns_pattern_matches_nothing_that_it_would_not_elsewhere(pattern: str, text: str) -> None:
    assert matches(literal(pattern), text) or not matches(literal(pattern), text, arn=True)


def test_a_hostile_pattern_takes_no_longer_than_its_size_allows() -> None:
    pattern = literal("*a" * (RESOURCE_LIMIT // 2))
    assert matches(pattern, "a" * (RESOURCE_LIMIT // 2))
    assert not matches(pattern, "a" * (RESOURCE_LIMIT // 2) + "b")


# reference_policies_elements_action.html and _notaction.html
@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ({"Action": "lambda:InvokeFunction"}, True),
        ({"Action": "LAMBDA:invokefunction"}, True),
        ({"Action": ["lambda:GetFunction", "lambda:Invoke*"]}, True),
        ({"Action": "lambda:GetFunction"}, False),
        ({"Action": "lambda:Invoke?unction"}, True),
        ({"Action": "*"}, True),
        ({"Action": "s3:*"}, False),
        ({"NotAction": "s3:*"}, True),
        ({"NotAction": ["s3:*", "lambda:Invoke*"]}, False),
    ],
)
def test_actions(element: dict[str, Any], expected: bool) -> None:
    assert allowed(asked(), {"Effect": "Allow", "Resource": "*", **element}) is expected


# reference_policies_elements_resource.html and _notresource.html
@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ({"Resource": FUNCTION}, True),
        ({"Resource": [FUNCTION + "2", FUNCTION]}, True),
        ({"Resource": FUNCTION + "2"}, False),
        ({"NotResource": FUNCTION}, False),
        ({"NotResource": FUNCTION + "2"}, True),
    ],
)
def test_resources(element: dict[str, Any], expected: bool) -> None:
    assert allowed(asked(), {"Effect": "Allow", "Action": "*", **element}) is expected


# reference_policies_variables.html
@pytest.mark.parametrize(
    ("resource", "context", "expected"),
    [
        (f"arn:aws:lambda:*:{HERE}:function:${{aws:username}}", {"aws:username": "hello"}, True),
        (f"arn:aws:lambda:*:{HERE}:function:${{AWS:UserName}}", {"aws:username": "hello"}, True),
        (f"arn:aws:lambda:*:{HERE}:function:${{aws:username}}", {"aws:username": "other"}, False),
        (f"arn:aws:lambda:*:{HERE}:function:${{aws:username}}", {"aws:username": "*"}, False),
        (f"arn:aws:lambda:*:{HERE}:function:${{aws:username}}", {}, False),
        (f"arn:aws:lambda:*:{HERE}:function:${{aws:PrincipalTag/team, 'hello'}}", {}, True),
        (f"arn:aws:lambda:*:{HERE}:function:${{*}}", {}, False),
        (f"arn:aws:lambda:*:{HERE}:function:hell${{?}}", {}, False),
    ],
)
def test_variables(resource: str, context: dict[str, Any], expected: bool) -> None:
    assert allowed(asked(context), statement(resource=resource)) is expected


def test_a_variable_that_the_request_lacks_never_allows_and_never_keeps_from_denying() -> None:
    named = f"arn:aws:lambda:*:{HERE}:function:${{aws:username}}"
    assert not allowed(asked(), {"Effect": "Allow", "Action": "*", "NotResource": named})
    assert not allowed(asked(), statement(), {"Effect": "Deny", "Action": "*", "NotResource": named})
    differs = {"StringNotEquals": {"aws:sourceip": "${aws:username}"}}
    assert not allowed(asked({"aws:sourceip": "1.2.3.4"}), statement(Condition=differs))
    assert not allowed(asked({"aws:sourceip": "1.2.3.4"}), statement(), statement("Deny", Condition=differs))


# reference_policies_elements_condition_operators.html; several values: reference_policies_multi-value-conditions.html
CONDITIONS: list[tuple[str, Any, dict[str, Any], bool]] = [
    ("StringEquals", "a", {"k": "a"}, True),
    ("StringEquals", "A", {"k": "a"}, False),
    ("StringEquals", "a*", {"k": "ab"}, False),
    ("StringEquals", ["b", "a"], {"k": "a"}, True),
    ("StringEquals", "a", {}, False),
    ("StringEqualsIfExists", "a", {}, True),
    ("StringEqualsIfExists", "a", {"k": "b"}, False),
    ("StringNotEquals", "a", {"k": "b"}, True),
    ("StringNotEquals", ["a", "b"], {"k": "b"}, False),
    ("StringNotEquals", "a", {}, True),
    ("StringEqualsIgnoreCase", "A", {"k": "a"}, True),
    ("StringNotEqualsIgnoreCase", "A", {"k": "a"}, False),
    ("StringLike", "a*", {"k": "a:b/c"}, True),
    ("StringLike", "a?", {"k": "ab"}, True),
    ("StringLike", "${*}", {"k": "b"}, False),
    ("StringNotLike", "a*", {"k": "ab"}, False),
    ("StringNotLike", "a*", {"k": "b"}, True),
    ("ArnLike", "arn:aws:s3:::b*", {"k": "arn:aws:s3:::bucket"}, True),
    ("ArnEquals", "arn:aws:*:*:*:b", {"k": "arn:aws:sns:us-east-1:1:b"}, True),
    ("ArnLike", "arn:aws:s3:::b", {"k": "arn:aws:s3:::bucket"}, False),
    ("ArnLike", "arn:*:b", {"k": "arn:aws:s3:::b"}, False),  # each of the six components is matched separately
    ("ArnLike", "arn:aws:lambda:*:*:function:*:x", {"k": "arn:aws:lambda:r:1:function:f:g:x"}, True),
    ("ArnNotLike", "arn:aws:s3:::b*", {"k": "arn:aws:s3:::bucket"}, False),
    ("ArnNotEquals", "arn:aws:s3:::a", {"k": "arn:aws:s3:::bucket"}, True),
    ("Bool", "true", {"k": "true"}, True),
    ("Bool", True, {"k": "true"}, True),
    ("Bool", "False", {"k": "true"}, False),
    ("BoolIfExists", "true", {}, True),
    ("NumericEquals", 10, {"k": "10.0"}, True),
    ("NumericNotEquals", "10", {"k": "10"}, False),
    ("NumericLessThan", "10", {"k": "9"}, True),
    ("NumericLessThan", "10", {"k": "10"}, False),
    ("NumericLessThanEquals", "10", {"k": "10"}, True),
    ("NumericGreaterThan", "10", {"k": "11"}, True),
    ("NumericGreaterThanEquals", "10", {"k": "9"}, False),
    ("NumericLessThan", "10", {"k": "nine"}, False),
    ("DateLessThan", "2026-01-01T00:00:00Z", {"k": "2025-12-31T23:59:59Z"}, True),
    ("DateGreaterThan", "2026-01-01T00:00:00Z", {"k": "2025-12-31T23:59:59Z"}, False),
    ("DateEquals", "2026-01-01T00:00:00Z", {"k": "1767225600"}, True),
    ("DateNotEquals", "2026-01-01", {"k": "2026-01-01T00:00:00+00:00"}, False),
    ("DateLessThanEquals", "2026-01-01T01:00:00+01:00", {"k": "2026-01-01T00:00:00Z"}, True),
    ("DateGreaterThanEquals", "soon", {"k": "2026-01-01T00:00:00Z"}, False),
    ("IpAddress", "203.0.113.0/24", {"k": "203.0.113.9"}, True),
    ("IpAddress", "203.0.113.9", {"k": "203.0.113.9"}, True),
    ("IpAddress", ["10.0.0.0/8", "2001:db8::/32"], {"k": "2001:db8::1"}, True),
    ("IpAddress", "203.0.113.0/24", {"k": "203.0.114.9"}, False),
    ("NotIpAddress", "203.0.113.0/24", {"k": "203.0.114.9"}, True),
    ("NotIpAddress", ["203.0.113.0/24", "203.0.114.0/24"], {"k": "203.0.114.9"}, False),
    ("Null", "true", {}, True),
    ("Null", "true", {"k": "x"}, False),
    ("Null", False, {"k": "x"}, True),
    ("ForAllValues:StringEquals", ["a", "b"], {"k": ("a", "b")}, True),
    ("ForAllValues:StringEquals", ["a", "b"], {"k": ("a", "c")}, False),
    ("ForAllValues:StringEquals", ["a", "b"], {}, True),
    ("ForAllValues:StringNotEquals", ["a", "b"], {"k": ("c", "a")}, False),
    ("ForAnyValue:StringEquals", ["a", "b"], {"k": ("c", "a")}, True),
    ("ForAnyValue:StringEquals", ["a", "b"], {"k": ("c", "d")}, False),
    ("ForAnyValue:StringEquals", ["a", "b"], {}, False),
    ("ForAnyValue:StringNotEquals", ["a", "b"], {"k": ("c", "a")}, True),
    ("ForAnyValue:StringLike", "a*", {"k": "ab"}, True),
    # Of a key that the request lacks, negated operators hold.
    ("StringNotLike", "a*", {}, True),
    ("ArnNotLike", "arn:aws:s3:::b", {}, True),
    ("NumericNotEquals", "1", {}, True),
    ("DateNotEquals", "2026-01-01T00:00:00Z", {}, True),
    ("NotIpAddress", "203.0.113.0/24", {}, True),
    ("ForAnyValue:StringNotEquals", ["a"], {}, False),
    ("ForAllValues:StringNotEquals", ["a"], {}, True),
]


@pytest.mark.parametrize(("operator", "value", "context", "expected"), CONDITIONS)
def test_conditions(operator: str, value: Any, context: dict[str, Any], expected: bool) -> None:
    assert allowed(asked(context), statement(Condition={operator: {"K": value}})) is expected


def test_every_operator_and_every_key_of_a_condition_has_to_hold() -> None:
    block = {"StringEquals": {"a": "1", "b": "2"}, "Bool": {"c": "true"}}
    full = {"a": "1", "b": "2", "c": "true"}
    assert allowed(asked(full), statement(Condition=block))
    for name in full:
        assert not allowed(asked(full | {name: "x"}), statement(Condition=block))


USER, ROOT = {"AWS": ALICE.arn}, {"AWS": f"arn:aws:iam::{HERE}:root"}
BOB = Principal((f"arn:aws:iam::{THERE}:user/bob",), THERE)
SESSION = Principal((f"arn:aws:sts::{HERE}:assumed-role/r/f", f"arn:aws:iam::{HERE}:role/r"), HERE)
BUCKETS = Principal((), service="s3.amazonaws.com")
YES, NO = statement(), statement("Deny")


def of_resource(principal: Any, effect: str = "Allow", element: str = "Principal") -> dict[str, Any]:
    return statement(effect, "lambda:InvokeFunction", FUNCTION, **{element: principal})


# reference_policies_evaluation-logic.html, _evaluation-logic_policy-eval-basics.html ("within one account, an allow
# in either is enough"), _evaluation-logic-cross-account.html ("both"), reference_policies_elements_principal.html (an
# account delegates; `*` is everybody), reference_policies_elements_notprincipal.html
DECISIONS: list[tuple[str, Principal, list[dict[str, Any]], list[dict[str, Any]], Decision]] = [
    ("nothing", ALICE, [], [], Decision.NO_IDENTITY),
    ("identity", ALICE, [YES], [], Decision.ALLOWED),
    ("identity denies", ALICE, [YES, NO], [], Decision.DENIED_BY_IDENTITY),
    ("identity denies first", ALICE, [NO, YES], [], Decision.DENIED_BY_IDENTITY),
    ("resource", ALICE, [], [of_resource(USER)], Decision.ALLOWED),
    ("resource for everybody", ALICE, [], [of_resource("*")], Decision.ALLOWED),
    ("resource for every principal", ALICE, [], [of_resource({"AWS": "*"})], Decision.ALLOWED),
    ("resource for the account", ALICE, [], [of_resource(ROOT)], Decision.NO_IDENTITY),
    ("resource for the account, passed on", ALICE, [YES], [of_resource(ROOT)], Decision.ALLOWED),
    ("resource for another", ALICE, [], [of_resource({"AWS": ALICE.arn + "2"})], Decision.NO_IDENTITY),
    ("resource denies", ALICE, [YES], [of_resource("*"), of_resource(USER, "Deny")], Decision.DENIED_BY_RESOURCE),
    ("resource denies the account", ALICE, [YES], [of_resource(ROOT, "Deny")], Decision.DENIED_BY_RESOURCE),
    ("resource denies another", ALICE, [YES], [of_resource({"AWS": BOB.arn}, "Deny")], Decision.ALLOWED),
    ("all but", ALICE, [YES], [of_resource(USER, "Deny", "NotPrincipal")], Decision.DENIED_BY_RESOURCE),
    (
        "all but, with the account",
        ALICE,
        [YES],
        [of_resource({"AWS": [USER["AWS"], ROOT["AWS"]]}, "Deny", "NotPrincipal")],
        Decision.ALLOWED,
    ),
    ("identity denies what the resource allows", ALICE, [NO], [of_resource(USER)], Decision.DENIED_BY_IDENTITY),
    ("across: nothing", BOB, [], [], Decision.NO_IDENTITY),
    ("across: identity alone", BOB, [YES], [], Decision.NO_RESOURCE),
    ("across: resource alone", BOB, [], [of_resource({"AWS": BOB.arn})], Decision.NO_IDENTITY),
    ("across: both", BOB, [YES], [of_resource({"AWS": BOB.arn})], Decision.ALLOWED),
    ("across: the account", BOB, [YES], [of_resource({"AWS": THERE})], Decision.ALLOWED),
    ("across: everybody", BOB, [YES], [of_resource("*")], Decision.ALLOWED),
    ("across: everybody, alone", BOB, [], [of_resource("*")], Decision.NO_IDENTITY),
    ("session by its role", SESSION, [], [of_resource({"AWS": f"arn:aws:iam::{HERE}:role/r"})], Decision.ALLOWED),
    ("session by itself", SESSION, [], [of_resource({"AWS": SESSION.arn})], Decision.ALLOWED),
    (
        "session by another role",
        SESSION,
        [],
        [of_resource({"AWS": f"arn:aws:iam::{HERE}:role/q"})],
        Decision.NO_IDENTITY,
    ),
    ("service", BUCKETS, [], [of_resource({"Service": "s3.amazonaws.com"})], Decision.ALLOWED),
    ("another service", BUCKETS, [], [of_resource({"Service": "sns.amazonaws.com"})], Decision.NO_RESOURCE),
    ("service, AWS everybody", BUCKETS, [], [of_resource({"AWS": "*"})], Decision.NO_RESOURCE),
    ("service, everybody", BUCKETS, [], [of_resource("*")], Decision.ALLOWED),
]


@pytest.mark.parametrize(
    ("name", "principal", "identity", "resource", "expected"), DECISIONS, ids=lambda v: str(v)[:40]
)
def test_decisions(
    name: str,
    principal: Principal,
    identity: list[dict[str, Any]],
    resource: list[dict[str, Any]],
    expected: Decision,
) -> None:
    policies = [parse_identity(document(row)) for row in identity]
    policy = parse_resource(document(*resource)) if resource else ()
    assert decide(asked(principal=principal), policies, policy) is expected


# access_policies_boundaries.html: what identity policies and boundary both allow; a resource policy that names a user
# or a session itself is not limited by what the boundary does not say, one that names a session's role is.
WITHIN, BEYOND, NEVER = statement(), statement(action="s3:*"), statement("Deny")
BOUNDED: list[tuple[str, Principal, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any], Decision]] = [
    ("both", ALICE, [YES], [], WITHIN, Decision.ALLOWED),
    ("boundary alone", ALICE, [], [], WITHIN, Decision.NO_IDENTITY),
    ("identity alone", ALICE, [YES], [], BEYOND, Decision.NO_BOUNDARY),
    ("boundary denies", ALICE, [YES], [of_resource(USER)], NEVER, Decision.DENIED_BY_BOUNDARY),
    ("identity denies", ALICE, [YES, NO], [], WITHIN, Decision.DENIED_BY_IDENTITY),
    ("a user by name", ALICE, [], [of_resource(USER)], BEYOND, Decision.ALLOWED),
    ("everybody", ALICE, [], [of_resource("*")], BEYOND, Decision.NO_BOUNDARY),
    ("a session by name", SESSION, [], [of_resource({"AWS": SESSION.arn})], BEYOND, Decision.ALLOWED),
    ("a session by its role", SESSION, [], [of_resource({"AWS": SESSION.names[1]})], BEYOND, Decision.NO_BOUNDARY),
    ("a session by its role, within", SESSION, [], [of_resource({"AWS": SESSION.names[1]})], WITHIN, Decision.ALLOWED),
    ("across", BOB, [YES], [of_resource({"AWS": BOB.arn})], BEYOND, Decision.NO_BOUNDARY),
    ("across, within", BOB, [YES], [of_resource({"AWS": BOB.arn})], WITHIN, Decision.ALLOWED),
]


@pytest.mark.parametrize(
    ("name", "principal", "identity", "resource", "boundary", "expected"), BOUNDED, ids=lambda v: str(v)[:40]
)
def test_boundaries(
    name: str,
    principal: Principal,
    identity: list[dict[str, Any]],
    resource: list[dict[str, Any]],
    boundary: dict[str, Any],
    expected: Decision,
) -> None:
    policies = [parse_identity(document(row)) for row in identity]
    policy = parse_resource(document(*resource)) if resource else ()
    assert decide(asked(principal=principal), policies, policy, parse_identity(document(boundary))) is expected


def test_a_source_that_a_service_names_is_asked_for() -> None:
    # https://docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html
    row = of_resource({"Service": "s3.amazonaws.com"}) | {"Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}}}
    policy = parse_resource(document(row))
    for bucket, expected in (("b", Decision.ALLOWED), ("c", Decision.NO_RESOURCE)):
        request = asked({"aws:sourcearn": f"arn:aws:s3:::{bucket}"}, principal=BUCKETS)
        assert decide(request, [], policy) is expected


MALFORMED: list[tuple[Any, str]] = [
    ("{", "This policy contains invalid Json"),
    ("[]", "Syntax errors in policy."),
    ('{"Version": "2012-10-17"}', "Syntax errors in policy."),
    ('{"Statement": []}', "Syntax errors in policy."),
    ('{"Statement": [], "Statement": []}', "Duplicate keys in policy."),
    (document(YES, version="2013-10-17"), "The policy must contain a valid version string"),
    (document(YES | {"Effekt": "Allow"}), "Syntax errors in policy."),
    (document(YES | {"Effect": "allow"}), "Syntax errors in policy."),
    (document(YES | {"Principal": "*"}), "Policy document should not specify a principal."),
    (document(YES | {"NotAction": "*"}), "Policy statement must contain actions."),
    (document({"Effect": "Allow", "Action": "*"}), "Policy statement must contain resources."),
    (
        document(statement(action="Invoke")),
        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
    ),
    (document(statement(resource="hello")), 'Resource hello must be in ARN format or "*".'),
    (document(statement(Condition={"StringIs": {"a": "b"}})), "Invalid Condition type : StringIs"),
    (document(statement(Condition={"ForSome:StringLike": {"a": "b"}})), "Invalid Condition type : ForSome:StringLike"),
    (document(statement(Condition={"StringLike": {"a": "${a b}"}})), "${a b} is not a policy variable"),
    (document(statement(Condition={"StringLike": {"a": []}})), "Syntax errors in policy."),
    (document(YES | {"Sid": "a b"}), "Statement IDs (SID) must be alpha-numeric."),
    (document(YES | {"Sid": "a"}, NO | {"Sid": "a"}), "Statement IDs (SID) in a single policy must be unique."),
    (
        document(statement(resource="arn:a:b:c:d:${aws:username}"), version="2008-10-17"),
        "Policy variables need Version",
    ),
    ("[" * (IDENTITY_LIMIT - 1), "Syntax errors in policy."),
    (" " * (IDENTITY_LIMIT + 1), "Cannot exceed quota for PolicySize: 6144"),
]


@pytest.mark.parametrize(("text", "reason"), MALFORMED, ids=lambda v: str(v)[:40])
def test_malformed_documents(text: str, reason: str) -> None:
    with pytest.raises(MalformedPolicy) as caught:
        parse_identity(text)
    assert str(caught.value).startswith(reason)


def test_malformed_principals() -> None:
    wrongs: tuple[Any, ...] = ({}, [], {"Federated": "x"}, {"AWS": 1}, {"AWS": []})
    for wrong in wrongs:
        with pytest.raises(MalformedPolicy, match="Invalid principal in policy"):
            parse_resource(document(of_resource(wrong)))
    with pytest.raises(MalformedPolicy, match="must contain principals"):
        parse_resource(document(YES))
    with pytest.raises(MalformedPolicy, match="NotPrincipal"):
        parse_resource(document(of_resource("*", "Allow", "NotPrincipal")))


STATEMENTS = st.builds(
    lambda effect, action, resource, condition: statement(effect, action, resource, **condition),
    st.sampled_from(["Allow", "Deny"]),
    st.sampled_from(["*", "lambda:*", "lambda:InvokeFunction", "lambda:Get*", "s3:GetObject"]),
    st.sampled_from(["*", FUNCTION, FUNCTION + "*", FUNCTION + ":1", "arn:aws:s3:::*"]),
    st.sampled_from([{}, {"Condition": {"StringEquals": {"k": "a"}}}, {"Condition": {"StringNotLike": {"k": "a*"}}}]),
)
IDENTITIES = st.lists(STATEMENTS, max_size=6)
RESOURCES = st.lists(
    st.builds(
        lambda row, who: row | {"Principal": who}, STATEMENTS, st.sampled_from(["*", USER, ROOT, {"AWS": THERE}])
    ),
    max_size=4,
)
REQUESTS = st.builds(
    asked,
    st.sampled_from([{}, {"k": "a"}, {"k": "b"}]),
    st.sampled_from(["lambda:InvokeFunction", "lambda:GetFunction", "s3:GetObject"]),
    st.sampled_from([FUNCTION, FUNCTION + ":1", "arn:aws:s3:::x", "*"]),
    st.sampled_from([ALICE, BOB]),
)


def judged(request: Request, identity: list[dict[str, Any]], resource: list[dict[str, Any]]) -> Decision:
    policies = [parse_identity(document(row)) for row in identity]
    return decide(request, policies, parse_resource(document(*resource)) if resource else ())


@given(REQUESTS, IDENTITIES, RESOURCES, STATEMENTS, st.data())
def test_what_has_to_be_so_for_any_policies(
    request: Request,
    identity: list[dict[str, Any]],
    resource: list[dict[str, Any]],
    more: dict[str, Any],
    data: st.DataObject,
) -> None:
    now = judged(request, identity, resource)
    assert judged(request, data.draw(st.permutations(identity)), data.draw(st.permutations(resource))) is now
    one = [parse_identity(document(*identity))] if identity else []
    assert decide(request, one, parse_resource(document(*resource)) if resource else ()) is now
    then = judged(request, [*identity, more], resource)
    if more["Effect"] == "Deny":
        assert now is Decision.ALLOWED or then is not Decision.ALLOWED
    elif now is Decision.ALLOWED:
        assert then is Decision.ALLOWED
    assert judged(request, [*identity, statement("Deny", "*", "*")], resource) is Decision.DENIED_BY_IDENTITY
    if not any(row["Effect"] == "Allow" for row in [*identity, *resource]):
        assert now is not Decision.ALLOWED


@given(st.text(max_size=200) | st.recursive(st.text() | st.booleans(), st.lists).map(json.dumps))
def test_a_document_is_parsed_or_malformed(text: str) -> None:
    with pytest.raises(MalformedPolicy):
        parse_identity(text)
