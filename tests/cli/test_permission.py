"""`sandboxd permission`."""

from __future__ import annotations

import json

from tests.cli.conftest import Daemon, Run

POLICY = "/2015-03-31/functions/hello%3Alive/policy"
STATEMENT = {"Sid": "s3", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:*"}


def test_permissions(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {POLICY}", {"Statement": json.dumps(STATEMENT)}, 201)
    daemon.answer(f"GET {POLICY}", {"Policy": json.dumps({"Statement": [STATEMENT]}), "RevisionId": "r"})
    daemon.answer(f"DELETE {POLICY}/s3", status=204)
    options = ("--principal", "s3.amazonaws.com", "--source-arn", "arn:aws:s3:::b", "--source-account", "1" * 12)
    assert json.loads(run("permission", "add", "hello:live", "s3", *options).stdout) == STATEMENT
    assert daemon.requests[-1].json == {
        "StatementId": "s3",
        "Principal": "s3.amazonaws.com",
        "Action": "lambda:InvokeFunction",
        "SourceArn": "arn:aws:s3:::b",
        "SourceAccount": "1" * 12,
    }
    shown = run("permission", "list", "hello:live").stdout.splitlines()[1]
    assert shown.split(maxsplit=2)[:2] == ["s3", "lambda:*"] and '{"Service": "s3.amazonaws.com"}' in shown
    assert json.loads(run("permission", "list", "hello:live", "-o", "json").stdout) == {"Statement": [STATEMENT]}
    assert json.loads(run("permission", "remove", "hello:live", "s3", "-o", "json").stdout) == {"Removed": "s3"}
