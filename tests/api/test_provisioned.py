"""Provisioned concurrency: kept, told to the scheduler, and what AWS says where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.scheduler.provisioned import Standing
from tests.api.conftest import Endpoint, package
from tests.api.test_concurrency import ARN, plain, unreserved
from tests.api.test_lifecycle import error_of

NO_ALIAS = ("ResourceNotFoundException", 404)
INVALID = ("InvalidParameterValueException", 400)
CONFLICT = ("ResourceConflictException", 409)
LATEST_ONLY = "The function resource provided must be an alias or a published version."


@pytest.fixture
def versions(endpoint: Endpoint, client: Any) -> None:
    """hello with versions 1 and 2, and the alias live of 1."""
    endpoint.create(Publish=True)
    client.update_function_code(FunctionName="hello", ZipFile=package("changed"), Publish=True)
    endpoint.settled("hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")


def put(client: Any, qualifier: str, number: int, name: str = "hello") -> dict[str, Any]:
    answer: dict[str, Any] = client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
    )
    return answer


def refused(client: Any, qualifier: str, number: int = 1, name: str = "hello") -> tuple[str, int, str]:
    wanted = {"FunctionName": name, "Qualifier": qualifier, "ProvisionedConcurrentExecutions": number}
    return error_of(client.put_provisioned_concurrency_config, **wanted)


def get(client: Any, qualifier: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get_provisioned_concurrency_config(FunctionName="hello", Qualifier=qualifier)
    return plain(answer)[1]


def numbers(answer: dict[str, Any]) -> tuple[int, int, int, str]:
    """Requested, allocated, available, and the status."""
    kinds = ("Requested", "Allocated", "Available")
    requested, allocated, available = (answer[f"{kind}ProvisionedConcurrentExecutions"] for kind in kinds)
    return requested, allocated, available, answer["Status"]


@pytest.mark.usefixtures("versions")
def test_a_version_s_environments_ahead(endpoint: Endpoint, client: Any) -> None:
    status, made = plain(put(client, "1", 3))
    assert (status, made.pop("LastModified")[-5:]) == (202, "+0000")
    assert made == {
        "RequestedProvisionedConcurrentExecutions": 3,
        "AvailableProvisionedConcurrentExecutions": 0,
        "AllocatedProvisionedConcurrentExecutions": 0,
        "Status": "IN_PROGRESS",
    }
    assert endpoint.scheduler.provisioned == {"hello": {"1": 3}}
    assert unreserved(client) == 997
    assert numbers(get(client, "1")) == (3, 0, 0, "IN_PROGRESS")
    endpoint.scheduler.standings["1"] = Standing(2, 1, failing=True)
    failed = get(client, "1")
    assert (numbers(failed), failed["StatusReason"]) == ((3, 2, 1, "FAILED"), "FUNCTION_ERROR_INIT_FAILURE")
    endpoint.scheduler.standings["1"] = Standing(3, 2)
    assert numbers(get(client, "1")) == (3, 3, 2, "READY")
    for _ in range(2):
        gone = client.delete_provisioned_concurrency_config(FunctionName="hello", Qualifier="1")
        assert plain(gone) == (204, {})
    assert (endpoint.scheduler.provisioned, unreserved(client)) == ({}, 1000)
    missing = error_of(client.get_provisioned_concurrency_config, FunctionName="hello", Qualifier="1")
    assert missing == (
        "ProvisionedConcurrencyConfigNotFoundException",
        404,
        "No Provisioned Concurrency Config found for this function",
    )


@pytest.mark.usefixtures("versions")
def test_an_alias_takes_it_along(endpoint: Endpoint, client: Any) -> None:
    put(client, "live", 4)
    assert endpoint.scheduler.provisioned == {"hello": {"1": 4}}
    client.update_alias(FunctionName="hello", Name="live", FunctionVersion="2")
    assert endpoint.scheduler.provisioned == {"hello": {"2": 4}}
    weights = {"AdditionalVersionWeights": {"1": 0.25}}
    client.update_alias(FunctionName="hello", Name="live", RoutingConfig=weights)
    assert endpoint.scheduler.provisioned == {"hello": {"1": 1, "2": 3}}
    endpoint.scheduler.standings |= {"1": Standing(4, 4), "2": Standing(3, 3)}
    assert numbers(get(client, "live")) == (4, 4, 4, "READY")
    weighted = "Alias with weights can not be used with Provisioned Concurrency"
    assert refused(client, "live") == (*INVALID, weighted)
    client.update_alias(FunctionName="hello", Name="live", RoutingConfig={}, FunctionVersion="$LATEST")
    assert (endpoint.scheduler.provisioned, numbers(get(client, "live"))) == ({}, (4, 0, 0, "FAILED"))
    client.update_alias(FunctionName="hello", Name="live", FunctionVersion="2")
    client.delete_alias(FunctionName="hello", Name="live")
    assert (endpoint.scheduler.provisioned, unreserved(client)) == ({}, 1000)


@pytest.mark.usefixtures("versions")
def test_a_permission_makes_them_anew_and_a_deletion_ends_them(endpoint: Endpoint, client: Any) -> None:
    put(client, "2", 1)
    endpoint.scheduler.provisioned.clear()
    assert endpoint.unix("PUT", "/sandboxd/v1/functions/hello/policy", {"AllowInvoke": True})[0] == 200
    assert endpoint.scheduler.provisioned == {"hello": {"2": 1}}
    client.delete_function(FunctionName="hello", Qualifier="2")
    assert endpoint.scheduler.provisioned == {}


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("name", "qualifier", "expected"),
    [
        ("none", "noalias", (*NO_ALIAS, f"Cannot find alias arn: {ARN}none:noalias")),
        ("none", "1", (*NO_ALIAS, f"Function not found: {ARN}none:1")),
        ("hello", "noalias", (*NO_ALIAS, f"Cannot find alias arn: {ARN}hello:noalias")),
        ("hello", "10", (*NO_ALIAS, f"Function not found: {ARN}hello:10")),
        ("hello", "$LATEST", (*INVALID, LATEST_ONLY)),
    ],
)
def test_what_there_is_not(client: Any, name: str, qualifier: str, expected: tuple[str, int, str]) -> None:
    for call in (client.get_provisioned_concurrency_config, client.delete_provisioned_concurrency_config):
        assert error_of(call, FunctionName=name, Qualifier=qualifier) == expected
    if qualifier == "$LATEST":
        text = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        expected = (*INVALID, text)
    assert refused(client, qualifier, name=name) == expected


@pytest.mark.usefixtures("versions")
def test_one_or_the_other(client: Any) -> None:
    put(client, "1", 1)
    text = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    assert refused(client, "live") == (*CONFLICT, text)
    client.delete_provisioned_concurrency_config(FunctionName="hello", Qualifier="1")
    put(client, "live", 1)
    assert refused(client, "1") == (*CONFLICT, "Version is pointed by a Provisioned Concurrency alias")
    client.create_alias(FunctionName="hello", Name="latest", FunctionVersion="$LATEST")
    unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    assert refused(client, "latest") == (*INVALID, unpublished)


@pytest.mark.usefixtures("versions")
def test_it_is_part_of_what_there_is(endpoint: Endpoint, client: Any) -> None:
    reserve = client.put_function_concurrency
    reserve(FunctionName="hello", ReservedConcurrentExecutions=5)
    put(client, "1", 3)
    assert unreserved(client) == 995
    too_many = (
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    assert refused(client, "2", 3) == (*INVALID, too_many)
    put(client, "2", 2)
    assert endpoint.scheduler.provisioned == {"hello": {"1": 3, "2": 2}}
    lower = error_of(reserve, FunctionName="hello", ReservedConcurrentExecutions=4)
    words = " ReservedConcurrentExecutions  4 should not be lower than function's total provisioned concurrency [5]."
    assert lower == (*INVALID, words)
    client.delete_function_concurrency(FunctionName="hello")
    assert unreserved(client) == 995
    below = (
        "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
        "minimum value of [100]."
    )
    assert refused(client, "2", 898) == (*INVALID, below)
    put(client, "2", 897)
    beyond = "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."
    assert refused(client, "2", 1001) == (*INVALID, beyond)


def test_it_outlives_a_restart_in_pages(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first.create(Publish=True)
    client = first.boto3()
    for number in range(7):
        client.create_alias(FunctionName="hello", Name=f"a{number}", FunctionVersion="1")
        put(client, f"a{number}", number + 1)
    client.close()
    endpoint = make_endpoint()
    assert endpoint.scheduler.provisioned == {"hello": {"1": 28}}
    endpoint.scheduler.standings["1"] = Standing(5, 5)
    client = endpoint.boto3()
    paginator = client.get_paginator("list_provisioned_concurrency_configs")
    pages = list(paginator.paginate(FunctionName="hello", PaginationConfig={"PageSize": 3}))
    rows = [row for page in pages for row in page["ProvisionedConcurrencyConfigs"]]
    assert [row["FunctionArn"] for row in rows] == [f"{ARN}hello:a{number}" for number in range(7)]
    assert [row["AllocatedProvisionedConcurrentExecutions"] for row in rows] == [1, 2, 2, 0, 0, 0, 0]
    assert [row["Status"] for row in rows[:3]] == ["READY", "READY", "IN_PROGRESS"]
    client.delete_function(FunctionName="hello")
    assert (endpoint.scheduler.provisioned, unreserved(client)) == ({}, 1000)
    missing = error_of(client.list_provisioned_concurrency_configs, FunctionName="hello")
    assert missing == (*NO_ALIAS, f"Function not found: {ARN}hello")
    client.close()
