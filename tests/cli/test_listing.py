"""`status`, `ps`, `logs`, `key` and `gc`: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sandboxd.cli.output import harmless
from tests.cli.conftest import Daemon, Run

STATUS = {
    "Version": "0.1.0", "Instance": "main", "Region": "us-east-1", "AccountId": "123456789012",
    "Endpoint": "http://127.0.0.1:8470", "Auth": "sigv4", "Limits": {"concurrency": 1000}, "Environments": 2,
    "Functions": 1, "Images": ["python3.13"], "StartedAt": "2026-01-01T00:00:00Z",
}  # fmt: skip
ENVIRONMENT = {
    "Id": 7, "Account": "123456789012", "Function": "hello",
    "Version": "$LATEST", "State": "IDLE", "MemorySize": 128, "Invocations": 12,
    "AgeSeconds": 3.25, "IdleSeconds": None, "MemoryUsedMB": 31,
}  # fmt: skip
KEY = {"AccessKeyId": "AKIASANDBOXD", "SecretAccessKey": "s3cr3t/+", "Description": "d", "CreateDate": "2026-01-01"}
LOGS = "GET /sandboxd/v1/functions/f/logs"


def test_status(daemon: Daemon, run: Run) -> None:
    daemon.answer("GET /sandboxd/v1/status", STATUS)
    lines = dict(line.split(maxsplit=1) for line in run("status").stdout.splitlines())
    assert (lines["Endpoint"], lines["Images"], lines["limits.concurrency"]) == (
        "http://127.0.0.1:8470", "python3.13", "1000",
    )  # fmt: skip
    assert json.loads(run("status", "--output", "json").stdout) == STATUS


def test_ps(daemon: Daemon, run: Run) -> None:
    daemon.answer("GET /sandboxd/v1/environments", {"Environments": [ENVIRONMENT, ENVIRONMENT | {"Id": 1234}]})
    head, first, second = run("ps").stdout.splitlines()
    assert head.split()[:4] == ["ID", "ACCOUNT", "FUNCTION", "VERSION"]
    assert first.split() == ["7", "123456789012", "hello", "$LATEST", "IDLE", "12", "31", "128", "3.2", "-"]
    assert first.index("7") == second.index("1234") + 3
    assert json.loads(run("ps", "-o", "json").stdout)["Environments"][0] == ENVIRONMENT


def test_logs_from_the_beginning(daemon: Daemon, run: Run) -> None:
    for offset, data in ((4, "one\n"), (8, "two\n"), (8, "")):
        daemon.answer(LOGS, {"Offset": offset, "Data": data})
    assert run("logs", "f").stdout == "one\ntwo\n"
    assert [r.target.partition("?")[2] for r in daemon.requests] == [
        f"version=%24LATEST&offset={offset}&wait=0" for offset in (0, 4, 8)
    ]


@pytest.mark.parametrize(("lines", "text"), [("0", ""), ("1", "c\n"), ("2", "b\nc\n"), ("9", "a\nb\nc\n")])
def test_last_lines_of_a_log(daemon: Daemon, run: Run, lines: str, text: str) -> None:
    for data in ("a\nb", "\n", "c\n", ""):
        daemon.answer(LOGS, {"Offset": 1, "Data": data})
    assert run("logs", "f", "--tail", lines, "--version", "$LATEST").stdout == text


def test_follow_polls_from_where_it_stood(daemon: Daemon, run: Run) -> None:
    for offset, data in ((4, "one\n"), (4, ""), (8, "two\n")):
        daemon.answer(LOGS, {"Offset": offset, "Data": data})
    daemon.refuse(LOGS, "ResourceNotFoundException", "Function not found: f", 404)
    result = run("logs", "f", "--follow")
    assert (result.exit_code, result.stdout) == (1, "one\ntwo\n")
    assert "calling the GetLogs operation: Function not found: f" in result.stderr
    polls = [r.target.partition("?")[2] for r in daemon.requests[2:]]
    assert polls == ["version=%24LATEST&offset=4&wait=20", "version=%24LATEST&offset=8&wait=20"]


def test_key_create_prints_what_can_be_pasted(daemon: Daemon, run: Run) -> None:
    daemon.answer("POST /sandboxd/v1/keys", KEY, 201)
    daemon.answer("GET /sandboxd/v1/status", STATUS)
    text = run("key", "create", "--description", "d").stdout
    for line in (
        "export AWS_ACCESS_KEY_ID=AKIASANDBOXD",
        "export AWS_SECRET_ACCESS_KEY=s3cr3t/+",
        "export AWS_DEFAULT_REGION=us-east-1",
        "export AWS_ENDPOINT_URL_LAMBDA=http://127.0.0.1:8470",
        "aws configure set aws_access_key_id AKIASANDBOXD --profile sandboxd",
        "aws configure set endpoint_url http://127.0.0.1:8470 --profile sandboxd",
    ):
        assert line in text.splitlines()
    assert daemon.requests[0].json == {"Description": "d"}
    assert json.loads(run("key", "create", "-o", "json").stdout) == KEY


def test_key_list_and_delete(daemon: Daemon, run: Run) -> None:
    shown = {name: value for name, value in KEY.items() if name != "SecretAccessKey"} | {"UserName": "admin"}
    daemon.answer("GET /sandboxd/v1/keys", {"Keys": [shown]})
    daemon.answer("DELETE /sandboxd/v1/keys/AKIASANDBOXD", status=204)
    assert run("key", "list").stdout.splitlines()[1].split() == ["AKIASANDBOXD", "admin", "2026-01-01", "d"]
    assert json.loads(run("key", "list", "-o", "json").stdout) == {"Keys": [shown]}
    assert run("key", "delete", "AKIASANDBOXD").exit_code == 0


@pytest.mark.parametrize("route", ["key delete nokey", "function delete nofunction"])
def test_delete_of_what_is_not_there(daemon: Daemon, run: Run, route: str) -> None:
    result = run(*route.split())
    assert result.exit_code == 1
    assert result.stderr.startswith("sandboxd: An error occurred (UnknownOperation) when calling the Delete")


@pytest.mark.skipif(os.geteuid() != 0, reason="the collector is root's")
def test_gc_of_an_instance_that_never_ran(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "gc.toml"
    file.write_text(f'instance = "tgc"\ndata_dir = "{tmp_path}/data"\nrun_dir = "{tmp_path}/run"\n')
    result = run("gc", "--dry-run", "--config", str(file))
    assert (result.exit_code, result.stdout) == (0, "nothing is left over\n"), result.stderr
    assert json.loads(run("gc", "--config", str(file), "-o", "json").stdout) == []


def test_strangers_text_is_harmless() -> None:
    assert harmless("a\tb\nc\x1b[2J\x00\x7f\x9b \u00fc\U0001f600") == "a\tb\nc\\x1b[2J\\x00\\x7f\\x9b \u00fc\U0001f600"
