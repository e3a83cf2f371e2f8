"""The life of a function through boto3: states, waiters, updates, deletion."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import ROLE, Endpoint, package

HELLO = {"Account": "111111111111", "Function": "hello", "Version": "$LATEST"}  # a row of the scheduler's


def create(client: Any, name: str = "hello", **members: Any) -> Any:
    request = {"Runtime": "python3.12", "Handler": "handler.handler", "Role": ROLE, "Code": {"ZipFile": package()}}
    return client.create_function(FunctionName=name, **(request | members))


def error_of(call: Callable[..., Any], **members: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pending_then_active(client: Any) -> None:
    made = create(client)
    assert (made["State"], made["StateReasonCode"]) == ("Pending", "Creating")
    for waiter in ("function_exists", "function_active", "function_active_v2"):
        client.get_waiter(waiter).wait(FunctionName="hello", WaiterConfig={"Delay": 0})
    shown = client.get_function(FunctionName="hello")["Configuration"]
    assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "Successful")
    assert shown["RevisionId"] != made["RevisionId"]
    assert shown["CodeSha256"] == base64.b64encode(hashlib.sha256(package()).digest()).decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", shown["LastModified"])


def test_runtimes_are_booted_ahead_for_what_was_just_made(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    client.get_waiter("function_active_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 0})
    runtime = client.get_function_configuration(FunctionName="hello")["Runtime"]
    deadline = time.monotonic() + 5
    while endpoint.scheduler.warmed != [runtime]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_update_of_code_and_configuration(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    updated = client.update_function_code(FunctionName="hello", ZipFile=package("x = 1"))
    assert (updated["LastUpdateStatus"], updated["LastUpdateStatusReasonCode"]) == ("InProgress", "Creating")
    client.get_waiter("function_updated_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 0})
    client.update_function_configuration(
        FunctionName="hello", MemorySize=192, Timeout=9, Environment={"Variables": {"WORD": "ü"}}
    )
    client.get_waiter("function_updated").wait(FunctionName="hello", WaiterConfig={"Delay": 0})
    shown = client.get_function_configuration(FunctionName="hello")
    assert (shown["MemorySize"], shown["Timeout"], shown["Environment"]) == (192, 9, {"Variables": {"WORD": "ü"}})
    assert shown["CodeSize"] == len(package("x = 1"))
    assert endpoint.scheduler.retired == ["hello:$LATEST"] * 2


def test_invocations_meet_the_old_version_until_the_update_is_done(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    client.invoke(FunctionName="hello")
    before = endpoint.scheduler.invocations[-1].function.code_digest
    endpoint._loop.call_soon_threadsafe(endpoint.unpacker.gate.clear)
    update = threading.Thread(
        target=client.update_function_code, kwargs={"FunctionName": "hello", "ZipFile": package("1")}
    )
    update.start()
    eventually(lambda: bool(endpoint.run(_is_changing(endpoint))))
    conflict = error_of(client.update_function_configuration, FunctionName="hello", Timeout=4)
    assert conflict == (
        "ResourceConflictException",
        409,
        "The operation cannot be performed at this time. An update is in progress for resource: "
        "arn:aws:lambda:us-east-1:111111111111:function:hello",
    )
    client.invoke(FunctionName="hello")
    assert endpoint.scheduler.invocations[-1].function.code_digest == before
    endpoint._loop.call_soon_threadsafe(endpoint.unpacker.gate.set)
    update.join()
    endpoint.settled("hello")
    client.invoke(FunctionName="hello")
    assert endpoint.scheduler.invocations[-1].function.code_digest != before


async def _is_changing(endpoint: Endpoint) -> bool:
    return not endpoint.unpacker.gate.is_set() and len(endpoint.store.code._held) > 0


def test_dry_run_changes_nothing(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    before = client.get_function_configuration(FunctionName="hello")
    shown = client.update_function_code(FunctionName="hello", ZipFile=package("other"), DryRun=True)
    assert shown["CodeSha256"] == base64.b64encode(hashlib.sha256(package("other")).digest()).decode()
    after = client.get_function_configuration(FunctionName="hello")
    del before["ResponseMetadata"], after["ResponseMetadata"]
    assert before == after
    assert len(list((endpoint.config.service_dir / "zips").iterdir())) == 1
    assert len(list(endpoint.config.code_dir.iterdir())) == 1


def test_revision_id(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    wrong = error_of(client.update_function_configuration, FunctionName="hello", RevisionId="nope", Timeout=4)
    assert wrong == (
        "PreconditionFailedException",
        412,
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
    )
    right = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    client.update_function_configuration(FunctionName="hello", RevisionId=right, Timeout=4)


def test_download(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    code = client.get_function(FunctionName="hello")["Code"]
    assert code["RepositoryType"] == "S3"
    with urllib.request.urlopen(code["Location"]) as answer:
        assert answer.read() == package()
    for location in (code["Location"][:-1] + "z", code["Location"].replace("Expires=", "Expires=9")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(location)
        assert caught.value.code == 403
        caught.value.close()


def test_delete(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    endpoint.logs.texts["111111111111", "hello", "$LATEST"] = b"text"
    answer = client.delete_function(FunctionName="hello")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    missing = "Function not found: arn:aws:lambda:us-east-1:111111111111:function:hello"
    assert error_of(client.get_function, FunctionName="hello") == ("ResourceNotFoundException", 404, missing)
    assert error_of(client.delete_function, FunctionName="hello") == ("ResourceNotFoundException", 404, missing)
    assert (endpoint.scheduler.retired, endpoint.logs.texts) == (["hello:$LATEST"], {})
    eventually(lambda: not list(endpoint.config.code_dir.iterdir()))
    eventually(lambda: not list((endpoint.config.service_dir / "zips").iterdir()))


def test_code_stays_while_an_older_environment_has_it(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    old = next(endpoint.config.code_dir.iterdir())
    endpoint.scheduler.rows = [
        {"Account": "111111111111", "Function": "hello", "Version": "$LATEST", "AgeSeconds": 1e9}
    ]
    client.update_function_code(FunctionName="hello", ZipFile=package("new"))
    endpoint.settled("hello")
    time.sleep(0.5)
    assert old.exists()
    endpoint.scheduler.rows = [
        {"Account": "111111111111", "Function": "hello", "Version": "$LATEST", "AgeSeconds": 0.0}
    ]
    eventually(lambda: not old.exists())
    assert len(list(endpoint.config.code_dir.iterdir())) == 1


def test_two_functions_share_a_package(endpoint: Endpoint, client: Any) -> None:
    endpoint.create("one")
    endpoint.create("two")
    assert len(endpoint.unpacker.unpacked) == 1
    client.delete_function(FunctionName="one")
    time.sleep(0.4)
    client.invoke(FunctionName="two")
    assert len(list(endpoint.config.code_dir.iterdir())) == 1


def test_pages(endpoint: Endpoint, client: Any) -> None:
    names = [f"f{n:02}" for n in range(53)]
    for name in names:
        endpoint.create(name)
    assert len(client.list_functions()["Functions"]) == 50
    assert len(client.list_functions(MaxItems=10_000)["Functions"]) == 50
    pages = list(client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 20}))
    assert [len(page["Functions"]) for page in pages] == [20, 20, 13]
    assert [function["FunctionName"] for page in pages for function in page["Functions"]] == names
    assert error_of(client.list_functions, Marker="%%%")[0] == "InvalidParameterValueException"
    assert error_of(client.list_functions, MaxItems=0)[0] == "ValidationException"


def test_survives_a_restart(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first.create("kept", Environment={"Variables": {"WORD": "b"}}, Tags={"team": "grün"})
    rule = {"AllowEgress": ["10.0.0.0/8:443"], "AllowInvoke": True}
    assert first.unix("PUT", "/sandboxd/v1/functions/kept/policy", rule)[0] == 200
    before, key = first.settled("kept"), first.key
    second = make_endpoint()
    assert second.settled("kept") == before
    assert json.loads(second.unix("GET", "/sandboxd/v1/functions/kept/policy")[2]) == rule
    client = second.boto3(key.id, key.secret)
    assert client.get_function(FunctionName="kept")["Tags"] == {"team": "grün"}
    assert client.invoke(FunctionName="kept", Payload=b"1")["Payload"].read() == b"1"
    client.close()


def test_account_settings(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    settings = client.get_account_settings()
    assert settings["AccountUsage"] == {"TotalCodeSize": len(package()), "FunctionCount": 1}
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1000
    assert settings["AccountLimit"]["CodeSizeUnzipped"] == 262144000


def test_a_creation_outlives_its_client_and_the_end_of_the_service(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first._loop.call_soon_threadsafe(first.unpacker.gate.clear)
    body = json.dumps({**creation_without_code(), "Code": {"ZipFile": base64.b64encode(package()).decode()}}).encode()
    door = socket.socket(socket.AF_UNIX)
    door.connect(str(first.config.api_socket))
    door.sendall(b"POST /2015-03-31/functions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    eventually(lambda: bool(first.run(_is_changing(first))))
    door.close()
    threading.Timer(0.3, lambda: first._loop.call_soon_threadsafe(first.unpacker.gate.set)).start()
    second = make_endpoint()  # ends the first one
    assert second.settled("hello")["State"] == "Active"
    assert len(list(second.config.code_dir.iterdir())) == 1


def creation_without_code() -> dict[str, Any]:
    return {"FunctionName": "hello", "Runtime": "python3.12", "Handler": "handler.handler", "Role": ROLE}
