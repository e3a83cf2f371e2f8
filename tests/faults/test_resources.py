"""kill -9 of the service in the middle of a change of every resource: afterwards it is as before, or as after.

What it is after is seen on a twin, to which the same is done without a fault.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from typing import Any
from urllib.parse import quote

import pytest

from tests.faults.harness import ANSWER_SECONDS, HITS, Call, Faults, eventually, held_at
from tests.support.daemon import FUNCTIONS, Answer
from tests.support.packages import zip_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")

ARN = "arn:aws:lambda:us-east-1:000000000000:"
LAYERS, SOURCES = "/2018-10-31/layers", "/2015-03-31/event-source-mappings/"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/"
CODE, OTHER = (
    base64.b64encode(zip_of({"app.py": f"def handler(event, context):\n    return {n}\n"})).decode() for n in (1, 2)
)
FUNCTION = {"Runtime": "python3.13", "Handler": "app.handler", "Role": "arn:aws:iam::000000000000:role/test"}
PERMIT = {"StatementId": "s", "Principal": "*"}
PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/0123456789"

Request = tuple[str, str, Any]
# {f}: the function or its twin. One after the other, each in what the ones before have left.
CHANGES: dict[str, Request] = {
    "function": (
        "POST", FUNCTIONS,
        {**FUNCTION, "FunctionName": "{f}", "Code": {"ZipFile": CODE}, "Tags": {"a": "b"}, "Publish": True},
    ),
    "code": ("PUT", f"{FUNCTIONS}/{{f}}/code", {"ZipFile": OTHER, "Publish": True}),
    "configuration": ("PUT", f"{FUNCTIONS}/{{f}}/configuration", {"Description": "d", "Timeout": 9}),
    "version": ("POST", f"{FUNCTIONS}/{{f}}/versions", {}),
    "alias": ("POST", f"{FUNCTIONS}/{{f}}/aliases", {"Name": "live", "FunctionVersion": "1"}),
    "weights": (
        "PUT", f"{FUNCTIONS}/{{f}}/aliases/live", {"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}},
    ),
    "permission": (
        "POST", f"{FUNCTIONS}/{{f}}/policy?Qualifier=live", {**PERMIT, "Action": "lambda:InvokeFunction"},
    ),
    "event settings": (
        "PUT", "/2019-09-25/functions/{f}/event-invoke-config?Qualifier=live", {"MaximumRetryAttempts": 1},
    ),
    "reserved concurrency": ("PUT", "/2017-10-31/functions/{f}/concurrency", {"ReservedConcurrentExecutions": 7}),
    "tags": ("POST", f"/2017-03-31/tags/{quote(ARN, safe='')}function%3A{{f}}", {"Tags": {"c": "d"}}),
    "recursion": ("PUT", "/2024-08-31/functions/{f}/recursion-config", {"RecursiveLoop": "Allow"}),
    "url": ("POST", "/2021-10-31/functions/{f}/url?Qualifier=live", {"AuthType": "NONE"}),
    "event source": (
        "POST", SOURCES,
        {"FunctionName": "{f}", "EventSourceArn": STREAM + "{f}", "StartingPosition": "LATEST", "Enabled": False},
    ),
    "signing": (
        "POST", "/2020-04-22/code-signing-configs/",
        {"AllowedPublishers": {"SigningProfileVersionArns": [PROFILE]}, "Description": "{f}"},
    ),
    "layer": ("POST", f"{LAYERS}/{{f}}/versions", {"Content": {"ZipFile": OTHER}}),
    "layer's permission": (
        "POST", f"{LAYERS}/{{f}}/versions/1/policy", {**PERMIT, "Action": "lambda:GetLayerVersion"},
    ),
    "attached layer": ("PUT", f"{FUNCTIONS}/{{f}}/configuration", {"Layers": [f"{ARN}layer:{{f}}:1"]}),
    "layer deleted": ("DELETE", f"{LAYERS}/{{f}}/versions/1", None),
    "alias deleted": ("DELETE", f"{FUNCTIONS}/{{f}}/aliases/live", None),
    "version deleted": ("DELETE", f"{FUNCTIONS}/{{f}}?Qualifier=1", None),
    "function deleted": ("DELETE", f"{FUNCTIONS}/{{f}}", None),
}  # fmt: skip
SHOWN = (
    f"{FUNCTIONS}/{{f}}", f"{FUNCTIONS}/{{f}}/versions", f"{FUNCTIONS}/{{f}}/aliases",
    f"{FUNCTIONS}/{{f}}/policy?Qualifier=live", "/2019-09-25/functions/{f}/event-invoke-config/list",
    "/2024-08-31/functions/{f}/recursion-config", "/2021-10-31/functions/{f}/urls",
    f"{SOURCES}?EventSourceArn={quote(STREAM, safe='')}{{f}}", "/2020-04-22/code-signing-configs/",
    f"{LAYERS}/{{f}}/versions", f"{LAYERS}/{{f}}/versions/1/policy",
)  # fmt: skip
POINTS = ("service: before commit", "service: after commit")
_CHANGING = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|csc-[a-z0-9]{17}|\b[a-z0-9]{32}\b"
    r"|\d{4}-\d\d-\d\dT[0-9:.]+(\+\d\d:?\d\d|Z)?|\b\d{10}\.\d+"
)
_LINK = re.compile(r'"Location": "[^"]*"')


def asked(faults: Faults, change: str, name: str) -> Answer:
    method, target, body = CHANGES[change]
    document = None if body is None else json.loads(json.dumps(body).replace("{f}", name))
    return faults.daemon.request(method, target.replace("{f}", name), document, timeout=ANSWER_SECONDS)


def settled(faults: Faults, name: str) -> None:
    """Nobody changes the function, where there is one, nor deletes an event source of it."""

    def rests() -> bool:
        answer = faults.daemon.request("GET", f"{FUNCTIONS}/{name}/configuration")
        return answer.status == 404 or answer.json.get("LastUpdateStatus") == "Successful"

    eventually(rests)


def shown(faults: Faults, name: str) -> list[str]:
    """All that the API shows of a function and what goes with it; of what all functions share, what names it."""
    texts = []
    for target in SHOWN:
        answer = faults.daemon.request("GET", target.replace("{f}", name))
        document = answer.json
        if "CodeSigningConfigs" in document:
            document = [row for row in document["CodeSigningConfigs"] if row["Description"] == name]
        texts.append(f"{answer.status} {_LINK.sub('', json.dumps(document, sort_keys=True))}")
    return texts


def alike(texts: list[str], name: str) -> list[str]:
    """Without what is another for a twin."""
    return [_CHANGING.sub("?", text).replace(name, "{f}") for text in texts]


def kill_at(faults: Faults, point: str, change: str, name: str) -> Call:
    """Have the service die in the middle of a change, and wait until the next one serves."""
    with held_at(faults, point):
        call = faults.ask(lambda: asked(faults, change, name))
        faults.wait_held()
        service = faults.find("service")
        os.kill(service.pid, signal.SIGKILL)
        faults.release()
    HITS[point, "service"] += 1
    eventually(lambda: not service.is_running())
    faults.daemon.wait_ready()
    return call.result(ANSWER_SECONDS)


def test_every_resource_is_as_before_or_as_after(faults: Faults, pytestconfig: pytest.Config) -> None:
    """By default every third change meets one fault, at the one point or the other; on demand all meet both."""
    every = pytestconfig.getoption("--every-fault", default=False)
    for number, change in enumerate(CHANGES):
        before, after = POINTS
        points = POINTS if every else {0: (after,), 3: (before,)}.get(number % 6, ())
        if before in points:
            present = shown(faults, "shaken")
            kill_at(faults, before, change, "shaken").check()
            assert shown(faults, "shaken") == present, change
        done = [asked(faults, change, "twin")]
        settled(faults, "twin")
        if after in points:
            kill_at(faults, after, change, "shaken").check()
        else:
            done.append(asked(faults, change, "shaken"))
        assert all(answer.status < 300 for answer in done), (change, done)
        settled(faults, "shaken")
        assert alike(shown(faults, "shaken"), "shaken") == alike(shown(faults, "twin"), "twin"), change
    faults.is_whole()
