"""Requests that the endpoint refuses: AWS's code, status and words, and nothing changes."""

from __future__ import annotations

import datetime
import os
import pwd
import socket
from collections.abc import Iterator
from typing import Any

import botocore.auth
import pytest
from botocore.exceptions import ClientError

from tests.support import packages
from tests.support.daemon import FUNCTIONS, Daemon

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture(autouse=True)
def nothing_made(daemon: Daemon) -> Iterator[None]:
    """A refused request leaves no function, package or environment."""
    before = state(daemon)
    yield
    assert state(daemon) == before


def state(daemon: Daemon) -> list[Any]:
    functions = daemon.request("GET", f"{FUNCTIONS}/").json["Functions"]
    environments = sorted(row["Id"] for row in daemon.environments())
    files = [sorted(str(p) for p in (daemon.data_dir / d).iterdir()) for d in ("code", "service/zips")]
    return [functions, environments, files]


def refused(call: Any, **members: Any) -> tuple[str, int, str]:
    """Code, status and message of a call of boto3 that has to fail."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def creation(**members: Any) -> dict[str, Any]:
    hello = packages.load("hello")
    return {
        "FunctionName": "refused",
        "Runtime": hello.runtime,
        "Handler": hello.handler,
        "Role": "arn:aws:iam::000000000000:role/test",
        "Code": {"ZipFile": hello.package.read_bytes()},
    } | members


# functions that are not there


@pytest.mark.parametrize("name", ["nope", f"{ARN}nope", "000000000000:nope", "000000000000:function:nope"])
def test_unknown_function(daemon: Daemon, name: str) -> None:
    error = refused(daemon.lambda_client.invoke, FunctionName=name)
    assert error == ("ResourceNotFoundException", 404, f"Function not found: {ARN}nope:$LATEST")


@pytest.mark.parametrize(
    "operation", ["get_function", "get_function_configuration", "delete_function", "update_function_configuration"]
)
def test_unknown_function_in_every_operation(daemon: Daemon, operation: str) -> None:
    error = refused(getattr(daemon.lambda_client, operation), FunctionName="nope")
    assert error == ("ResourceNotFoundException", 404, f"Function not found: {ARN}nope")


def test_unknown_qualifier(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    name = shared_functions["hello"]
    error = refused(daemon.lambda_client.invoke, FunctionName=name, Qualifier="7")
    assert error == ("ResourceNotFoundException", 404, f"Function not found: {ARN}{name}:7")


def test_unknown_function_on_the_command_line(daemon: Daemon) -> None:
    done = daemon.cli("invoke", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ResourceNotFoundException" in done.stderr and f"Function not found: {ARN}nope" in done.stderr


def test_unknown_function_through_aws(daemon: Daemon) -> None:
    done = daemon.aws("invoke", "--function-name", "nope", "/dev/null")
    words = "An error occurred (ResourceNotFoundException) when calling the Invoke operation: Function not found: "
    assert done.returncode in (254, 255)
    assert f"{words}{ARN}nope" in done.stderr


# members that are out of bounds


REFUSED_MEMBERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "memory 100": (
        {"MemorySize": 100},
        "ValidationException",
        "1 validation error detected: Value '100' at 'memorySize' failed to satisfy constraint: "
        "Member must have value greater than or equal to 128",
    ),
    "memory 200": ({"MemorySize": 200}, "InvalidParameterValueException", "64"),
    "memory 4096": (
        {"MemorySize": 4096},
        "InvalidParameterValueException",
        "'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 3008",
    ),
    "timeout 0": (
        {"Timeout": 0},
        "ValidationException",
        "1 validation error detected: Value '0' at 'timeout' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1",
    ),
    "timeout 901": (
        {"Timeout": 901},
        "ValidationException",
        "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint: "
        "Member must have value less than or equal to 900",
    ),
    "unknown runtime": (
        {"Runtime": "cobol85"},
        "InvalidParameterValueException",
        "Value cobol85 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [",
    ),
    "role that is none": (
        {"Role": "r1"},
        "ValidationException",
        "1 validation error detected: Value 'r1' at 'role' failed to satisfy constraint: Member must satisfy regular "
        r"expression pattern: arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
    ),
    "too many variables": (
        {"Environment": {"Variables": {"LARGE": "x" * 4096}}},
        "InvalidParameterValueException",
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
        "exceeded the 4KB limit. String measured: {",
    ),
    "reserved variable": (
        {"Environment": {"Variables": {"AWS_REGION": "x"}}},
        "InvalidParameterValueException",
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
        "contains reserved keys that are currently not supported for modification. Reserved keys used in this request: "
        "AWS_REGION",
    ),
    "name too long": (
        {"FunctionName": "a" * 65},
        "InvalidParameterValueException",
        "1 validation error detected: Value '" + "a" * 65 + "' at 'functionName' failed to satisfy constraint: "
        "Member must have length less than or equal to 64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_MEMBERS)
def test_refused_members(daemon: Daemon, what: str) -> None:
    members, code, words = REFUSED_MEMBERS[what]
    got, status, message = refused(daemon.lambda_client.create_function, **creation(**members))
    assert (got, status) == (code, 400)
    assert words in message if what == "memory 200" else message.startswith(words), message


@pytest.mark.parametrize("what", ["memory 100", "memory 200", "memory 4096", "timeout 0", "timeout 901"])
def test_refused_updates(daemon: Daemon, shared_functions: dict[str, str], what: str) -> None:
    members, code, _ = REFUSED_MEMBERS[what]
    name = shared_functions["hello"]
    got, status, _ = refused(daemon.lambda_client.update_function_configuration, FunctionName=name, **members)
    assert (got, status) == (code, 400)


@pytest.mark.parametrize("missing", ["Role", "Code"])
def test_missing_members(daemon: Daemon, missing: str) -> None:
    request = creation()
    del request[missing]
    code, status, _ = refused(daemon.lambda_client.create_function, **request)
    assert status == 400 and code in ("ValidationException", "InvalidParameterValueException")


def test_the_name_is_taken(daemon: Daemon, shared_functions: dict[str, str]) -> None:
    name = shared_functions["hello"]
    error = refused(daemon.lambda_client.create_function, **creation(FunctionName=name))
    assert error == ("ResourceConflictException", 409, f"Function already exist: {name}")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"FunctionName": 7}', b"{}"])
def test_a_body_that_is_no_request(daemon: Daemon, body: bytes) -> None:
    answer = daemon.request("POST", FUNCTIONS, body)
    assert answer.status == 400 and answer.code and answer.message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/2015-03-31/nothing"),
        ("PATCH", f"{FUNCTIONS}/x"),
        ("POST", "/2015-03-31/functions/x/invocations/more"),
        ("GET", "/../../etc/passwd"),
        ("GET", "/sandboxd/v1/nothing"),
        ("POST", f"{FUNCTIONS}/%2e%2e%2f/invocations"),
        ("POST", f"{FUNCTIONS}/{'x' * 3000}/invocations"),
    ],
)
def test_paths_that_are_none(daemon: Daemon, method: str, path: str) -> None:
    answer = daemon.request(method, path)
    assert 400 <= answer.status < 500, answer


# who asks


def test_wrong_signature(daemon: Daemon) -> None:
    client = daemon.boto3(secret="not the secret of this key")
    code, status, message = refused(client.list_functions)
    assert (code, status) == ("InvalidSignatureException", 403)
    assert message.startswith(
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key and signing method."
    )


def test_unknown_key(daemon: Daemon) -> None:
    error = refused(daemon.boto3(key="AKIAXXXXXXXXXXXXXXXX").list_functions)
    assert error == ("UnrecognizedClientException", 403, "The security token included in the request is invalid.")


def test_deleted_key(daemon: Daemon) -> None:
    key = daemon.admin("POST", "/keys", {"Description": "short-lived"}).json
    client = daemon.boto3(key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    client.list_functions()
    assert daemon.admin("DELETE", f"/keys/{key['AccessKeyId']}").status in (200, 204)
    assert refused(client.list_functions)[0] == "UnrecognizedClientException"


@pytest.mark.parametrize(("minutes", "words"), [(-10, "Signature expired: "), (10, "Signature not yet current: ")])
def test_clock_skew(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, minutes: int, words: str) -> None:
    skewed = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: skewed.replace(tzinfo=None))
    code, status, message = refused(daemon.lambda_client.list_functions)
    assert (code, status) == ("InvalidSignatureException", 403)
    assert message.startswith(words), message


def test_no_signature(daemon: Daemon) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    try:
        connection.request("GET", f"{FUNCTIONS}/")
        answer = connection.getresponse()
        assert answer.status == 403
        assert answer.getheader("x-amzn-ErrorType", "").startswith("MissingAuthenticationToken")
        assert b"Missing Authentication Token" in answer.read()
    finally:
        connection.close()


def test_the_daemons_own_api_is_not_on_the_endpoint(daemon: Daemon) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    try:
        connection.request("POST", "/sandboxd/v1/keys", b"{}")
        answer = connection.getresponse()
        assert answer.status in (403, 404)
        assert b"SecretAccessKey" not in answer.read()
    finally:
        connection.close()


def test_a_user_outside_the_group_may_not_use_the_socket(daemon: Daemon) -> None:
    nobody = pwd.getpwnam("nobody")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
            os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(str(daemon.socket))
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
