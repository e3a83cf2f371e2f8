"""`sandboxd url`: the requests that options become, and what is shown."""

from __future__ import annotations

import json

from tests.cli.conftest import Daemon, Run

BASE = "/2021-10-31/functions/f"
URL = {"FunctionUrl": "http://x.lambda-url.us-east-1.localhost:1/", "FunctionArn": "arn:f", "AuthType": "NONE"}


def test_a_public_url(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}/url", URL, 201)
    daemon.answer("POST /2015-03-31/functions/f/policy", {"Statement": "{}"}, 201)
    assert URL["FunctionUrl"] in run("url", "create", "f", "--public", "--alias", "live").stdout
    made, *permitted = daemon.requests
    assert (made.target, made.json) == (f"{BASE}/url?Qualifier=live", {"AuthType": "NONE"})
    assert {request.target for request in permitted} == {"/2015-03-31/functions/f/policy?Qualifier=live"}
    assert [request.json for request in permitted] == [
        {
            "StatementId": "FunctionURLAllowPublicAccess",
            "Principal": "*",
            "Action": "lambda:InvokeFunctionUrl",
            "FunctionUrlAuthType": "NONE",
        },
        {
            "StatementId": "FunctionURLInvokeAllowPublicAccess",
            "Principal": "*",
            "Action": "lambda:InvokeFunction",
            "InvokedViaFunctionUrl": True,
        },
    ]


def test_statements_of_a_url_that_was_there_before_stay(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}/url", URL, 201)
    policy = "POST /2015-03-31/functions/f/policy"
    daemon.refuse(policy, "ResourceConflictException", "The statement id (x) provided already exists.", 409)
    assert run("url", "create", "f", "--public").exit_code == 0
    daemon.refuse(policy, "AccessDeniedException", "not you", 403)
    refused = run("url", "create", "f", "--public")
    assert refused.exit_code == 1 and "not you" in refused.stderr


def test_settings_of_a_url(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}/url", URL, 201)
    options = ("--cors-origin", "https://a.com", "--cors-origin", "https://b.com", "--cors-method", "PUT")
    options += ("--cors-header", "x-one", "--cors-expose", "x-two", "--cors-max-age", "5", "--cors-credentials")
    assert json.loads(run("url", "create", "f", "--stream", *options, "-o", "json").stdout) == URL
    assert [request.json for request in daemon.requests] == [
        {
            "AuthType": "AWS_IAM",
            "InvokeMode": "RESPONSE_STREAM",
            "Cors": {
                "AllowOrigins": ["https://a.com", "https://b.com"],
                "AllowMethods": ["PUT"],
                "AllowHeaders": ["x-one"],
                "ExposeHeaders": ["x-two"],
                "MaxAge": 5,
                "AllowCredentials": True,
            },
        }
    ]
    daemon.answer(f"PUT {BASE}/url", URL)
    assert run("url", "update", "f", "--auth", "NONE", "--buffer", "--no-cors").exit_code == 0
    assert daemon.requests[-1].json == {"AuthType": "NONE", "InvokeMode": "BUFFERED", "Cors": {}}
    assert run("url", "update", "f").exit_code == 2


def test_urls_that_are_there(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"GET {BASE}/urls", {"FunctionUrlConfigs": [URL | {"InvokeMode": "BUFFERED"}]})
    assert run("url", "list", "f").stdout.splitlines()[1].split() == [URL["FunctionUrl"], "arn:f", "NONE", "BUFFERED"]
    assert json.loads(run("url", "list", "f", "-o", "json").stdout)["FunctionUrlConfigs"][0]["AuthType"] == "NONE"
    daemon.answer(f"GET {BASE}/url", URL)
    assert json.loads(run("url", "get", "f", "--alias", "live", "-o", "json").stdout) == URL
    assert daemon.requests[-1].target == f"{BASE}/url?Qualifier=live"
    daemon.answer(f"DELETE {BASE}/url", b"", 204)
    assert json.loads(run("url", "delete", "f", "-o", "json").stdout) == {"Deleted": "f"}
