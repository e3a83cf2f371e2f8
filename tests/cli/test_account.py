"""`sandboxd account`, and the account that other commands are for."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Daemon, Run

ACCOUNTS = "/sandboxd/v1/accounts"
OTHER = "222222222222"
ROW = {"AccountId": OTHER, "Default": False, "Functions": 3, "Users": 1, "Keys": 0}


def test_accounts(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {ACCOUNTS}", ROW, 201)
    daemon.answer(f"GET {ACCOUNTS}", {"Accounts": [ROW]})
    daemon.answer(f"DELETE {ACCOUNTS}/{OTHER}", status=204)
    assert run("account", "create", OTHER).stdout == f"{OTHER}\n"
    assert daemon.requests[-1].json == {"AccountId": OTHER}
    assert run("account", "list").stdout.splitlines()[1].split() == [OTHER, "no", "3", "1", "0"]
    assert json.loads(run("account", "list", "-o", "json").stdout) == {"Accounts": [ROW]}
    assert json.loads(run("account", "create", OTHER, "-o", "json").stdout) == ROW
    assert json.loads(run("account", "delete", OTHER, "-o", "json").stdout) == {"Deleted": OTHER}
    assert run("account", "delete", OTHER).stdout == ""


def test_a_command_is_for_an_account(daemon: Daemon, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.answer("GET /sandboxd/v1/users", {"Users": []})
    named = lambda: daemon.requests[-1].headers.get("x-sandboxd-account")  # noqa: E731
    run("user", "list")
    assert named() is None
    run("user", "list", "--account", OTHER)
    assert named() == OTHER
    monkeypatch.setenv("SANDBOXD_ACCOUNT", "333333333333")
    run("user", "list")
    assert named() == "333333333333"
    run("user", "list", "--account", OTHER)
    assert named() == OTHER
    for bad in ("1", "22222222222a", "2" * 13, "２" * 12):
        assert run("user", "list", "--account", bad).exit_code == 2
