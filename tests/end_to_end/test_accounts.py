"""Two accounts of one daemon: functions of the same name and package side by side, a restart between, and a grant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.end_to_end.test_authorization import INVOKE, done
from tests.support import packages
from tests.support.daemon import Daemon

THEIRS = "222222222222"
MARK = "print('said by', event['who']); result = [event['who'], context.invoked_function_arn]"
LEAVE = "open('/tmp/left', 'w').write('x'); result = None"
FOUND = "import os; result = os.path.exists('/tmp/left')"


class Theirs:
    """Another account with the function `same` as the daemon's own has."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        done(daemon, "account", "create", THEIRS)
        key = json.loads(done(daemon, "key", "create", "--account", THEIRS, "--output", "json"))
        self.client: Any = daemon.boto3(key=key["AccessKeyId"], secret=key["SecretAccessKey"])
        about = packages.load("evaluate")
        self.client.create_function(
            FunctionName="same",
            Runtime=about.runtime,
            Handler=about.handler,
            Role=f"arn:aws:iam::{THEIRS}:role/worker",
            MemorySize=about.memory,
            Timeout=about.timeout,
            Code={"ZipFile": about.package.read_bytes()},
        )
        self.client.get_waiter("function_active_v2").wait(FunctionName="same", WaiterConfig={"Delay": 0.1})

    def call(self, code: str, **event: Any) -> Any:
        answer = self.client.invoke(FunctionName="same", Payload=json.dumps({"code": code} | event))
        assert "FunctionError" not in answer, answer["Payload"].read()
        return json.load(answer["Payload"])


@pytest.fixture(scope="module")
def theirs(_daemon: Daemon) -> Iterator[Theirs]:
    made = Theirs(_daemon)
    _daemon.deploy(packages.load("evaluate"), "same")
    yield made
    made.client.delete_function(FunctionName="same")
    _daemon.delete("same")
    done(_daemon, "role", "delete", "worker", "--account", THEIRS)
    done(_daemon, "account", "delete", THEIRS)
    assert THEIRS not in done(_daemon, "account", "list")


def test_functions_of_one_name(daemon: Daemon, theirs: Theirs) -> None:
    ours = daemon.admin("GET", "/status").json["AccountId"]
    assert daemon.call("same", {"code": MARK, "who": "ours"})[1] == f"arn:aws:lambda:us-east-1:{ours}:function:same"
    assert theirs.call(MARK, who="theirs") == ["theirs", f"arn:aws:lambda:us-east-1:{THEIRS}:function:same"]
    daemon.call("same", {"code": LEAVE})
    assert theirs.call(FOUND) is False and daemon.call("same", {"code": FOUND}) is True
    assert {row["Account"] for row in daemon.environments("same")} == {ours, THEIRS}
    for words, said in (((), "ours"), (("--account", THEIRS), "theirs")):
        log = done(daemon, "logs", "same", *words)
        assert [line for line in log.splitlines() if "said by" in line] == [f"said by {said}"]
        assert done(daemon, "invoke", "same", "-p", json.dumps({"code": "result = 1"}), *words) == "1\n"
    assert THEIRS in done(daemon, "ps") and done(daemon, "ps", "--account", "0" * 12).count(THEIRS) == 0
    daemon.restart()
    assert theirs.call(MARK, who="again")[0] == "again"
    assert "said by again" not in done(daemon, "logs", "same")


def test_a_grant_reaches_another_account(daemon: Daemon, theirs: Theirs) -> None:
    name = f"arn:aws:lambda:us-east-1:{THEIRS}:function:same"
    with pytest.raises(ClientError, match=r"AccessDeniedException.*no resource-based policy"):
        daemon.boto3().invoke(FunctionName=name)
    own = daemon.admin("GET", "/status").json["AccountId"]
    theirs.client.add_permission(FunctionName="same", StatementId="s", Principal=own, Action="lambda:InvokeFunction")
    answer = daemon.boto3().invoke(FunctionName=name, Payload=json.dumps({"code": "result = 7"}))
    assert json.load(answer["Payload"]) == 7
    theirs.client.remove_permission(FunctionName="same", StatementId="s")
    with pytest.raises(ClientError, match="AccessDeniedException"):
        daemon.boto3().invoke(FunctionName=name)


def test_a_function_reaches_what_its_role_and_the_other_account_allow(daemon: Daemon, theirs: Theirs) -> None:
    own = daemon.admin("GET", "/status").json["AccountId"]
    ours = f"arn:aws:lambda:us-east-1:{own}:function:same"
    done(daemon, "role", "create", "worker", "--account", THEIRS)
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    done(daemon, "role", "put-policy", "worker", "p", "-", "--account", THEIRS, policy=everything)
    done(daemon, "function", "update", "same", "--allow-invoke", "--account", THEIRS)
    status, text = theirs.call(INVOKE, name=ours)
    assert status == 403 and "no resource-based policy" in text
    assert theirs.call(INVOKE, name=f"arn:aws:lambda:us-east-1:{own}:function:none")[0] == 403
    permission = {"FunctionName": "same", "StatementId": "s", "Action": "lambda:InvokeFunction"}
    daemon.boto3().add_permission(Principal=f"arn:aws:iam::{THEIRS}:role/worker", **permission)
    refused = theirs.call(INVOKE, name=ours)
    assert "errorMessage" in refused, "it ran there: the payload is no code"
