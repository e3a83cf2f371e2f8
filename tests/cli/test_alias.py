"""`sandboxd version` and `sandboxd alias`: the requests that options become, and what is shown."""

from __future__ import annotations

import json

from tests.cli.conftest import Daemon, Run

BASE = "/2015-03-31/functions/f"
ALIAS = {"AliasArn": "arn:f:live", "Name": "live", "FunctionVersion": "1", "Description": "", "RevisionId": "r"}
ROUTED = ALIAS | {"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}}}


def test_versions(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}/versions", {"Version": "3"}, 201)
    assert run("version", "publish", "f", "--description", "d").stdout == "3\n"
    assert daemon.requests[-1].json == {"Description": "d"}
    pages = [{"Versions": [{"Version": "$LATEST"}], "NextMarker": "m"}, {"Versions": [{"Version": "1"}]}]
    for page in pages:
        daemon.answer(f"GET {BASE}/versions", page)
    shown = json.loads(run("version", "list", "f", "-o", "json").stdout)
    assert [row["Version"] for row in shown["Versions"]] == ["$LATEST", "1"]
    assert daemon.requests[-1].target == f"{BASE}/versions?Marker=m"
    daemon.answer(f"DELETE {BASE}", b"", 204)
    assert run("version", "delete", "f", "1").exit_code == 0
    assert daemon.requests[-1].target == f"{BASE}?Qualifier=1"


def test_an_alias_with_a_route(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}/aliases", ROUTED, 201)
    result = run("alias", "create", "f", "live", "--version", "1", "--route", "2=0.25")
    assert daemon.requests[-1].json == {
        "Name": "live",
        "FunctionVersion": "1",
        "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}},
    }
    assert "2=0.25" in result.stdout
    daemon.answer(f"PUT {BASE}/aliases/live", ALIAS)
    assert run("alias", "update", "f", "live", "--route", "").exit_code == 0
    assert daemon.requests[-1].json == {"RoutingConfig": {"AdditionalVersionWeights": {}}}
    daemon.answer(f"GET {BASE}/aliases", {"Aliases": [ROUTED]})
    assert run("alias", "list", "f").stdout.splitlines()[1].split() == ["live", "1", "2=0.25"]
    daemon.answer(f"GET {BASE}/aliases/live", ALIAS)
    assert json.loads(run("alias", "get", "f", "live", "-o", "json").stdout) == ALIAS
    daemon.answer(f"DELETE {BASE}/aliases/live", b"", 204)
    assert run("alias", "delete", "f", "live").exit_code == 0


def test_wrong_usage_of_an_alias(daemon: Daemon, run: Run) -> None:
    assert run("alias", "update", "f", "live").exit_code == 2
    wrong = run("alias", "create", "f", "live", "--version", "1", "--route", "2=much")
    assert wrong.exit_code == 2 and "VERSION=SHARE" in wrong.stderr
    daemon.refuse(f"GET {BASE}/aliases/live", "ResourceNotFoundException", "Cannot find alias arn: x", 404)
    missing = run("alias", "get", "f", "live")
    assert missing.exit_code == 1 and "Cannot find alias" in missing.stderr
    assert not [request for request in daemon.requests if request.method != "GET"]
