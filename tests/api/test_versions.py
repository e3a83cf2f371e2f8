"""Published versions: made once, never changed, invoked by number, kept over a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.api.conftest import Endpoint, package
from tests.api.test_lifecycle import error_of, eventually


def test_a_version_stays_as_it_was(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    one = client.publish_version(FunctionName="hello", Description="first")
    assert (one["Version"], one["Description"], one["State"]) == ("1", "first", "Active")
    assert one["FunctionArn"].endswith(":function:hello:1")
    again = client.publish_version(FunctionName="hello")
    assert (again["Version"], again["RevisionId"]) == ("1", one["RevisionId"])
    client.update_function_code(FunctionName="hello", ZipFile=package("changed"))
    endpoint.settled("hello")
    assert client.publish_version(FunctionName="hello")["Version"] == "2"
    for name, members in (("hello", {"Qualifier": "1"}), ("hello:1", {}), (one["FunctionArn"], {"Qualifier": "1"})):
        assert client.get_function_configuration(FunctionName=name, **members)["CodeSha256"] == one["CodeSha256"]
        assert client.invoke(FunctionName=name, **members)["ExecutedVersion"] == "1"
    assert client.invoke(FunctionName="hello")["ExecutedVersion"] == "$LATEST"
    assert len({invocation.function.key for invocation in endpoint.scheduler.invocations}) == 2
    assert len(list(endpoint.config.code_dir.iterdir())) == 2


def test_a_permission_that_is_taken_away_is_taken_from_every_version(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    policy = "/sandboxd/v1/functions/hello/policy"
    assert endpoint.unix("PUT", policy, {"AllowInvoke": True})[0] == 200
    client.publish_version(FunctionName="hello")
    client.invoke(FunctionName="hello:1")
    assert endpoint.unix("PUT", policy, {"AllowInvoke": False})[0] == 200
    client.invoke(FunctionName="hello:1")
    before, after = (invocation.function for invocation in endpoint.scheduler.invocations)
    assert (before.policy.invoke, after.policy.invoke) == (True, False)
    assert before.key != after.key


def test_preconditions(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    current = client.get_function_configuration(FunctionName="hello")
    sha = error_of(client.publish_version, FunctionName="hello", CodeSha256="other")
    assert sha == (
        "InvalidParameterValueException",
        400,
        f"CodeSHA256 (other) is different from current CodeSHA256 in $LATEST ({current['CodeSha256']}). "
        "Please try again with the CodeSHA256 in $LATEST.",
    )
    assert error_of(client.publish_version, FunctionName="hello", RevisionId="no")[0] == "PreconditionFailedException"
    right = {"RevisionId": current["RevisionId"], "CodeSha256": current["CodeSha256"]}
    assert client.publish_version(FunctionName="hello", **right)["Version"] == "1"


def test_publishing_renews_the_revision_and_no_environment(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()

    def revision(**qualifier: str) -> str:
        return str(client.get_function_configuration(FunctionName="hello", **qualifier)["RevisionId"])

    client.invoke(FunctionName="hello")
    unpublished = revision()
    published = client.publish_version(FunctionName="hello")["RevisionId"]
    assert revision(Qualifier="1") == published
    assert len({unpublished, published, revision()}) == 3
    latest = revision()
    assert client.publish_version(FunctionName="hello", RevisionId=latest)["RevisionId"] == published
    assert revision() == latest
    client.invoke(FunctionName="hello")
    assert len({invocation.function.key for invocation in endpoint.scheduler.invocations}) == 1
    stale = error_of(client.update_function_configuration, FunctionName="hello", Timeout=9, RevisionId=unpublished)
    assert stale[0] == "PreconditionFailedException"
    client.update_function_configuration(FunctionName="hello", Timeout=9, RevisionId=latest)


def test_deleted_numbers_are_not_given_again(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first.create()
    client = first.boto3()
    for number in range(1, 13):
        client.update_function_configuration(FunctionName="hello", Description=str(number))
        first.settled("hello")
        assert client.publish_version(FunctionName="hello")["Version"] == str(number)
    client.delete_function(FunctionName="hello", Qualifier="12")
    client.delete_function(FunctionName="hello", Qualifier="99")
    client.close()
    endpoint = make_endpoint()
    client = endpoint.boto3()
    assert client.publish_version(FunctionName="hello")["Version"] == "13"
    pages = list(
        client.get_paginator("list_versions_by_function").paginate(
            FunctionName="hello", PaginationConfig={"PageSize": 5}
        )
    )
    listed = [version["Version"] for page in pages for version in page["Versions"]]
    assert listed == ["$LATEST", *map(str, range(1, 12)), "13"]
    assert len(client.list_functions(FunctionVersion="ALL")["Functions"]) == 13
    assert len(client.list_functions()["Functions"]) == 1
    assert error_of(client.invoke, FunctionName="hello", Qualifier="12")[0] == "ResourceNotFoundException"
    client.delete_function(FunctionName="hello")
    eventually(lambda: not list(endpoint.config.code_dir.iterdir()))
    assert error_of(client.list_versions_by_function, FunctionName="hello")[0] == "ResourceNotFoundException"
    client.close()
