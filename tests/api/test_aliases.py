"""Aliases: names for versions, their weights, and what AWS says where they cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Endpoint, package
from tests.api.test_lifecycle import error_of

ARN = "arn:aws:lambda:us-east-1:111111111111:function:"


@pytest.fixture
def versions(endpoint: Endpoint, client: Any) -> None:
    """hello with $LATEST, 1 and 2."""
    endpoint.create()
    client.publish_version(FunctionName="hello")
    client.update_function_code(FunctionName="hello", ZipFile=package("changed"))
    endpoint.settled("hello")
    client.publish_version(FunctionName="hello")


def alias(client: Any, name: str = "live", version: str = "1", **members: Any) -> dict[str, Any]:
    answer = client.create_alias(FunctionName="hello", Name=name, FunctionVersion=version, **members)
    assert answer.pop("ResponseMetadata")["HTTPStatusCode"] == 201
    return dict(answer)


@pytest.mark.usefixtures("versions")
def test_an_alias_is_a_name_for_a_version(client: Any) -> None:
    made = alias(client, Description="d")
    assert made.pop("RevisionId")
    assert made == {"AliasArn": f"{ARN}hello:live", "Name": "live", "FunctionVersion": "1", "Description": "d"}
    for name, members in (("hello", {"Qualifier": "live"}), ("hello:live", {}), (f"{ARN}hello:live", {})):
        shown = client.get_function_configuration(FunctionName=name, **members)
        assert (shown["FunctionArn"], shown["Version"]) == (f"{ARN}hello:live", "1")
        assert client.invoke(FunctionName=name, **members)["ExecutedVersion"] == "1"
    revision = client.get_alias(FunctionName="hello", Name="live")["RevisionId"]
    moved = client.update_alias(FunctionName="hello", Name="live", FunctionVersion="2", RevisionId=revision)
    assert (moved["FunctionVersion"], moved["Description"]) == ("2", "d") and moved["RevisionId"] != revision
    assert client.invoke(FunctionName="hello", Qualifier="live")["ExecutedVersion"] == "2"
    stale = error_of(client.update_alias, FunctionName="hello", Name="live", RevisionId=revision)
    assert stale[:2] == ("PreconditionFailedException", 412)
    in_use = error_of(client.delete_function, FunctionName="hello", Qualifier="2")
    assert in_use[:2] == ("ResourceConflictException", 409) and "[live]" in in_use[2]
    client.delete_alias(FunctionName="hello", Name="live")
    client.delete_alias(FunctionName="hello", Name="live")
    client.delete_function(FunctionName="hello", Qualifier="2")
    assert error_of(client.invoke, FunctionName="hello:live") == (
        "ResourceNotFoundException", 404, f"Function not found: {ARN}hello:live",
    )  # fmt: skip


@pytest.mark.usefixtures("versions")
def test_weights_are_held_by_every_hundred(client: Any) -> None:
    alias(client, RoutingConfig={"AdditionalVersionWeights": {"2": 0.07}})
    executed = Counter(client.invoke(FunctionName="hello:live")["ExecutedVersion"] for _ in range(300))
    assert executed == {"1": 279, "2": 21}
    client.update_alias(FunctionName="hello", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 1}})
    assert client.invoke(FunctionName="hello:live")["ExecutedVersion"] == "2"
    ended = client.update_alias(FunctionName="hello", Name="live", RoutingConfig={})
    assert "RoutingConfig" not in ended
    assert client.invoke(FunctionName="hello:live")["ExecutedVersion"] == "1"


def _bad(**members: Any) -> dict[str, Any]:
    return {"FunctionName": "hello", "Name": "new", "FunctionVersion": "1"} | members


def _weights(**weights: float) -> dict[str, Any]:
    return {"RoutingConfig": {"AdditionalVersionWeights": {key.strip("v"): value for key, value in weights.items()}}}


_RANGE = "Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0"


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("members", "code", "status", "text"),
    [
        (_bad(Name="live"), "ResourceConflictException", 409, f"Alias already exists: {ARN}hello:live"),
        (_bad(FunctionVersion="10"), "ResourceNotFoundException", 404, f"Function not found: {ARN}hello:10"),
        (_bad(FunctionName="no"), "ResourceNotFoundException", 404, f"Function not found: {ARN}no:1"),
        (_bad(**_weights(v10=0.5)), "ResourceNotFoundException", 404, f"Function not found: {ARN}hello:10"),
        (
            _bad(**_weights(v1=0.5)), "InvalidParameterValueException", 400,
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
        (
            _bad(**_weights(v1=0.5, v2=0.5)), "InvalidParameterValueException", 400,
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
        ),
        (
            _bad(FunctionVersion="$LATEST", **_weights(v2=0.5)), "InvalidParameterValueException", 400,
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ),
        (
            _bad(**_weights(v2=2)), "ValidationException", 400,
            "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to "
            f"satisfy constraint: Map value must satisfy constraint: [{_RANGE}, Member must not be null]",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_an_alias(client: Any, members: dict[str, Any], code: str, status: int, text: str) -> None:
    alias(client)
    assert error_of(client.create_alias, **members) == (code, status, text)
    assert [row["Name"] for row in client.list_aliases(FunctionName="hello")["Aliases"]] == ["live"]


def test_aliases_outlive_a_restart_and_end_with_their_function(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first.create(Publish=True)
    client = first.boto3()
    for number in range(7):
        alias(client, f"a{number}", "1" if number % 2 else "$LATEST")
    client.close()
    endpoint = make_endpoint()
    client = endpoint.boto3()
    pages = client.get_paginator("list_aliases").paginate(FunctionName="hello", PaginationConfig={"PageSize": 3})
    assert [row["Name"] for page in pages for row in page["Aliases"]] == [f"a{number}" for number in range(7)]
    of_one = client.list_aliases(FunctionName="hello", FunctionVersion="1")["Aliases"]
    assert [row["Name"] for row in of_one] == ["a1", "a3", "a5"]
    client.delete_function(FunctionName="hello")
    endpoint.create()
    assert client.list_aliases(FunctionName="hello")["Aliases"] == []
    missing = (("get_alias", "Cannot find alias arn: "), ("update_alias", "Alias not found: "))
    for call, words in missing:
        assert error_of(getattr(client, call), FunctionName="hello", Name="a1") == (
            "ResourceNotFoundException", 404, f"{words}{ARN}hello:a1",
        )  # fmt: skip
    client.close()


def test_publish_with_create_and_update(endpoint: Endpoint, client: Any) -> None:
    made = endpoint.create(Publish=True)
    assert (made["Version"], made["State"], made["FunctionArn"]) == ("1", "Pending", f"{ARN}hello")
    shown = client.get_function_configuration(FunctionName="hello:1")
    assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "Successful")
    assert client.publish_version(FunctionName="hello")["Version"] == "1"
    updated = client.update_function_code(FunctionName="hello", ZipFile=package("changed"), Publish=True)
    assert (updated["Version"], updated["FunctionArn"]) == ("2", f"{ARN}hello:2")
    latest = endpoint.settled("hello")
    assert client.get_function_configuration(FunctionName="hello:2")["CodeSha256"] == latest["CodeSha256"]
    client.update_function_configuration(FunctionName="hello", Description=latest["Description"])
    endpoint.settled("hello")
    assert client.publish_version(FunctionName="hello")["Version"] == "2"  # an update that changed nothing
    assert endpoint.scheduler.retired == ["hello:$LATEST"] * 2
