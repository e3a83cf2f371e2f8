"""Users and roles with the real daemon: made by the command line, judged at both doors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Deployed
from tests.support.daemon import Daemon

INVOKE = """
import json, os, urllib.error, urllib.request
url = os.environ["AWS_ENDPOINT_URL_LAMBDA"] + "/2015-03-31/functions/" + event["name"] + "/invocations"
try:
    result = json.load(urllib.request.urlopen(urllib.request.Request(url, b'"x"', method="POST")))
except urllib.error.HTTPError as error:
    result = [error.code, json.load(error)["message"]]
"""


CREDENTIALS = """
import os
result = [os.environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
"""


def done(daemon: Daemon, *words: str, policy: Any = None) -> str:
    payload = None if policy is None else json.dumps({"Version": "2012-10-17", "Statement": policy}).encode()
    answer = daemon.cli(*words, payload=payload)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def allow(resource: str) -> dict[str, str]:
    return {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": resource}


def test_a_user_may_what_the_policy_allows(daemon: Daemon, deployed: Deployed) -> None:
    echo, other = deployed("echo"), deployed("echo", "other-echo")
    who = done(daemon, "user", "create", "alice").strip()
    done(daemon, "user", "put-policy", "alice", "invoke", "-", policy=allow(f"arn:aws:lambda:*:*:function:{echo}"))
    key = json.loads(done(daemon, "key", "create", "--user", "alice", "--output", "json"))
    client: Any = daemon.boto3(key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    assert json.load(client.invoke(FunctionName=echo, Payload=b"1")["Payload"]) == 1
    with pytest.raises(ClientError, match=f"AccessDeniedException.*{who} is not authorized"):
        client.invoke(FunctionName=other)
    with pytest.raises(ClientError, match="AccessDeniedException"):
        client.delete_function(FunctionName=echo)
    done(daemon, "user", "delete", "alice")
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client.invoke(FunctionName=echo)


def test_a_function_has_temporary_credentials_of_its_role(daemon: Daemon, deployed: Deployed) -> None:
    account = daemon.admin("GET", "/status").json["AccountId"]
    echo = deployed("echo")
    done(daemon, "role", "create", "reader")
    policy = {"Effect": "Allow", "Action": "lambda:GetFunction", "Resource": "*"}
    done(daemon, "role", "put-policy", "reader", "read", "-", policy=policy)
    caller = deployed("evaluate", "caller", Role=f"arn:aws:iam::{account}:role/reader")
    key, secret, token = daemon.call(caller, {"code": CREDENTIALS})
    assert key.startswith("ASIA")
    client: Any = daemon.boto3(key=key, secret=secret, token=token)
    assert client.get_function(FunctionName=echo)["Configuration"]["FunctionName"] == echo
    with pytest.raises(ClientError, match=f"assumed-role/reader/{caller} is not authorized to perform: lambda:Invoke"):
        client.invoke(FunctionName=echo)
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        daemon.boto3(key=key, secret=secret).list_functions()
    done(daemon, "role", "delete", "reader")
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client.get_function(FunctionName=echo)
    assert daemon.call(deployed("evaluate", "bare"), {"code": CREDENTIALS}) == [None, None, None]


def test_a_function_may_invoke_what_its_role_allows(daemon: Daemon, deployed: Deployed) -> None:
    account = daemon.admin("GET", "/status").json["AccountId"]
    echo, other = deployed("echo"), deployed("echo", "other-echo")
    caller = deployed("evaluate", "caller", Role=f"arn:aws:iam::{account}:role/service/worker")
    assert daemon.admin("PUT", f"/functions/{caller}/policy", {"AllowInvoke": True}).status == 200
    daemon.wait_settled(caller)

    def ask(name: str) -> Any:
        return daemon.call(caller, {"code": INVOKE, "name": name})

    assert ask(echo) == ask(other) == "x", "no role is kept: AllowInvoke is all there is"
    done(daemon, "role", "create", "worker")
    session = f"User: arn:aws:sts::{account}:assumed-role/worker/{caller} is not authorized to perform: "
    code, message = ask(echo)
    assert code == 403 and message.startswith(f"{session}lambda:InvokeFunction on resource: "), message
    done(daemon, "role", "put-policy", "worker", "invoke", "-", policy=allow(f"arn:aws:lambda:*:*:function:{echo}"))
    assert ask(echo) == "x"
    assert ask(other)[0] == 403
    # What the other's own policy grants the role is enough.
    role = f"arn:aws:iam::{account}:role/service/worker"
    assert role in done(daemon, "permission", "add", other, "s", "--principal", role)
    assert role in done(daemon, "permission", "list", other)
    assert ask(other) == "x"
    done(daemon, "permission", "remove", other, "s")
    assert ask(other)[0] == 403
    done(daemon, "role", "delete", "worker")
    assert ask(other) == "x"
