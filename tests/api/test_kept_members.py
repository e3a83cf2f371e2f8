"""LoggingConfig, TracingConfig and SnapStart: kept with a version, and shown as AWS shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

GROUP = "/aws/lambda/hello"
INFO = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}


def update(endpoint: Endpoint, client: Any, **members: Any) -> dict[str, Any]:
    answer = client.update_function_configuration(FunctionName="hello", **members)
    settled = endpoint.settled("hello")
    assert {name: settled[name] for name in members} == {name: answer[name] for name in members}
    return settled


def test_logging_follows_what_is_asked(endpoint: Endpoint, client: Any) -> None:
    json = {"LogFormat": "JSON"}
    created = endpoint.create(LoggingConfig=json)
    assert created["LoggingConfig"] == json | INFO | {"LogGroup": GROUP}
    for asked, shown in (
        ({"ApplicationLogLevel": "DEBUG"}, json | INFO | {"ApplicationLogLevel": "DEBUG", "LogGroup": GROUP}),
        ({"LogGroup": "cool"}, json | INFO | {"ApplicationLogLevel": "DEBUG", "LogGroup": "cool"}),
        (json | {"SystemLogLevel": "WARN"}, json | INFO | {"SystemLogLevel": "WARN", "LogGroup": "cool"}),
        (json, json | INFO | {"LogGroup": "cool"}),
        ({"LogFormat": "Text"}, {"LogFormat": "Text", "LogGroup": "cool"}),
        ({}, {"LogFormat": "Text", "LogGroup": "cool"}),
    ):
        assert update(endpoint, client, LoggingConfig=asked)["LoggingConfig"] == shown
    levels = error_of(
        client.update_function_configuration, FunctionName="hello", LoggingConfig={"SystemLogLevel": "DEBUG"}
    )
    assert levels == (
        "InvalidParameterValueException",
        400,
        'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change '
        'the LogFormat to "Json" and try again.',
    )
    wrong = {"LogFormat": "XML", "LogGroup": "no spaces", "SystemLogLevel": "FATAL"}
    refused = error_of(client.update_function_configuration, FunctionName="hello", LoggingConfig=wrong)
    assert refused[0] == "ValidationException" and refused[2].startswith("3 validation errors detected: ")


def test_tracing_and_snapstart(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    created = first.create(TracingConfig={"Mode": "Active"}, SnapStart={"ApplyOn": "PublishedVersions"})
    shown = {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    assert (created["TracingConfig"], created["SnapStart"]) == ({"Mode": "Active"}, shown)
    again = make_endpoint()
    client = again.boto3()
    assert (again.settled("hello")["TracingConfig"], again.settled("hello")["SnapStart"]) == ({"Mode": "Active"}, shown)
    (row,) = client.list_functions()["Functions"]
    assert (row["TracingConfig"], row["SnapStart"]) == ({"Mode": "Active"}, shown)
    changed = client.update_function_configuration(
        FunctionName="hello", TracingConfig={"Mode": "PassThrough"}, SnapStart={"ApplyOn": "None"}
    )
    assert (changed["TracingConfig"], changed["SnapStart"]["ApplyOn"]) == ({"Mode": "PassThrough"}, "None")
    client.close()


def test_snapstart_is_for_some_runtimes(endpoint: Endpoint, client: Any) -> None:
    endpoint.create(Runtime="python3.11")
    snapstart = {"ApplyOn": "PublishedVersions"}
    refused = error_of(client.update_function_configuration, FunctionName="hello", SnapStart=snapstart)
    assert refused[2] == "python3.11 is not supported for SnapStart enabled functions."
    client.update_function_configuration(FunctionName="hello", Runtime="python3.12", SnapStart=snapstart)
    endpoint.settled("hello")
    back = error_of(client.update_function_configuration, FunctionName="hello", Runtime="python3.11")
    assert back == refused


def test_a_version_keeps_what_it_was_published_with(endpoint: Endpoint, client: Any) -> None:
    endpoint.create(TracingConfig={"Mode": "Active"})
    client.publish_version(FunctionName="hello")
    update(endpoint, client, TracingConfig={"Mode": "Active"})
    assert client.publish_version(FunctionName="hello")["Version"] == "1"
    update(endpoint, client, TracingConfig={"Mode": "PassThrough"}, Environment={"Variables": {}})
    assert client.publish_version(FunctionName="hello")["Version"] == "2"
    old = client.get_function_configuration(FunctionName="hello", Qualifier="1")
    assert old["TracingConfig"] == {"Mode": "Active"}


@pytest.mark.parametrize("runtime", ["python3.7", "nodejs14.x", "go1.x", "provided", "java8"])
def test_deprecated_runtimes_are_refused(endpoint: Endpoint, client: Any, runtime: str) -> None:
    endpoint.create()
    assert error_of(client.update_function_configuration, FunctionName="hello", Runtime=runtime) == (
        "InvalidParameterValueException",
        400,
        f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions.",
    )


def test_another_image_serves_a_runtime(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint(runtimes={"python3.14": "python3.13", "nodejs22.x": "nodejs24.x"})
    created = endpoint.create(Runtime="python3.14")
    digests = {image.runtime: image.digest for image in endpoint.store.images.all()}
    assert created["Runtime"] == "python3.14"
    assert created["RuntimeVersionConfig"]["RuntimeVersionArn"].endswith(f"runtime:{digests['python3.13']}")
    client = endpoint.boto3()
    missing = error_of(client.update_function_configuration, FunctionName="hello", Runtime="nodejs22.x")
    assert missing[2].endswith("nodejs22.x has no image on this server. Build it with: sandboxd image build nodejs24.x")
    client.close()
