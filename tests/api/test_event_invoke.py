"""Asynchronous invocations as a client meets them: the 202, its limits, and what is set for an event's end."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import ApiError
from sandboxd.model.destination import Spool
from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

ARN = "arn:aws:lambda:us-east-1:111111111111:function:"
QUEUE = "arn:aws:sqs:us-east-1:111111111111:failed"


@pytest.fixture
def endpoint(make_endpoint: Callable[..., Endpoint]) -> Endpoint:
    made = make_endpoint(destinations={QUEUE: Spool("failed")}, event_retry_waits=(0.01, 0.01))
    made.create()
    return made


def until(happened: Callable[[], Any]) -> Any:
    """What is true soon."""
    deadline = time.monotonic() + 30
    while not (found := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_accepted_and_run(endpoint: Endpoint, client: Any) -> None:
    context = base64.b64encode(b'{"custom": {"a": 1}}').decode()
    answer = client.invoke(
        FunctionName="hello", InvocationType="Event", Payload=b'{"n": 1}', ClientContext=context, LogType="Tail"
    )
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    assert not {"ExecutedVersion", "LogResult", "FunctionError"} & answer.keys()
    invocation = until(lambda: endpoint.scheduler.invocations)[0]
    assert invocation.request_id == answer["ResponseMetadata"]["RequestId"]
    assert (invocation.payload, invocation.client_context) == (b'{"n": 1}', '{"custom": {"a": 1}}')
    assert invocation.invoked_arn == ARN + "hello"
    until(lambda: not endpoint.store.events.held)
    _, _, status = endpoint.unix("GET", "/sandboxd/v1/status")
    assert json.loads(status)["Events"] == {"AsyncEventsQueued": 0, "AsyncEventsReceived": 1}


def test_what_is_refused_before_it_is_accepted(endpoint: Endpoint, client: Any) -> None:
    large = json.dumps("x" * 1_048_575).encode()
    assert error_of(client.invoke, FunctionName="hello", InvocationType="Event", Payload=large) == (
        "RequestEntityTooLargeException",
        413,
        "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
    )
    assert error_of(client.invoke, FunctionName="nope", InvocationType="Event")[0] == "ResourceNotFoundException"
    code, _, _ = error_of(client.invoke, FunctionName="hello", InvocationType="Event", Payload=b"{")
    assert code == "InvalidRequestContentException"
    assert endpoint.scheduler.invocations == []


def test_an_event_outlives_the_service(make_endpoint: Callable[..., Endpoint], endpoint: Endpoint, client: Any) -> None:
    endpoint.scheduler.raises = ApiError("TooManyRequestsException", "Rate Exceeded.", 429)
    sent = [client.invoke(FunctionName="hello", InvocationType="Event") for _ in range(3)]
    until(lambda: endpoint.scheduler.invocations)
    again = make_endpoint()
    ran = until(lambda: len(again.scheduler.invocations) == 3 and again.scheduler.invocations)
    assert {i.request_id for i in ran} == {answer["ResponseMetadata"]["RequestId"] for answer in sent}


def test_a_deleted_function_takes_its_events_along(endpoint: Endpoint, client: Any) -> None:
    endpoint.scheduler.raises = ApiError("TooManyRequestsException", "Rate Exceeded.", 429)
    for qualifier in ({}, {"Qualifier": "$LATEST"}):
        client.invoke(FunctionName="hello", InvocationType="Event", **qualifier)
    assert until(lambda: sorted(endpoint.store.events.held)) == [ARN + "hello", ARN + "hello:$LATEST"]
    client.delete_function(FunctionName="hello")
    assert (endpoint.store.events.held, endpoint.store.events.size) == ({}, 0)


def test_settings_put_updated_read_and_removed(make_endpoint: Callable[..., Endpoint], endpoint: Endpoint) -> None:
    client = endpoint.boto3()
    number = client.publish_version(FunctionName="hello")["Version"]
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion=number)
    put = client.put_function_event_invoke_config(
        FunctionName="hello",
        MaximumRetryAttempts=1,
        MaximumEventAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )
    assert put["FunctionArn"] == ARN + "hello:$LATEST"
    assert put["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}
    assert abs(put["LastModified"].timestamp() - time.time()) < 60
    updated = client.update_function_event_invoke_config(FunctionName="hello", MaximumRetryAttempts=0)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (0, 60)
    put = client.put_function_event_invoke_config(FunctionName="hello:live", MaximumRetryAttempts=2)
    assert put["FunctionArn"] == ARN + "hello:live" and "MaximumEventAgeInSeconds" not in put
    client.put_function_event_invoke_config(FunctionName="hello", Qualifier=number, MaximumRetryAttempts=2)
    client.close()
    client = make_endpoint().boto3()
    pages = client.get_paginator("list_function_event_invoke_configs").paginate(
        FunctionName="hello", PaginationConfig={"PageSize": 2}
    )
    found = [[row["FunctionArn"].rpartition(":")[2] for row in page["FunctionEventInvokeConfigs"]] for page in pages]
    assert found == [["$LATEST", "1"], ["live"]]
    client.delete_function_event_invoke_config(FunctionName="hello", Qualifier="$LATEST")
    code, status, message = error_of(client.get_function_event_invoke_config, FunctionName="hello")
    assert (code, status) == ("ResourceNotFoundException", 404)
    assert message == f"The function {ARN}hello:$LATEST doesn't have an EventInvokeConfig"
    client.delete_alias(FunctionName="hello", Name="live")
    assert error_of(client.get_function_event_invoke_config, FunctionName="hello:live")[1] == 404
    client.close()


def test_settings_that_are_refused(endpoint: Endpoint, client: Any) -> None:
    def refused(**members: Any) -> tuple[str, str]:
        code, _, message = error_of(client.put_function_event_invoke_config, **{"FunctionName": "hello"} | members)
        return code, message

    def destination(arn: str) -> dict[str, Any]:
        return {"DestinationConfig": {"OnSuccess": {"Destination": arn}}}

    invalid = "InvalidParameterValueException"
    assert refused() == (invalid, "You must specify at least one of error handling or destination setting.")
    assert refused(FunctionName="nope", MaximumRetryAttempts=1) == (
        "ResourceNotFoundException",
        "The function doesn't exist.",
    )
    assert refused(MaximumRetryAttempts=3)[0] == "ValidationException"
    assert refused(MaximumEventAgeInSeconds=59)[0] == "ValidationException"
    assert refused(**destination(ARN + "hello")) == (
        invalid,
        "You can't specify the function as a destination for itself.",
    )
    for arn in (ARN + "nope", ARN.replace("1" * 12, "2" * 12) + "hello", ARN.replace("us-east-1", "eu-west-1") + "a"):
        assert refused(**destination(arn)) == (invalid, f"The destination ARN {arn} is invalid.")
    for arn in (ARN.replace("lambda", "iam") + "hello", "kafka://topic"):
        shown = f"DestinationConfig(onSuccess=OnSuccess(destination={arn}), onFailure=null)"
        assert refused(**destination(arn)) == (invalid, f"The provided destination config {shown} is invalid.")
    code, message = refused(**destination(QUEUE + "2"))
    assert code == invalid and message.startswith(f"sandboxd has no destination {QUEUE}2: ")


def test_dead_letter_queue(endpoint: Endpoint, client: Any) -> None:
    update = client.update_function_configuration
    assert update(FunctionName="hello", DeadLetterConfig={"TargetArn": QUEUE})["DeadLetterConfig"] == {
        "TargetArn": QUEUE
    }
    assert endpoint.settled("hello")["DeadLetterConfig"] == {"TargetArn": QUEUE}
    published = client.publish_version(FunctionName="hello")
    assert published["DeadLetterConfig"] == {"TargetArn": QUEUE}
    endpoint.scheduler.function_error = "Unhandled"
    client.invoke(FunctionName="hello:1", InvocationType="Event", Payload=b"7")
    spool = endpoint.config.service_dir / "spool" / "failed"
    (file,) = until(lambda: list(spool.glob("*.json")))
    assert json.loads(file.read_text())["Body"] == "7"
    assert len(endpoint.scheduler.invocations) == 3
    assert "DeadLetterConfig" not in update(FunctionName="hello", DeadLetterConfig={"TargetArn": ""})
    endpoint.settled("hello")
    for arn, reason in ((QUEUE + "2", "sandboxd has no destination"), (ARN + "hello", "The provided target ARN")):
        code, _, message = error_of(update, FunctionName="hello", DeadLetterConfig={"TargetArn": arn})
        assert code == "InvalidParameterValueException" and message.startswith(reason)


def test_a_role_that_is_kept_here_has_to_permit_a_destination(endpoint: Endpoint, client: Any) -> None:
    endpoint.create("next")
    for action, arn in (("lambda:InvokeFunction", ARN + "next"), ("sqs:SendMessage", QUEUE)):
        roles, policy = "/sandboxd/v1/roles", {"PolicyName": "p", "PolicyDocument": allowing(action, arn)}
        assert endpoint.unix("POST", roles, {"RoleName": "lambda"})[0] == 201
        members = {"FunctionName": "hello", "DestinationConfig": {"OnFailure": {"Destination": arn}}}
        assert error_of(client.put_function_event_invoke_config, **members)[2] == (
            f"The function's execution role does not have permissions to call {action.partition(':')[2]} on {arn}"
        )
        assert endpoint.unix("PUT", f"{roles}/lambda/policies", policy)[0] == 204
        client.put_function_event_invoke_config(**members)
        assert endpoint.unix("DELETE", f"{roles}/lambda")[0] == 204


def allowing(action: str, resource: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
