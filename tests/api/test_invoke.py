"""Invoke: payloads, headers, refusals; and the door inside a sandbox."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.api.invoke import _check_payload, new_request_id
from sandboxd.errors import ApiError
from sandboxd.http import Request, Response
from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0")
PATH = "/2015-03-31/functions/hello/invocations"


@pytest.fixture
def hello(endpoint: Endpoint) -> str:
    return str(endpoint.create()["FunctionName"])


def test_answer(endpoint: Endpoint, client: Any, hello: str) -> None:
    answer = client.invoke(FunctionName=hello, Payload=b'{"a": "\xc3\xbc"}', LogType="Tail")
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert answer["Payload"].read() == b'{"a": "\xc3\xbc"}'
    assert base64.b64decode(answer["LogResult"]) == b"START\nEND\n"
    assert "FunctionError" not in answer
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    ran = endpoint.scheduler.invocations[-1]
    assert UUID4.fullmatch(ran.request_id) and headers["x-amzn-requestid"] == ran.request_id
    assert TRACE.fullmatch(ran.trace_id) and headers["x-amzn-trace-id"] == ran.trace_id
    assert ran.invoked_arn == "arn:aws:lambda:us-east-1:111111111111:function:hello"
    assert "LogResult" not in client.invoke(FunctionName=hello)


def test_no_payload_is_an_empty_event(client: Any, hello: str) -> None:
    assert client.invoke(FunctionName=hello)["Payload"].read() == b"{}"


def test_function_error(endpoint: Endpoint, client: Any, hello: str) -> None:
    endpoint.scheduler.function_error = "Unhandled"
    assert client.invoke(FunctionName=hello)["FunctionError"] == "Unhandled"


def test_error_of_the_scheduler(endpoint: Endpoint, client: Any, hello: str) -> None:
    endpoint.scheduler.raises = ApiError(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        Reason="ConcurrentInvocationLimitExceeded",
        retryAfterSeconds="3",
    )
    with pytest.raises(client.exceptions.TooManyRequestsException) as caught:
        client.invoke(FunctionName=hello)
    answer = caught.value.response
    assert (answer["Reason"], answer["Error"]["Message"]) == ("ConcurrentInvocationLimitExceeded", "Rate Exceeded.")
    assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "3"
    assert answer["Type"] == "User"


@pytest.mark.parametrize(
    ("name", "qualifier", "arn"),
    [
        ("hello", "$LATEST", "hello:$LATEST"),
        ("hello:$LATEST", None, "hello:$LATEST"),
        ("111111111111:hello", None, "hello"),
        ("function:hello", None, "hello"),
        ("arn:aws:lambda:us-east-1:111111111111:function:hello", None, "hello"),
        ("arn:aws:lambda:us-east-1:111111111111:function:hello:$LATEST", "$LATEST", "hello:$LATEST"),
    ],
)
def test_names(endpoint: Endpoint, client: Any, hello: str, name: str, qualifier: str | None, arn: str) -> None:
    client.invoke(FunctionName=name, **({"Qualifier": qualifier} if qualifier else {}))
    invoked = endpoint.scheduler.invocations[-1]
    assert invoked.invoked_arn == f"arn:aws:lambda:us-east-1:111111111111:function:{arn}"
    assert invoked.function.name == "hello"


def test_dry_run(endpoint: Endpoint, client: Any, hello: str) -> None:
    assert client.invoke(FunctionName=hello, InvocationType="DryRun")["StatusCode"] == 204
    assert endpoint.scheduler.invocations == []
    assert error_of(client.invoke, FunctionName="nope", InvocationType="DryRun")[0] == "ResourceNotFoundException"


@pytest.mark.parametrize("member", ["TenantId", "DurableExecutionName"])
@pytest.mark.parametrize("mode", ["RequestResponse", "Event", "DryRun"])
def test_what_an_invocation_cannot_have_here(client: Any, hello: str, member: str, mode: str) -> None:
    """AWS, too, refuses a tenant's name where a function does not keep tenants apart."""
    expected = ("InvalidParameterValueException", 400, f"sandboxd does not offer {member} yet")
    assert error_of(client.invoke, FunctionName=hello, InvocationType=mode, **{member: "x"}) == expected
    if member == "TenantId":
        assert error_of(client.invoke_with_response_stream, FunctionName=hello, TenantId="x") == expected


def test_no_other_kind_of_invocation(client: Any, hello: str) -> None:
    assert error_of(client.invoke, FunctionName=hello, InvocationType="Later") == (
        "ValidationException",
        400,
        "1 validation error detected: Value 'Later' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Event, RequestResponse, DryRun]",
    )


@pytest.mark.parametrize(
    "payload", [b"{", b"nope", b"{'a': 1}", b'"\xff"', b"[1,]", b"1 2", b"NaN", b"[" * 100_000, b" "]
)
def test_payload_that_is_not_json(client: Any, hello: str, payload: bytes) -> None:
    code, status, message = error_of(client.invoke, FunctionName=hello, Payload=payload)
    assert (code, status) == ("InvalidRequestContentException", 400)
    assert message.startswith("Could not parse request body into json: ")


@pytest.mark.parametrize("payload", [b"null", b" 1 ", b"9" * 10_000, b"1e400", b'"\\ud800"', b"[" * 500 + b"]" * 500])
def test_payload_that_is_json(client: Any, hello: str, payload: bytes) -> None:
    assert client.invoke(FunctionName=hello, Payload=payload)["Payload"].read() == payload


@given(st.binary() | st.text().map(str.encode))
def test_what_is_taken_is_json(payload: bytes) -> None:
    try:
        _check_payload(payload)
    except ApiError:
        with pytest.raises(ValueError):
            json.loads(payload.decode(), parse_constant=int)
    else:
        json.loads(payload.decode())


def test_sizes(client: Any, hello: str) -> None:
    limit = 6 * 1024 * 1024
    payload = b'"' + b"x" * (limit - 2) + b'"'
    assert client.invoke(FunctionName=hello, Payload=payload)["Payload"].read() == payload
    refused = (
        "RequestEntityTooLargeException", 413,
        "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
    )  # fmt: skip
    assert error_of(client.invoke, FunctionName=hello, Payload=payload + b" ") == refused
    assert error_of(client.invoke, FunctionName=hello, Payload=b" " * 72_000_000) == refused


def test_client_context(endpoint: Endpoint, client: Any, hello: str) -> None:
    context = base64.b64encode('{\n "custom":\r\n{"a": "ü"}}'.encode()).decode()
    client.invoke(FunctionName=hello, ClientContext=context)
    sent = endpoint.scheduler.invocations[-1].client_context
    assert json.loads(sent) == {"custom": {"a": "ü"}}
    assert sent.isascii() and "\n" not in sent
    for wrong in ("%%%", base64.b64encode(b"{").decode(), base64.b64encode(b"[]").decode()):
        code, _, message = error_of(client.invoke, FunctionName=hello, ClientContext=wrong)
        assert code == "InvalidRequestContentException"
        assert message == "Client context must be a valid Base64-encoded JSON object."
    large = base64.b64encode(json.dumps({"a": "x" * 4000}).encode()).decode()
    assert error_of(client.invoke, FunctionName=hello, ClientContext=large)[0] == "InvalidParameterValueException"


def test_trace_header(endpoint: Endpoint, hello: str) -> None:
    given_id = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    status, headers, _ = endpoint.unix("POST", PATH, b"1", X_Amzn_Trace_Id=given_id)
    assert (status, headers["x-amzn-trace-id"]) == (200, given_id)
    assert endpoint.scheduler.invocations[-1].trace_id == given_id
    endpoint.unix("POST", PATH, b"1", X_Amzn_Trace_Id="x" * 2000)
    assert TRACE.fullmatch(endpoint.scheduler.invocations[-1].trace_id)


def test_pending_function(endpoint: Endpoint, client: Any, hello: str) -> None:
    import dataclasses

    functions = endpoint.store.functions
    version = functions.resolve(hello)
    assert version is not None
    functions._serving[hello] = dataclasses.replace(version, state="Pending")
    assert error_of(client.invoke, FunctionName=hello) == (
        "ResourceConflictException",
        409,
        "The operation cannot be performed at this time. The function is currently in the following state: Pending",
    )


def test_the_door_inside_a_sandbox(endpoint: Endpoint, hello: str) -> None:
    function = endpoint.store.functions.resolve(hello)
    assert function is not None

    def ask(method: str, target: str, body: bytes = b"") -> Response:
        async def run() -> Response:
            answer = endpoint.api.handle_invoke_door(function, Request(method, target, {}, body))
            return await answer if isinstance(answer, Coroutine) else answer

        return endpoint.run(run())  # type: ignore[no-any-return]

    assert ask("POST", PATH, b'{"from": "inside"}').body == b'{"from": "inside"}'
    assert ask("POST", PATH.replace("hello", "nope")).status == 404
    for method, target, action in (
        ("GET", "/2015-03-31/functions", "ListFunctions"),
        ("DELETE", "/2015-03-31/functions/hello", "DeleteFunction"),
        ("GET", "/2015-03-31/functions/hello", "GetFunction"),
    ):
        answer = ask(method, target)
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
        assert json.loads(answer.body)["message"] == (
            f"User: arn:aws:sts::111111111111:assumed-role/lambda/hello is not authorized to perform: lambda:{action} "
            f"on resource: * because no identity-based policy allows the lambda:{action} action"
        )
    for target in ("/sandboxd/v1/keys", "/nothing", "/sandboxd/code/" + "0" * 64):
        assert ask("GET", target).status == 403


def test_request_ids_are_version_4() -> None:
    ids = {new_request_id() for _ in range(200)}
    assert len(ids) == 200 and all(map(UUID4.fullmatch, ids))
