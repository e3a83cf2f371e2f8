"""Resource-based policies: statements added, shown and removed, of functions, versions and aliases."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

ARN = "arn:aws:lambda:us-east-1:111111111111:function:"
INVALID = "The provided principal was invalid. Please check the principal and try again."
NOT_FOUND = ("ResourceNotFoundException", 404)


@pytest.fixture
def hello(endpoint: Endpoint, client: Any) -> None:
    """hello with $LATEST, version 1 and the alias live."""
    endpoint.create()
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")


def members(sid: str = "s3", **more: Any) -> dict[str, Any]:
    standing = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "FunctionName": "hello"}
    return {"StatementId": sid, **standing, **more}


def added(client: Any, sid: str = "s3", **more: Any) -> dict[str, Any]:
    return dict(json.loads(client.add_permission(**members(sid, **more))["Statement"]))


def policy(client: Any, name: str = "hello") -> tuple[list[dict[str, Any]], str]:
    answer = client.get_policy(FunctionName=name)
    document = json.loads(answer["Policy"])
    assert {key: document.pop(key) for key in ("Version", "Id")} == {"Version": "2012-10-17", "Id": "default"}
    return document["Statement"], answer["RevisionId"]


@pytest.mark.parametrize(
    ("asked", "principal", "condition"),
    [
        ({}, {"Service": "s3.amazonaws.com"}, None),
        ({"Principal": "111111111111"}, {"AWS": "arn:aws:iam::111111111111:root"}, None),
        ({"Principal": "arn:aws:iam::2" + "2" * 11 + ":root"}, {"AWS": "arn:aws:iam::222222222222:root"}, None),
        ({"Principal": "arn:aws:iam::111111111111:role/a/b"}, {"AWS": "arn:aws:iam::111111111111:role/a/b"}, None),
        ({"Principal": "*"}, "*", None),
        (
            {"SourceArn": "arn:aws:s3:::b"},
            {"Service": "s3.amazonaws.com"},
            {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}},
        ),
        (
            {
                "Principal": "*",
                "SourceAccount": "111111111111",
                "PrincipalOrgID": "o-1234567890",
                "EventSourceToken": "t",
            },
            "*",
            {
                "StringEquals": {
                    "AWS:SourceAccount": "111111111111",
                    "aws:PrincipalOrgID": "o-1234567890",
                    "lambda:EventSourceToken": "t",
                }
            },
        ),
        (
            {"Principal": "*", "InvokedViaFunctionUrl": True},
            "*",
            {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
        ),
        (
            {"Principal": "*", "Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
            "*",
            {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
        ),
    ],
)
@pytest.mark.usefixtures("hello")
def test_statements(client: Any, asked: dict[str, Any], principal: Any, condition: Any) -> None:
    statement = added(client, **asked)
    expected = {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": principal,
        "Action": asked.get("Action", "lambda:InvokeFunction"),
        "Resource": ARN + "hello",
    }
    assert statement == expected | ({"Condition": condition} if condition else {})
    assert policy(client)[0] == [statement]


@pytest.mark.usefixtures("hello")
def test_function_version_and_alias_have_a_policy_each(client: Any) -> None:
    for name, more in (("hello", {}), ("hello:1", {"Qualifier": "1"}), ("hello:live", {"FunctionName": "hello:live"})):
        assert added(client, **more)["Resource"] == ARN + name
        assert [statement["Resource"] for statement in policy(client, name)[0]] == [ARN + name]
    client.remove_permission(FunctionName="hello", Qualifier="live", StatementId="s3")
    assert error_of(client.get_policy, FunctionName="hello:live")[:2] == NOT_FOUND
    assert len(policy(client, "hello:1")[0]) == 1


@pytest.mark.usefixtures("hello")
def test_a_policy_renews_the_revision_and_no_environment(endpoint: Endpoint, client: Any) -> None:
    client.invoke(FunctionName="hello")

    def revisions() -> list[str]:
        return [
            client.get_function_configuration(FunctionName="hello")["RevisionId"],
            client.get_function_configuration(FunctionName="hello:1")["RevisionId"],
            client.get_alias(FunctionName="hello", Name="live")["RevisionId"],
        ]

    for index, qualifier in enumerate(("", "1", "live")):
        more = {"Qualifier": qualifier} if qualifier else {}
        name = f"hello:{qualifier}" if qualifier else "hello"
        before = revisions()
        stale = error_of(client.add_permission, **members(**more, RevisionId="stale"))
        assert stale[:2] == ("PreconditionFailedException", 412)
        added(client, **more, RevisionId=before[index])
        after = revisions()
        assert [old == new for old, new in zip(before, after, strict=True)] == [i != index for i in range(3)]
        assert policy(client, name)[1] == after[index]
        remove = {"FunctionName": name, "StatementId": "s3"}
        assert error_of(client.remove_permission, **remove, RevisionId=before[index])[:2] == stale[:2]
        client.remove_permission(**remove, RevisionId=after[index])
        assert revisions()[index] not in (before[index], after[index])
    client.update_alias(FunctionName="hello", Name="live", Description="d", RevisionId=revisions()[2])
    client.update_function_configuration(FunctionName="hello", Timeout=9, RevisionId=revisions()[0])
    endpoint.settled("hello")
    assert len(endpoint.scheduler.retired) == 1  # by the update, none by a policy


@pytest.mark.usefixtures("hello")
def test_what_aws_refuses(client: Any) -> None:
    added(client)
    taken = (
        "The statement id (s3) provided already exists. Please provide a new statement id, or remove the existing "
        "statement."
    )
    invalid = "InvalidParameterValueException", 400
    add: list[tuple[dict[str, Any], tuple[str, int, str]]] = [
        ({}, ("ResourceConflictException", 409, taken)),
        ({"FunctionName": "none"}, (*NOT_FOUND, f"Function not found: {ARN}none")),
        ({"Qualifier": "$LATEST"}, (*invalid, "We currently do not support adding policies for $LATEST.")),
        ({"Qualifier": "none"}, (*NOT_FOUND, f"Cannot find alias arn: {ARN}hello:none")),
        ({"Qualifier": "42"}, (*NOT_FOUND, f"Function not found: {ARN}hello:42")),
        ({"Qualifier": "with-$-x"}, (*NOT_FOUND, f"Function not found: {ARN}hello:with-$-x")),
        ({"Principal": "s3"}, (*invalid, INVALID)),
        ({"Principal": "arn:aws:iam::111111111111:user/"}, (*invalid, INVALID)),
        (
            {"FunctionUrlAuthType": "NONE"},
            (*invalid, "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"),
        ),
        ({"StatementId": "b", "SourceArn": "arn:aws:s3:::${}"}, (*invalid, "${} is not a policy variable")),
    ]
    for more, expected in add:
        assert error_of(client.add_permission, **members() | more) == expected
    assert error_of(client.add_permission, **members("example.com"))[0] == "ValidationException"
    missing = (*NOT_FOUND, "The resource you requested does not exist.")
    for name in ("none", "hello:none", "hello:1", "hello:42"):
        assert error_of(client.get_policy, FunctionName=name) == missing
    for name, text in (
        ("none", f"No policy found for: {ARN}none"),
        ("hello:none", f"Cannot find alias arn: {ARN}hello:none"),
        ("hello:1", "No policy is associated with the given resource."),
        ("hello", "Statement other is not found in resource policy."),
    ):
        assert error_of(client.remove_permission, FunctionName=name, StatementId="other") == (*NOT_FOUND, text)


@pytest.mark.usefixtures("hello")
def test_a_policy_is_no_longer_than_aws_lets_it_be(client: Any) -> None:
    for number in range(10):
        added(client, f"s{number}", SourceArn="arn:aws:s3:::" + "b" * 1800)
    code, status, text = error_of(client.add_permission, **members("last", SourceArn="arn:aws:s3:::" + "b" * 1800))
    assert (code, status) == ("PolicyLengthExceededException", 400)
    assert text.startswith("The final policy size (2") and text.endswith(") is bigger than the limit (20480).")
    assert len(policy(client)[0]) == 10


def test_policies_survive_a_restart_and_end_with_what_they_belong_to(make_endpoint: Callable[..., Endpoint]) -> None:
    def start() -> tuple[Endpoint, Any]:
        endpoint = make_endpoint()
        return endpoint, endpoint.boto3()

    endpoint, client = start()
    endpoint.create()
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    names = ("hello", "hello:1", "hello:live")
    for name in names:
        added(client, FunctionName=name)
    before = [policy(client, name) for name in names]
    endpoint, client = start()
    assert [policy(client, name) for name in names] == before
    client.delete_alias(FunctionName="hello", Name="live")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    assert error_of(client.get_policy, FunctionName="hello:live")[:2] == NOT_FOUND
    client.delete_function(FunctionName="hello")
    endpoint.create()
    client.publish_version(FunctionName="hello")
    for name in names[:2]:
        assert error_of(client.get_policy, FunctionName=name)[:2] == NOT_FOUND
