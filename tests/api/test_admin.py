"""The administration on the unix socket: what it answers, and who may ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import DIGEST, Endpoint

ADMIN = "/sandboxd/v1"


def ask(endpoint: Endpoint, method: str, path: str, body: Any = b"") -> tuple[int, Any]:
    status, _, answer = endpoint.unix(method, ADMIN + path, body)
    return status, json.loads(answer) if answer else None


def test_status(endpoint: Endpoint) -> None:
    endpoint.create()
    status, document = ask(endpoint, "GET", "/status")
    assert status == 200
    assert document["Endpoint"] == endpoint.url
    assert (document["Instance"], document["Functions"], document["Environments"]) == ("main", 1, 0)
    assert document["Limits"]["memory_mb_max"] == 3008
    assert [image["Runtime"] for image in document["Images"]] == ["python3.11", "python3.12", "python3.13"]


def test_environments(endpoint: Endpoint) -> None:
    endpoint.scheduler.rows = [{"Id": 7, "Function": "f", "AgeSeconds": 1.0}]
    assert ask(endpoint, "GET", "/environments") == (200, {"Environments": endpoint.scheduler.rows})


def test_policy(endpoint: Endpoint) -> None:
    before = endpoint.create()
    assert ask(endpoint, "GET", "/functions/hello/policy") == (200, {"AllowEgress": None, "AllowInvoke": False})
    wanted = {"AllowEgress": ["0.0.0.0/0:443", "10.0.0.0/8:1-1000", "*.example.org:443"], "AllowInvoke": True}
    assert ask(endpoint, "PUT", "/functions/hello/policy", wanted) == (200, wanted)
    assert ask(endpoint, "GET", "/functions/hello/policy") == (200, wanted)
    assert endpoint.scheduler.retired == ["hello:$LATEST"]
    assert endpoint.settled("hello")["RevisionId"] != before["RevisionId"]
    version = endpoint.store.functions.resolve("hello")
    assert version is not None and version.policy.invoke
    assert (len(version.policy.egress), len(version.policy.hosts)) == (2, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        [],
        {"AllowEgress": "x"},
        {"AllowEgress": [7]},
        {"AllowEgress": ["10.0.0.1/8:443"]},
        {"AllowEgress": ["10.0.0.0/8"]},
        {"AllowEgress": ["10.0.0.0/8:0"]},
        {"AllowEgress": [f"10.0.0.{n}:80" for n in range(65)]},
        {"AllowEgress": ["10.0.0.0/8:1-1025"]},
        {"AllowInvoke": "yes"},
        {"AllowAll": True},
    ],
)
def test_policy_that_is_none(endpoint: Endpoint, body: Any) -> None:
    endpoint.create()
    assert ask(endpoint, "PUT", "/functions/hello/policy", body)[0] == 400
    assert ask(endpoint, "GET", "/functions/hello/policy") == (200, {"AllowEgress": None, "AllowInvoke": False})


def test_keys(endpoint: Endpoint) -> None:
    status, made = ask(endpoint, "POST", "/keys", {"Description": "for tests"})
    assert status == 201 and made["Description"] == "for tests"
    listed = ask(endpoint, "GET", "/keys")[1]["Keys"]
    assert {key["AccessKeyId"] for key in listed} == {made["AccessKeyId"], endpoint.key.id}
    assert made["SecretAccessKey"] not in json.dumps(listed)
    assert ask(endpoint, "DELETE", f"/keys/{made['AccessKeyId']}") == (204, None)
    assert ask(endpoint, "DELETE", f"/keys/{made['AccessKeyId']}")[0] == 404
    for wrong in ([], {"Description": 7}, {"Description": "x" * 257}, {"Description": "a\nb"}):
        assert ask(endpoint, "POST", "/keys", wrong)[0] == 400


def test_logs(endpoint: Endpoint) -> None:
    endpoint.create()
    logs = "/functions/hello/logs?version=%24LATEST"
    assert ask(endpoint, "GET", logs) == (200, {"Offset": 0, "Data": ""})
    text = "grüße\n".encode()
    endpoint.logs.texts["111111111111", "hello", "$LATEST"] = text
    assert ask(endpoint, "GET", logs) == (200, {"Offset": len(text), "Data": "grüße\n"})
    assert ask(endpoint, "GET", f"{logs}&offset=-1") == (200, {"Offset": len(text), "Data": "\n"})
    endpoint.logs.texts["111111111111", "hello", "$LATEST"] = text[:3]
    assert ask(endpoint, "GET", logs) == (200, {"Offset": 2, "Data": "gr"})
    assert ask(endpoint, "GET", f"{logs}&offset=2") == (200, {"Offset": 3, "Data": "\ufffd"})
    assert ask(endpoint, "GET", f"{logs}&offset=x")[0] == 400
    assert ask(endpoint, "GET", "/functions/nope/logs")[0] == 404
    for version in ("..%2F..%2Fsandboxd.db", "", "-1"):
        assert ask(endpoint, "GET", f"/functions/hello/logs?version={version}")[0] == 400


def test_logs_wait_for_news(endpoint: Endpoint) -> None:
    endpoint.create()

    def write() -> None:
        time.sleep(0.2)
        endpoint.logs.texts["111111111111", "hello", "$LATEST"] = b"news"

    writer = threading.Thread(target=write)
    writer.start()
    assert ask(endpoint, "GET", "/functions/hello/logs?wait=20") == (200, {"Offset": 4, "Data": "news"})
    writer.join()


def test_images_are_read_again_when_asked(endpoint: Endpoint) -> None:
    directory = endpoint.config.images_dir
    (directory / "python3.13.json").unlink()
    (directory / "python3.9.json").write_text('{"runtime": "python3.8"}')
    (directory / "python3.10.json").write_text("no JSON")
    (directory / "python3.14.json").symlink_to(directory / "python3.12.json")
    status, document = ask(endpoint, "POST", "/images/refresh")
    assert status == 200
    assert [(image["Runtime"], image["Digest"]) for image in document["Images"]] == [
        ("python3.11", DIGEST), ("python3.12", DIGEST),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("POST", "/status"), ("GET", "/functions/x"), ("GET", "/")]
)
def test_what_there_is_not(endpoint: Endpoint, method: str, path: str) -> None:
    assert ask(endpoint, method, path)[0] == 404


ASK_AS_ANOTHER = """
import os, socket, sys
door = socket.socket(socket.AF_UNIX)
gid, groups = int(sys.argv[2]), [int(g) for g in sys.argv[3].split(",") if g]
os.setgroups(groups); os.setgid(gid); os.setuid(65534)
door.connect(sys.argv[1])
door.sendall(b"GET /2015-03-31/functions HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
print(door.recv(65536).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
@pytest.mark.parametrize(
    ("gid", "groups", "allowed"),
    [
        (65534, "", False),
        (0, "0,4", False),
        (1, "", True),
        (65534, "4,1", True),
        (65534, ",".join(map(str, range(2, 259))), False),
    ],
)
def test_who_may_ask(make_endpoint: Callable[..., Endpoint], gid: int, groups: str, allowed: bool) -> None:
    """Root (who asks in the other tests) and the group, primary or supplementary: here `daemon`, of number 1."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        endpoint = make_endpoint(user="daemon", run_dir=Path(directory))
        endpoint.config.api_socket.chmod(0o666)
        command = [sys.executable, "-I", "-c", ASK_AS_ANOTHER, str(endpoint.config.api_socket), str(gid), groups]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HTTP/1.1 200 OK" if allowed else "HTTP/1.1 403 Forbidden"), done.stdout
