"""Payloads of every shape, both ways, up to the limits."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Deployed
from tests.support.daemon import Daemon

LIMIT = 6 * 1024 * 1024  # of a synchronous request
RESPONSE_LIMIT = LIMIT + 100  # AWS's is 6,291,556 bytes

SHAPES: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": 0,
    "a negative float": -1.5e-7,
    "a number beyond 64 bits": 123456789012345678901234567890,
    "a large exponent": 1e308,
    "text": "plain",
    "empty text": "",
    "unicode": "grüße 漢字 🎉 \u0000 \u2028 \ud7ff",
    "control characters": '\t\n\r\b\f\x7f\\"/',
    "an empty list": [],
    "an empty object": {},
    "deep": json.loads("[" * 200 + "]" * 200),
    "unicode keys": {"ключ": {"ключ": ["ü"]}},
    "binary as base64": {"body": base64.b64encode(bytes(range(256)) * 4).decode(), "isBase64Encoded": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_comes_back_as_it_went(daemon: Daemon, echo: str, shape: str) -> None:
    answer = daemon.lambda_client.invoke(FunctionName=echo, Payload=json.dumps(SHAPES[shape], ensure_ascii=False))
    assert json.load(answer["Payload"]) == SHAPES[shape]


@pytest.mark.parametrize("shape", ["null", "unicode", "a number beyond 64 bits", "binary as base64"])
def test_through_the_command_line(daemon: Daemon, echo: str, shape: str, tmp_path: Path) -> None:
    text = json.dumps(SHAPES[shape])
    file = tmp_path / "event.json"
    file.write_text(text)
    for payload, given in ((text, None), (f"@{file}", None), ("-", text.encode())):
        done = daemon.cli("invoke", echo, "--payload", payload, payload=given)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == SHAPES[shape]


def test_through_aws(daemon: Daemon, echo: str, tmp_path: Path) -> None:
    event = {"text": "grüße 🎉", "number": 12345678901234567890, "nothing": None}
    file, out = tmp_path / "event.json", tmp_path / "out.json"
    file.write_text(json.dumps(event, ensure_ascii=False))
    done = daemon.aws("invoke", "--function-name", echo, "--payload", f"file://{file}", str(out))
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()) == event


def test_no_payload_is_an_empty_event(daemon: Daemon, echo: str) -> None:
    assert json.load(daemon.lambda_client.invoke(FunctionName=echo)["Payload"]) == {}
    done = daemon.cli("invoke", echo)
    assert (done.returncode, done.stdout) == (0, "{}\n")


def test_the_largest_request(daemon: Daemon, echo: str) -> None:
    event = "x" * (LIMIT - 2)
    answer = daemon.lambda_client.invoke(FunctionName=echo, Payload=json.dumps(event))
    assert json.load(answer["Payload"]) == event


def test_a_request_one_byte_too_large(daemon: Daemon, echo: str, tmp_path: Path) -> None:
    text = json.dumps("x" * (LIMIT - 1))
    assert len(text) == LIMIT + 1
    client = daemon.lambda_client
    with pytest.raises(ClientError) as caught:
        client.invoke(FunctionName=echo, Payload=text)
    assert caught.value.response["Error"]["Code"] == "RequestEntityTooLargeException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    message = f"Request must be smaller than {LIMIT} bytes for the InvokeFunction operation"
    assert caught.value.response["Error"]["Message"] == message
    done = daemon.cli("invoke", echo, "--payload", "-", payload=text.encode())
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_request_far_too_large(daemon: Daemon, echo: str) -> None:
    answer = daemon.invoke(echo, raw=b'"' + b"x" * (LIMIT * 3) + b'"')
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")


@pytest.mark.parametrize("size", [LIMIT, RESPONSE_LIMIT])
def test_the_largest_response(daemon: Daemon, large: str, size: int) -> None:
    answer = daemon.lambda_client.invoke(FunctionName=large, Payload=json.dumps({"bytes": size}))
    assert "FunctionError" not in answer
    assert answer["Payload"].read() == b'"' + b"x" * (size - 2) + b'"'


def test_the_largest_response_through_aws_and_the_command_line(daemon: Daemon, large: str, tmp_path: Path) -> None:
    event, out = json.dumps({"bytes": LIMIT}), tmp_path / "out.json"
    done = daemon.aws("invoke", "--function-name", large, "--payload", event, str(out))
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size == LIMIT
    assert len(daemon.cli("invoke", large, "--payload", event).stdout) == LIMIT + 1


@pytest.mark.parametrize("size", [RESPONSE_LIMIT + 1, RESPONSE_LIMIT * 3])
def test_a_response_too_large(daemon: Daemon, large: str, size: int) -> None:
    answer = daemon.invoke(large, {"bytes": size})
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert answer.json == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes).",
    }
    assert daemon.call(large, {"bytes": 100}) == "x" * 98


@pytest.mark.parametrize("payload", [b"{", b"nope", b"{'a': 1}", b'"\xff"', b"[1,]", b"1 2", b"\xef\xbb\xbf{", b"NaN"])
def test_not_json(daemon: Daemon, echo: str, payload: bytes) -> None:
    answer = daemon.invoke(echo, raw=payload)
    assert (answer.status, answer.code) == (400, "InvalidRequestContentException")
    assert answer.message.startswith("Could not parse request body into json: ")


def test_not_json_by_boto3(daemon: Daemon, echo: str) -> None:
    client = daemon.lambda_client
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName=echo, Payload=b"not json")


def test_dry_run_runs_nothing(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("counter")
    assert daemon.lambda_client.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
    assert daemon.call(name)["count"] == 1


@pytest.fixture
def echo(daemon: Daemon, shared_functions: dict[str, str]) -> str:
    return shared_functions["echo"]


@pytest.fixture
def large(daemon: Daemon, shared_functions: dict[str, str]) -> str:
    return shared_functions["returns_6mb"]
