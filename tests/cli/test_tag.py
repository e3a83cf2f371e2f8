"""`sandboxd tag`: a function's ARN is looked up, and tags are put, shown and removed by it."""

from __future__ import annotations

import json

from tests.cli.conftest import Daemon, Run

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
PATH = "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af"
FUNCTION = "GET /2015-03-31/functions/f/configuration"


def test_tags(daemon: Daemon, run: Run) -> None:
    for _ in range(4):
        daemon.answer(FUNCTION, {"FunctionArn": ARN})
    daemon.answer(f"POST {PATH}", b"", 204)
    assert run("tag", "put", "f", "team=payments", "empty=", "a=b=c").exit_code == 0
    assert daemon.requests[-1].json == {"Tags": {"team": "payments", "empty": "", "a": "b=c"}}
    tags = {"Tags": {"team": "payments", "a": "b=c"}}
    for _ in range(2):
        daemon.answer(f"GET {PATH}", tags)
    assert [line.split() for line in run("tag", "list", "f").stdout.splitlines()[1:]] == [
        ["a", "b=c"],
        ["team", "payments"],
    ]
    assert json.loads(run("tag", "list", "f", "-o", "json").stdout) == tags
    daemon.answer(f"DELETE {PATH}", b"", 204)
    assert run("tag", "remove", "f", "team", "with space").exit_code == 0
    assert daemon.requests[-1].target == f"{PATH}?tagKeys=team&tagKeys=with%20space"


def test_wrong_usage(daemon: Daemon, run: Run) -> None:
    for words in (("put", "f"), ("put", "f", "no separator"), ("put", "f", "=value"), ("remove", "f")):
        assert run("tag", *words).exit_code == 2
    assert not daemon.requests
