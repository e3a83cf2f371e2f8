"""Tags: put, replaced, removed and shown, by the ARN of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

ARN = "arn:aws:lambda:us-east-1:111111111111:function:hello"


def tags(client: Any) -> dict[str, str]:
    shown = dict(client.list_tags(Resource=ARN)["Tags"])
    assert client.get_function(FunctionName="hello").get("Tags", {}) == shown
    return shown


def test_tags_come_and_go(endpoint: Endpoint, client: Any) -> None:
    revision = endpoint.create(Tags={"made": "at creation"})["RevisionId"]
    revision = endpoint.settled("hello")["RevisionId"]
    assert tags(client) == {"made": "at creation"}
    client.tag_resource(Resource=ARN, Tags={"A": "a", "B": "b", "grün": "ja +-=._:/@"})
    client.tag_resource(Resource=ARN, Tags={"B": "other", "made": ""})
    assert tags(client) == {"made": "", "A": "a", "B": "other", "grün": "ja +-=._:/@"}
    client.untag_resource(Resource=ARN, TagKeys=["A", "grün", "none of it"])
    client.untag_resource(Resource=ARN, TagKeys=["made"])
    assert tags(client) == {"B": "other"}
    client.untag_resource(Resource=ARN, TagKeys=["B"])
    assert tags(client) == {}
    assert endpoint.settled("hello")["RevisionId"] == revision


def test_what_cannot_be_a_tag(endpoint: Endpoint, client: Any) -> None:
    endpoint.create(Tags={str(number): "" for number in range(50)})
    one_too_many = ("InvalidParameterValueException", 400, "Number of tags exceeds resource tag limit.")
    assert error_of(client.tag_resource, Resource=ARN, Tags={"51": ""}) == one_too_many
    client.tag_resource(Resource=ARN, Tags={"49": "another value"})
    client.untag_resource(Resource=ARN, TagKeys=["0"])
    reserved = error_of(client.tag_resource, Resource=ARN, Tags={"AWS:x": ""})
    assert reserved[2] == "aws: prefixed tag key names are not allowed for external use."
    assert error_of(client.tag_resource, Resource=ARN, Tags={"x" * 129: ""})[0] == "ValidationException"
    assert error_of(client.tag_resource, Resource=ARN, Tags={"x": "y" * 257})[0] == "ValidationException"
    create = {"FunctionName": "other", "Runtime": "python3.12", "Handler": "h.h", "Code": {"ZipFile": b"zip"}}
    create |= {"Role": "arn:aws:iam::111111111111:role/r", "Tags": {str(number): "" for number in range(51)}}
    assert error_of(client.create_function, **create) == one_too_many


def test_what_has_no_tags(endpoint: Endpoint, client: Any) -> None:
    nobody = ("ResourceNotFoundException", 404, f"Function not found: {ARN}")
    calls = (
        (client.tag_resource, {"Tags": {"A": "B"}}),
        (client.untag_resource, {"TagKeys": ["A"]}),
        (client.list_tags, {}),
    )
    qualified = "Tags on function aliases and versions are not supported. Please specify a function ARN."
    for call, members in calls:
        assert error_of(call, Resource=ARN, **members) == nobody
        assert error_of(call, Resource=f"{ARN}:1", **members) == ("InvalidParameterValueException", 400, qualified)
        assert error_of(call, Resource=ARN.replace("function", "foobar"), **members)[0] == "ValidationException"
        elsewhere = error_of(call, Resource=ARN.replace("us-east-1", "eu-west-1"), **members)
        assert elsewhere[2].startswith("Functions from 'eu-west-1' are not reachable")
        mapping = ARN.replace("function:hello", "event-source-mapping:12345678-1234-1234-1234-123456789012")
        assert error_of(call, Resource=mapping, **members)[:2] == ("ResourceNotFoundException", 404)
        signing = ARN.replace("function:hello", "code-signing-config:csc-01234567890123456")
        assert error_of(call, Resource=signing, **members)[:2] == ("ResourceNotFoundException", 404)


def test_tags_outlive_a_restart_and_not_their_function(make_endpoint: Callable[..., Endpoint]) -> None:
    make_endpoint().create(Tags={"A": "a"})
    again = make_endpoint()
    client = again.boto3()
    assert tags(client) == {"A": "a"}
    client.delete_function(FunctionName="hello")
    again.create()
    assert tags(client) == {}
    client.close()
