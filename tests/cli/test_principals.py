"""`sandboxd user` and `sandboxd role`, and keys of users."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Daemon, Run

ALICE = {
    "UserName": "alice",
    "Arn": "arn:aws:iam::111111111111:user/alice",
    "CreateDate": "2026",
    "Policies": ["a", "b"],
}
USERS = "/sandboxd/v1/users"


def test_users(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {USERS}", ALICE, 201)
    daemon.answer(f"GET {USERS}", {"Users": [ALICE]})
    daemon.answer(f"GET {USERS}/alice", ALICE)
    daemon.answer(f"DELETE {USERS}/alice", status=204)
    assert run("user", "create", "alice", "--account", "2" * 12).stdout == f"{ALICE['Arn']}\n"
    assert daemon.requests[-1].json == {"UserName": "alice"}
    assert daemon.requests[-1].headers["x-sandboxd-account"] == "2" * 12
    assert run("user", "list").stdout.splitlines()[1].split() == ["alice", ALICE["Arn"], "2026", "a", "b"]
    for words in (("create", "alice"), ("get", "alice")):
        assert json.loads(run("user", *words, "-o", "json").stdout) == ALICE
    assert json.loads(run("user", "list", "-o", "json").stdout) == {"Users": [ALICE]}
    assert json.loads(run("user", "delete", "alice", "-o", "json").stdout) == {"Deleted": "alice"}


def test_policies(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    daemon.answer(f"PUT {USERS}/alice/policies", status=204)
    daemon.answer(f"DELETE {USERS}/alice/policies", status=204)
    file = tmp_path / "policy.json"
    file.write_text('{"Statement": []}')
    expected = {"PolicyName": "p", "PolicyDocument": '{"Statement": []}'}
    assert run("user", "put-policy", "alice", "p", str(file)).exit_code == 0
    assert daemon.requests[-1].json == expected
    assert run("user", "put-policy", "alice", "p", "-", input=file.read_text()).exit_code == 0
    assert daemon.requests[-1].json == expected
    assert run("user", "delete-policy", "alice", "p=&", "-o", "json").exit_code == 0
    assert daemon.requests[-1].target == f"{USERS}/alice/policies?name=p%3D%26"


def test_roles(daemon: Daemon, run: Run) -> None:
    worker = {
        "RoleName": "worker",
        "Arn": "arn:aws:iam::111111111111:role/worker",
        "CreateDate": "2026",
        "Policies": [],
    }
    daemon.answer("POST /sandboxd/v1/roles", worker, 201)
    daemon.answer("GET /sandboxd/v1/roles", {"Roles": [worker]})
    assert run("role", "create", "worker").stdout == f"{worker['Arn']}\n"
    assert daemon.requests[-1].json == {"RoleName": "worker"}
    assert run("role", "list").stdout.splitlines()[1].split() == ["worker", worker["Arn"], "2026"]


def test_groups(daemon: Daemon, run: Run) -> None:
    readers = {"GroupName": "readers", "Arn": "arn:aws:iam::111111111111:group/readers", "Users": ["alice"]}
    daemon.answer("POST /sandboxd/v1/groups", readers, 201)
    for method in ("PUT", "DELETE"):
        daemon.answer(f"{method} {USERS}/alice/groups", status=204)
    assert run("group", "create", "readers").stdout == f"{readers['Arn']}\n"
    assert daemon.requests[-1].json == {"GroupName": "readers"}
    assert run("group", "add-user", "readers", "alice").exit_code == 0
    assert daemon.requests[-1].json == {"GroupName": "readers"}
    assert json.loads(run("group", "remove-user", "readers", "alice", "-o", "json").stdout) == {"Removed": "alice"}
    assert daemon.requests[-1].target == f"{USERS}/alice/groups?name=readers"


def test_trust_and_boundary(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"Statement": []}')
    daemon.answer("POST /sandboxd/v1/roles", {"Arn": "a"}, 201)
    daemon.answer("PUT /sandboxd/v1/roles/worker/trust", status=204)
    for method in ("PUT", "DELETE"):
        daemon.answer(f"{method} /sandboxd/v1/roles/worker/boundary", status=204)
        daemon.answer(f"{method} {USERS}/alice/boundary", status=204)
    assert run("role", "create", "worker", "--trust", str(file)).exit_code == 0
    assert daemon.requests[-1].json == {"RoleName": "worker", "AssumeRolePolicyDocument": '{"Statement": []}'}
    assert run("role", "put-trust", "worker", str(file)).exit_code == 0
    assert daemon.requests[-1].json == {"PolicyDocument": '{"Statement": []}'}
    for group, name in (("role", "worker"), ("user", "alice")):
        assert run(group, "put-boundary", name, "-", input="{}").exit_code == 0
        assert daemon.requests[-1].json == {"PolicyDocument": "{}"}
        assert run(group, "delete-boundary", name, "-o", "json").exit_code == 0
        assert daemon.requests[-1].target == f"/sandboxd/v1/{group}s/{name}/boundary"


def test_a_key_for_a_user(daemon: Daemon, run: Run) -> None:
    daemon.answer("POST /sandboxd/v1/keys", {"AccessKeyId": "k"}, 201)
    assert run("key", "create", "--user", "alice", "-o", "json").exit_code == 0
    assert daemon.requests[-1].json == {"Description": "", "UserName": "alice"}
