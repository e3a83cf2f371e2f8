"""`sandboxd function`: the requests that options become, waiting, roll-back, output."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Daemon, Run

BASE = "/2015-03-31/functions"
POLICY = "/sandboxd/v1/functions/f/policy"
PENDING = {"FunctionName": "f", "State": "Pending", "LastUpdateStatus": "InProgress"}
ACTIVE = {"FunctionName": "f", "State": "Active", "LastUpdateStatus": "Successful", "MemorySize": 128}
CREATE = ("function", "create", "f", "--runtime", "python3.13", "--handler", "app.handler")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    directory = tmp_path / "code"
    directory.mkdir()
    (directory / "app.py").write_text("def handler(event, context): return event\n")
    return directory


def sent(daemon: Daemon, method: str) -> list[tuple[str, Any]]:
    return [(r.target, r.json if r.body else None) for r in daemon.requests if r.method == method]


def unpacked(request: dict[str, Any]) -> list[str]:
    package = request.get("Code", request)["ZipFile"]
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(package))).namelist()


def test_create_with_every_option(daemon: Daemon, run: Run, code: Path) -> None:
    daemon.answer(f"POST {BASE}", PENDING, 201)
    daemon.answer(f"GET {BASE}/f/configuration", PENDING)
    daemon.answer(f"GET {BASE}/f/configuration", ACTIVE)
    daemon.answer(f"PUT {POLICY}", {})
    result = run(
        *CREATE, "--dir", str(code), "--memory", "256", "--timeout", "9", "--tmp", "1024", "--description", "d",
        "--env", "A=1", "--env", "B=x=y", "--env", "C=", "--allow-egress", "10.0.0.0/8:443", "--allow-egress",
        "192.0.2.1:5000-6000", "--allow-invoke", "-o", "json",
    )  # fmt: skip
    assert (result.exit_code, json.loads(result.stdout)) == (0, ACTIVE)
    [(_, request)] = sent(daemon, "POST")
    assert unpacked(request) == ["app.py"]
    del request["Code"]
    assert request == {
        "FunctionName": "f",
        "Runtime": "python3.13",
        "Handler": "app.handler",
        "Role": "arn:aws:iam::123456789012:role/sandboxd",
        "Description": "d",
        "MemorySize": 256,
        "Timeout": 9,
        "EphemeralStorage": {"Size": 1024},
        "Environment": {"Variables": {"A": "1", "B": "x=y", "C": ""}},
    }
    policy = {"AllowEgress": ["10.0.0.0/8:443", "192.0.2.1/32:5000-6000"], "AllowInvoke": True}
    assert sent(daemon, "PUT") == [(POLICY, policy)]


def test_create_sends_only_what_was_said(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    package = tmp_path / "f.zip"
    package.write_bytes(b"not even a zip: the daemon judges")
    daemon.answer(f"POST {BASE}", PENDING, 201)
    result = run(*CREATE, "--zip", str(package), "--role", "arn:aws:iam::1:role/r", "--no-wait")
    assert result.exit_code == 0
    [(_, request)] = sent(daemon, "POST")
    assert set(request) == {"FunctionName", "Runtime", "Handler", "Role", "Code"}
    assert request["Role"] == "arn:aws:iam::1:role/r"
    assert base64.b64decode(request["Code"]["ZipFile"]) == package.read_bytes()
    assert [r.method for r in daemon.requests] == ["POST"]


def test_code_in_a_bucket(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}", ACTIVE, 201)
    daemon.answer(f"PUT {BASE}/f/code", ACTIVE)
    assert run(*CREATE, "--s3", "s3://b/some/key.zip", "--s3-version", "v", "--no-wait").exit_code == 0
    code = {"S3Bucket": "b", "S3Key": "some/key.zip", "S3ObjectVersion": "v"}
    assert daemon.requests[-1].json["Code"] == code
    assert run("function", "update", "f", "--s3", "s3://b/k", "--no-wait").exit_code == 0
    assert daemon.requests[-1].json == {"S3Bucket": "b", "S3Key": "k"}


def test_create_leaves_nothing_where_its_policy_is_refused(daemon: Daemon, run: Run, code: Path) -> None:
    daemon.answer(f"POST {BASE}", PENDING, 201)
    daemon.answer(f"GET {BASE}/f/configuration", ACTIVE)
    daemon.refuse(f"PUT {POLICY}", "InvalidParameterValueException", "too many rules")
    daemon.answer(f"DELETE {BASE}/f", status=204)
    result = run(*CREATE, "--dir", str(code), "--allow-egress", "10.0.0.0/8:443")
    assert result.exit_code == 1
    assert "(InvalidParameterValueException)" in result.stderr
    assert daemon.requests[-1].method == "DELETE"


def test_create_that_fails_later(daemon: Daemon, run: Run, code: Path) -> None:
    daemon.answer(f"POST {BASE}", PENDING, 201)
    daemon.answer(f"GET {BASE}/f/configuration", PENDING | {"State": "Failed", "StateReason": "disk full"})
    result = run(*CREATE, "--dir", str(code))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "sandboxd: function f failed: disk full\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "one of --zip, --dir and --s3 is needed"),
        (("--dir", ".", "--zip", "{zip}"), "--zip, --dir and --s3 exclude one another"),
        (("--dir", ".", "--s3", "s3://b/k"), "--zip, --dir and --s3 exclude one another"),
        (("--s3", "b/k"), "'b/k' is not s3://BUCKET/KEY"),
        (("--s3", "s3://b/"), "'s3://b/' is not s3://BUCKET/KEY"),
        (("--zip", "{zip}", "--s3-version", "1"), "--s3-version needs --s3"),
        (("--dir", "/nonexistent"), "'/nonexistent' does not exist"),
        (("--zip", "/"), "is a directory"),
        (("--zip", "{zip}", "--env", "A"), "'A' is not NAME=VALUE"),
        (("--zip", "{zip}", "--env", "=A"), "'=A' is not NAME=VALUE"),
        (("--zip", "{zip}", "--memory", "lots"), "'lots' is not a valid integer"),
        (("--zip", "{zip}", "--allow-egress", "10.0.0.0/8"), "expected CIDR:PORT"),
        (("--zip", "{zip}", "--allow-egress", "10.0.0.1/8:443"), "has host bits set"),
        (("--zip", "{zip}", "--allow-egress", "example.org"), "egress 'example.org'"),
        (("--zip", "{zip}", "--allow-egress", "10.0.0.0/8:0"), "not within 1 to 65535"),
        (("--zip", "{zip}", "--allow-egress", "10.0.0.0/8:x"), "is not a number"),
    ],
)
def test_create_with_bad_options_asks_nothing(
    daemon: Daemon, run: Run, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    package = tmp_path / "f.zip"
    package.write_bytes(b"x")
    result = run(*CREATE, *(option.format(zip=package) for option in options))
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr
    assert daemon.requests == []


def test_package_over_the_limit(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    with daemon.config_file.open("a") as file:
        file.write("limits.zip_bytes = 10\n")
    package = tmp_path / "f.zip"
    package.write_bytes(b"x" * 100)
    result = run(*CREATE, "--zip", str(package))
    assert result.exit_code == 2
    assert result.stderr == f"sandboxd: {package}: as a zip larger than 10 bytes (limits.zip_bytes)\n"
    assert daemon.requests == []


def test_update_of_everything_in_order(daemon: Daemon, run: Run, code: Path) -> None:
    for path in ("code", "configuration"):
        daemon.answer(f"PUT {BASE}/f/{path}", ACTIVE | {"LastUpdateStatus": "InProgress"})
    daemon.answer(f"GET {BASE}/f/configuration", ACTIVE)
    daemon.answer(f"GET {POLICY}", {"AllowEgress": ["10.0.0.0/8:1"], "AllowInvoke": False})
    daemon.answer(f"PUT {POLICY}", {})
    result = run("function", "update", "f", "--dir", str(code), "--timeout", "5", "--allow-invoke")
    assert result.exit_code == 0, result.stderr
    (first, package), second, third = sent(daemon, "PUT")
    assert (first, unpacked(package)) == (f"{BASE}/f/code", ["app.py"])
    assert second == (f"{BASE}/f/configuration", {"Timeout": 5})
    assert third == (POLICY, {"AllowEgress": ["10.0.0.0/8:1"], "AllowInvoke": True})
    waits = [r.target for r in daemon.requests].index(f"{BASE}/f/configuration")
    assert daemon.requests[waits].method == "GET"


@pytest.mark.parametrize(
    ("options", "path", "body"),
    [
        (("--no-env",), f"{BASE}/f/configuration", {"Environment": {"Variables": {}}}),
        (("--env", "A=2"), f"{BASE}/f/configuration", {"Environment": {"Variables": {"A": "2"}}}),
        (("--tmp", "600"), f"{BASE}/f/configuration", {"EphemeralStorage": {"Size": 600}}),
        (("--description", ""), f"{BASE}/f/configuration", {"Description": ""}),
        (("--no-egress",), POLICY, {"AllowEgress": [], "AllowInvoke": True}),
        (("--role-egress",), POLICY, {"AllowEgress": None, "AllowInvoke": True}),
        (("--allow-egress", "192.0.2.0/24:80"), POLICY, {"AllowEgress": ["192.0.2.0/24:80"], "AllowInvoke": True}),
        (("--deny-invoke",), POLICY, {"AllowEgress": ["10.0.0.0/8:1"], "AllowInvoke": False}),
    ],
)
def test_update_of_one_thing(
    daemon: Daemon, run: Run, options: tuple[str, ...], path: str, body: dict[str, Any]
) -> None:
    daemon.answer(f"PUT {BASE}/f/configuration", ACTIVE)
    daemon.answer(f"GET {BASE}/f/configuration", ACTIVE)
    daemon.answer(f"GET {POLICY}", {"AllowEgress": ["10.0.0.0/8:1"], "AllowInvoke": True})
    daemon.answer(f"PUT {POLICY}", {})
    assert run("function", "update", "f", *options).exit_code == 0
    assert sent(daemon, "PUT") == [(path, body)]


@pytest.mark.parametrize(
    "options", [(), ("--no-wait",), ("--no-env", "--env", "A=1"), ("--no-egress", "--allow-egress", "10.0.0.0/8:1")]
)
def test_update_with_nothing_or_a_contradiction(daemon: Daemon, run: Run, options: tuple[str, ...]) -> None:
    assert run("function", "update", "f", *options).exit_code == 2
    assert daemon.requests == []


def test_list_reads_every_page(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"GET {BASE}/", {"Functions": [{"FunctionName": "a", "MemorySize": 128}], "NextMarker": "m/1"})
    daemon.answer(f"GET {BASE}/", {"Functions": [{"FunctionName": "bcd", "MemorySize": 3008}], "NextMarker": None})
    result = run("function", "list")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["NAME", "a", "bcd"]
    assert [r.target for r in daemon.requests] == [f"{BASE}/", f"{BASE}/?Marker=m%2F1"]


def test_list_of_nothing(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"GET {BASE}/", {"Functions": []})
    assert run("function", "list").stdout.split() == [
        "NAME", "RUNTIME", "HANDLER", "MEMORY", "MB", "TIMEOUT", "S", "CODE", "BYTES", "MODIFIED",
    ]  # fmt: skip
    assert json.loads(run("function", "list", "-o", "json").stdout) == {"Functions": []}


def test_get_shows_permissions_too(daemon: Daemon, run: Run) -> None:
    configuration = ACTIVE | {"Runtime": "python3.12", "Description": "\x1b]0;owned\x07"}
    daemon.answer(f"GET {BASE}/f", {"Configuration": configuration, "Code": {}})
    daemon.answer("GET /sandboxd/v1/status", {"Runtimes": {"python3.11": "python3.13"}})
    daemon.answer(f"GET {POLICY}", {"AllowEgress": ["10.0.0.0/8:443"], "AllowInvoke": False})
    network = {"Allow": ["10.1.0.0/16:443"], "Deny": ["10.1.1.0/24:443"]}
    daemon.answer("GET /sandboxd/v1/functions/f/network", network)
    table = run("function", "get", "f").stdout
    shown = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert shown["AllowEgress"] == ["10.0.0.0/8:443"]
    assert shown["Reaches"] == ["10.1.0.0/16:443"] and shown["ReachesNot"] == ["10.1.1.0/24:443"]
    assert "\x1b" not in table
    assert "\\x1b]0;owned\\x07" in table
    document = json.loads(run("function", "get", "f", "--output", "json").stdout)
    assert document["Policy"] == {"AllowEgress": ["10.0.0.0/8:443"], "AllowInvoke": False}
    assert document["Network"] == network
    assert "served by" not in table and "ServedBy" not in document


def test_delete(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"DELETE {BASE}/f", status=204)
    assert run("function", "delete", "f").stdout == ""
    assert json.loads(run("function", "delete", "f", "-o", "json").stdout) == {"Deleted": "f"}
