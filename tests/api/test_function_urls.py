"""The configuration of functions' URLs: what boto3 is told, in AWS's words, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.api.function_urls import Addresses
from sandboxd.config import Config, load
from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

ARN = "arn:aws:lambda:us-east-1:111111111111:function:hello"
GONE = ("ResourceNotFoundException", 404, "The resource you requested does not exist.")
NO_FUNCTION = ("ResourceNotFoundException", 404, "Function does not exist")
CORS = {
    "AllowCredentials": True,
    "AllowHeaders": ["content-type"],
    "AllowMethods": ["GET", "POST"],
    "AllowOrigins": ["https://example.com"],
    "ExposeHeaders": ["x-custom"],
    "MaxAge": 300,
}


@pytest.fixture
def hello(endpoint: Endpoint) -> Endpoint:
    """The endpoint with a function that has the version 1 and the alias live."""
    endpoint.create()
    client = endpoint.boto3()
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    client.close()
    return endpoint


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_life_of_a_url(hello: Endpoint, client: Any) -> None:
    made = client.create_function_url_config(FunctionName="hello", AuthType="NONE")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    made = plain(made)
    assert made.keys() == {"FunctionUrl", "FunctionArn", "AuthType", "CreationTime"}
    assert (made["FunctionArn"], made["AuthType"]) == (ARN, "NONE")
    port = hello.config.api_listen[1]
    assert re.fullmatch(rf"http://[a-z0-9]{{32}}\.lambda-url\.us-east-1\.localhost:{port}/", made["FunctionUrl"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made["CreationTime"])
    found = plain(client.get_function_url_config(FunctionName=ARN))
    assert found == made | {"InvokeMode": "BUFFERED", "LastModifiedTime": made["CreationTime"]}
    updated = client.update_function_url_config(FunctionName="hello", AuthType="AWS_IAM", Cors=CORS)
    assert plain(updated) == found | {
        "AuthType": "AWS_IAM",
        "Cors": CORS,
        "LastModifiedTime": updated["LastModifiedTime"],
    }
    assert updated["LastModifiedTime"] > made["CreationTime"]
    streamed = plain(client.update_function_url_config(FunctionName="hello", InvokeMode="RESPONSE_STREAM", Cors={}))
    assert "Cors" not in streamed and (streamed["InvokeMode"], streamed["AuthType"]) == ("RESPONSE_STREAM", "AWS_IAM")
    kept = plain(client.update_function_url_config(FunctionName="hello"))
    assert kept == streamed | {"LastModifiedTime": kept["LastModifiedTime"]}
    assert client.delete_function_url_config(FunctionName="hello")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert error_of(client.get_function_url_config, FunctionName="hello") == GONE
    again = client.create_function_url_config(FunctionName="hello", AuthType="NONE", InvokeMode="BUFFERED", Cors=CORS)
    assert again["FunctionUrl"] != made["FunctionUrl"]
    assert (again["InvokeMode"], again["Cors"]) == ("BUFFERED", CORS)


def test_a_function_and_its_aliases_have_one_each(hello: Endpoint, client: Any) -> None:
    assert client.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"] == []
    urls = [
        client.create_function_url_config(FunctionName=name, AuthType="NONE", **qualifier)["FunctionUrl"]
        for name, qualifier in (("hello", {}), ("hello", {"Qualifier": "live"}))
    ]
    assert len(set(urls)) == 2
    for name, arn in (("hello", ARN), (f"{ARN}:live", f"{ARN}:live")):
        assert error_of(client.create_function_url_config, FunctionName=name, AuthType="NONE") == (
            "ResourceConflictException",
            409,
            f"Failed to create function url config for [functionArn = {arn}]. Error message:  FunctionUrlConfig exists "
            "for this Lambda function",
        )
    first = client.list_function_url_configs(FunctionName="hello", MaxItems=1)
    assert [row["FunctionArn"] for row in first["FunctionUrlConfigs"]] == [ARN]
    pages = client.get_paginator("list_function_url_configs").paginate(
        FunctionName="hello", PaginationConfig={"PageSize": 1}
    )
    rows = [row for page in pages for row in page["FunctionUrlConfigs"]]
    assert [(row["FunctionArn"], row["InvokeMode"], row["FunctionUrl"]) for row in rows] == [
        (ARN, "BUFFERED", urls[0]),
        (f"{ARN}:live", "BUFFERED", urls[1]),
    ]
    client.delete_alias(FunctionName="hello", Name="live")
    assert error_of(client.get_function_url_config, FunctionName="hello", Qualifier="live") == GONE
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    assert error_of(client.get_function_url_config, FunctionName="hello", Qualifier="live") == GONE
    client.delete_function(FunctionName="hello")
    hello.create()
    assert client.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"] == []


def test_what_is_not_there(hello: Endpoint, client: Any) -> None:
    pattern = r"((?!^\d+$)^[0-9a-zA-Z-_]+$)"
    create = {"AuthType": "NONE"}
    operations: dict[str, tuple[dict[str, str], Any]] = {
        "create_function_url_config": (create, NO_FUNCTION),
        "get_function_url_config": ({}, GONE),
        "delete_function_url_config": ({}, GONE),
        "update_function_url_config": ({}, NO_FUNCTION),
    }
    for name, (members, missing) in operations.items():
        call = getattr(client, name)
        for unknown in ({"FunctionName": "none"}, {"FunctionName": "hello", "Qualifier": "none"}):
            assert error_of(call, **unknown, **members) == missing, name
        for qualifier in ("1", "2", "$LATEST"):
            refused = (
                "ValidationException",
                400,
                f"1 validation error detected: Value '{qualifier}' at 'qualifier' failed to satisfy constraint: "
                f"Member must satisfy regular expression pattern: {pattern}",
            )
            assert error_of(call, FunctionName="hello", Qualifier=qualifier, **members) == refused, name
            assert error_of(call, FunctionName=f"{ARN}:{qualifier}", **members)[:2] == refused[:2], name
        assert error_of(call, FunctionName=f"{ARN}:live", Qualifier="other", **members) == (
            "InvalidParameterValueException",
            400,
            "The derived qualifier from the function name does not match the specified qualifier.",
        )
    assert error_of(client.update_function_url_config, FunctionName="hello", Qualifier="live") == GONE
    assert error_of(client.list_function_url_configs, FunctionName="none") == NO_FUNCTION


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"AuthType": "OAUTH"}, "Value 'OAUTH' at 'authType' failed to satisfy constraint: Member must satisfy enum"),
        ({"InvokeMode": "UNKNOWN"}, "at 'invokeMode' failed to satisfy constraint: Member must satisfy enum"),
        ({"Cors": {"MaxAge": 86_401}}, "at 'cors.maxAge' failed to satisfy constraint: Member must have value less"),
        ({"Cors": {"AllowMethods": ["OPTIONS"]}}, "at 'cors.allowMethods' failed to satisfy constraint: Member must"),
        ({"Cors": {"AllowOrigins": [""]}}, "at 'cors.allowOrigins' failed to satisfy constraint: Member must"),
        ({"Cors": {"ExposeHeaders": ["a\rb"]}}, "ExposeHeaders of Cors holds what is no name"),
        ({"Cors": {"AllowHeaders": ["a, b"]}}, "AllowHeaders of Cors holds what is no name"),
    ],
)
def test_wrong_members(hello: Endpoint, client: Any, members: dict[str, Any], words: str) -> None:
    code, status, text = error_of(
        client.create_function_url_config, **{"FunctionName": "hello", "AuthType": "NONE"} | members
    )
    assert status == 400 and words in text, (code, text)
    assert error_of(client.get_function_url_config, FunctionName="hello") == GONE


def test_a_url_survives_a_restart(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first.create()
    client = first.boto3()
    made = client.create_function_url_config(FunctionName="hello", AuthType="NONE", Cors=CORS)
    client.close()
    second = make_endpoint(function_urls="https://example.org")
    client = second.boto3()
    found = client.get_function_url_config(FunctionName="hello")
    client.close()
    url_id = made["FunctionUrl"].partition("//")[2].partition(".")[0]
    assert found["FunctionUrl"] == f"https://{url_id}.lambda-url.us-east-1.example.org/"
    assert (found["Cors"], found["CreationTime"]) == (CORS, made["CreationTime"])


def test_ids_of_urls_that_are_gone_are_forgotten(hello: Endpoint, client: Any) -> None:
    ids = []
    for _ in range(150):
        url = client.create_function_url_config(FunctionName="hello", AuthType="NONE")["FunctionUrl"]
        ids.append(url.partition("//")[2].partition(".")[0])
        client.delete_function_url_config(FunctionName="hello")
    places = hello.api._urls._places
    assert len(places._places) <= 66
    assert not any(places.find(url_id) for url_id in ids)


def test_addresses() -> None:
    default = Addresses.of(Config())
    assert default.url("x") == "http://x.lambda-url.us-east-1.localhost:8470/"
    assert default.id("x.lambda-url.us-east-1.localhost:8470") == "x"
    assert default.id("X.LAMBDA-URL.us-east-1.LOCALHOST") == "x"
    for host in ("x.lambda-url.us-east-2.localhost", "x.lambda-url.us-east-1.localhost.example.com", "localhost", ""):
        assert default.id(host) == ""
    own = Addresses.of(load(environ={"SANDBOXD_API_FUNCTION_URLS": "https://fn.example.com:8443"}))
    assert own.url("x") == "https://x.lambda-url.us-east-1.fn.example.com:8443/"
