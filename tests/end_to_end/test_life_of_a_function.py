"""Functions from creation to deletion: states, waiters, updates with requests in flight, restarts of the daemon."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import FUNCTIONS, Daemon
from tests.support.places import TIME_FACTOR

ROLE = "arn:aws:iam::000000000000:role/test"


def test_created_updated_deleted(daemon: Daemon) -> None:
    client, hello, counter = daemon.lambda_client, packages.load("hello"), packages.load("counter")
    package = hello.package.read_bytes()
    made = client.create_function(
        FunctionName="life", Runtime="python3.13", Role=ROLE, Handler="app.handler", Code={"ZipFile": package}
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (made["State"], made["StateReasonCode"]) == ("Pending", "Creating")
    assert made["StateReason"] == "The function is being created."
    assert made["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
    assert (made["CodeSize"], made["MemorySize"], made["Timeout"]) == (len(package), 128, 3)
    client.get_waiter("function_active_v2").wait(FunctionName="life", WaiterConfig={"Delay": 0.05})
    active = client.get_function(FunctionName="life")
    assert active["Configuration"]["State"] == "Active"
    assert active["Configuration"]["LastUpdateStatus"] == "Successful"
    assert active["Code"]["RepositoryType"] == "S3"

    updated = client.update_function_configuration(FunctionName="life", MemorySize=256, Timeout=5, Description="ä")
    assert updated["LastUpdateStatus"] == "InProgress"
    assert updated["RevisionId"] != made["RevisionId"]
    client.get_waiter("function_updated_v2").wait(FunctionName="life", WaiterConfig={"Delay": 0.05})
    now = client.get_function_configuration(FunctionName="life")
    assert (now["MemorySize"], now["Timeout"], now["Description"]) == (256, 5, "ä")

    client.update_function_code(FunctionName="life", ZipFile=counter.package.read_bytes())
    client.get_waiter("function_updated_v2").wait(FunctionName="life", WaiterConfig={"Delay": 0.05})
    assert json.load(client.invoke(FunctionName="life")["Payload"])["count"] == 1

    client.delete_function(FunctionName="life")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="life")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="life")
    eventually(lambda: not daemon.environments("life"))


def test_through_the_command_line(daemon: Daemon) -> None:
    hello = packages.load("hello")
    create = ("function", "create", "by-hand", "--runtime", "python3.13", "--handler", "app.handler")
    done = daemon.cli(*create, "--zip", str(hello.package), "--memory", "192", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["MemorySize"], json.loads(done.stdout)["State"]) == (192, "Active")
    try:
        done = daemon.cli("invoke", "by-hand", "--payload", '{"name": "x"}')
        assert (done.returncode, done.stdout) == (0, '{"hello": "x"}\n')
        done = daemon.cli("function", "update", "by-hand", "--timeout", "7", "--output", "json")
        assert json.loads(done.stdout)["Timeout"] == 7
        assert "by-hand" in daemon.cli("function", "list").stdout
        assert json.loads(daemon.cli("ps", "--output", "json").stdout) is not None
    finally:
        assert daemon.cli("function", "delete", "by-hand").returncode == 0
    assert daemon.cli("function", "get", "by-hand").returncode == 1


def test_through_aws(daemon: Daemon) -> None:
    hello = packages.load("hello")
    done = daemon.aws(
        "create-function", "--function-name", "by-aws", "--runtime", "python3.13", "--handler", "app.handler",
        "--role", ROLE, "--zip-file", f"fileb://{hello.package}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["State"] == "Pending"
    try:
        assert daemon.aws("wait", "function-active-v2", "--function-name", "by-aws").returncode == 0
        listed = json.loads(daemon.aws("list-functions").stdout)["Functions"]
        assert "by-aws" in [function["FunctionName"] for function in listed]
    finally:
        assert daemon.aws("delete-function", "--function-name", "by-aws").returncode == 0


def test_lists_come_in_pages(daemon: Daemon, deployed: Deployed) -> None:
    names = {deployed("hello", f"page-{n}") for n in range(5)}
    pages = list(daemon.lambda_client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    assert all(len(page["Functions"]) <= 2 for page in pages)
    listed = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert names <= set(listed) and len(listed) == len(set(listed))


def test_an_update_does_not_fail_a_request_in_flight(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("sleeps")
    before = daemon.call(name, {"seconds": 0})["identity"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(daemon.invoke, name, {"seconds": 1.5})
        eventually(lambda: busy(daemon, name))
        update = {"ZipFile": base64.b64encode(packages.load("counter").package.read_bytes()).decode()}
        assert daemon.request("PUT", f"{FUNCTIONS}/{name}/code", update).status == 200
        daemon.wait_settled(name)
        assert daemon.call(name)["count"] == 1, "new requests meet the new code while the old one runs"
        assert running.result().json == {"slept": 1.5, "identity": before}
    eventually(lambda: len(daemon.environments(name)) == 1)


@pytest.mark.parametrize("change", ["code", "configuration", "policy"])
def test_every_update_retires_the_environments(daemon: Daemon, deployed: Deployed, change: str) -> None:
    name = deployed("counter")
    first = daemon.call(name)
    assert daemon.call(name) == {**first, "count": 2}
    if change == "code":
        package = packages.zip_of({"app.py": (packages.FUNCTIONS / "counter" / "app.py").read_text() + "\n# 2\n"})
        answer = daemon.request("PUT", f"{FUNCTIONS}/{name}/code", {"ZipFile": base64.b64encode(package).decode()})
    elif change == "configuration":
        variables = {"Environment": {"Variables": {"GENERATION": "2"}}}
        answer = daemon.request("PUT", f"{FUNCTIONS}/{name}/configuration", variables)
    else:
        answer = daemon.admin("PUT", f"/functions/{name}/policy", {"AllowEgress": [], "AllowInvoke": True})
    assert answer.status == 200, answer
    daemon.wait_settled(name)
    second = daemon.call(name)
    assert second["identity"] != first["identity"] and second["count"] == 1
    assert second["generation"] == ("2" if change == "configuration" else "")
    eventually(lambda: len(daemon.environments(name)) == 1)


def test_requests_all_through_updates(daemon: Daemon, deployed: Deployed) -> None:
    """None of a steady stream of requests fails while configuration changes again and again."""
    name = deployed("counter")
    stop = threading.Event()
    answers: list[Any] = []

    def ask() -> None:
        while not stop.is_set():
            answers.append(daemon.invoke(name))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for generation in range(5):
            variables = {"Environment": {"Variables": {"GENERATION": str(generation)}}}
            assert daemon.request("PUT", f"{FUNCTIONS}/{name}/configuration", variables).status == 200
            daemon.wait_settled(name)
            time.sleep(0.1)
        stop.set()
        for one in asking:
            one.result()
    assert not [one for one in answers if one.status != 200 or "x-amz-function-error" in one.headers]
    assert daemon.call(name)["generation"] == "4"


def test_deleted_while_a_request_is_in_flight(daemon: Daemon) -> None:
    name = daemon.deploy(packages.load("sleeps"), "deleted-in-flight")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(daemon.invoke, name, {"seconds": 1})
        eventually(lambda: busy(daemon, name))
        daemon.delete(name)
        assert daemon.request("GET", f"{FUNCTIONS}/{name}").status == 404
        assert running.result().json["slept"] == 1
    eventually(lambda: not daemon.environments(name))


def test_wrong_revision(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("hello")
    with pytest.raises(ClientError) as caught:
        daemon.lambda_client.update_function_configuration(FunctionName=name, Timeout=4, RevisionId="x" * 36)
    assert caught.value.response["Error"]["Code"] == "PreconditionFailedException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_functions_and_keys_survive_a_restart(fresh_daemon: Callable[..., Daemon]) -> None:
    daemon = fresh_daemon()
    daemon.start()
    name = daemon.deploy(packages.load("counter"))
    before = daemon.request("GET", f"{FUNCTIONS}/{name}/configuration").json
    client = daemon.lambda_client
    assert json.load(client.invoke(FunctionName=name)["Payload"])["count"] == 1
    daemon.restart()
    assert daemon.request("GET", f"{FUNCTIONS}/{name}/configuration").json == before
    assert json.load(client.invoke(FunctionName=name)["Payload"])["count"] == 1, "a new daemon has new environments"


def busy(daemon: Daemon, name: str) -> bool:
    return any(row["State"].upper() == "BUSY" for row in daemon.environments(name))


def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds * TIME_FACTOR
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)
