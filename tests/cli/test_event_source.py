"""`sandboxd event-source`: the requests that options become, and what is shown."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Daemon, Run

BASE = "/2015-03-31/event-source-mappings"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:jobs"
MAPPING = {"UUID": "u-1", "EventSourceArn": QUEUE, "FunctionArn": "arn:f", "State": "Enabled", "BatchSize": 10}


def test_a_mapping_with_its_settings(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"POST {BASE}", MAPPING, 202)
    assert "Enabled" in run("event-source", "create", "f:live", QUEUE).stdout
    assert daemon.requests[-1].json == {"FunctionName": "f:live", "EventSourceArn": QUEUE}
    options = ("--batch", "50", "--window", "2", "--concurrency", "5", "--partial", "--disabled")
    options += ("--filter", '{"body": ["a"]}', "--filter", '{"body": ["b"]}', "--members", '{"Tags": {"A": "b"}}')
    assert json.loads(run("event-source", "create", "f", QUEUE, *options, "-o", "json").stdout) == MAPPING
    assert daemon.requests[-1].json == {
        "FunctionName": "f",
        "EventSourceArn": QUEUE,
        "Enabled": False,
        "BatchSize": 50,
        "MaximumBatchingWindowInSeconds": 2,
        "FilterCriteria": {"Filters": [{"Pattern": '{"body": ["a"]}'}, {"Pattern": '{"body": ["b"]}'}]},
        "ScalingConfig": {"MaximumConcurrency": 5},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "Tags": {"A": "b"},
    }


def test_a_change_says_only_what_is_named(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"PUT {BASE}/u-1", MAPPING, 202)
    assert run("event-source", "update", "u-1", "--function", "g", "--enabled").exit_code == 0
    assert daemon.requests[-1].json == {"FunctionName": "g", "Enabled": True}
    assert run("event-source", "update", "u-1", "--filter", "", "--concurrency", "0", "--no-partial").exit_code == 0
    nothing = {"FilterCriteria": {"Filters": []}, "ScalingConfig": {}, "FunctionResponseTypes": []}
    assert daemon.requests[-1].json == nothing
    assert run("event-source", "update", "u-1").exit_code == 2


@pytest.mark.parametrize("members", ["{", "[]", "5", "[" * 100_000])
def test_further_members_are_an_object(run: Run, members: str) -> None:
    assert run("event-source", "create", "f", QUEUE, "--members", members).exit_code == 2


def test_mappings_that_are_there(daemon: Daemon, run: Run) -> None:
    daemon.answer(f"GET {BASE}", {"EventSourceMappings": [MAPPING], "NextMarker": "n"})
    daemon.answer(f"GET {BASE}", {"EventSourceMappings": [MAPPING | {"LastProcessingResult": "PROBLEM: x"}]})
    head, first, second = run("event-source", "list", "--function", "f", "--source", QUEUE).stdout.splitlines()
    assert head.split()[:3] == ["UUID", "SOURCE", "FUNCTION"]
    assert first.split() == ["u-1", QUEUE, "arn:f", "Enabled", "10", "-"]
    assert second.endswith("PROBLEM: x")
    assert "FunctionName=f" in daemon.requests[0].target
    assert daemon.requests[1].target.endswith("Marker=n")
    assert len(json.loads(run("event-source", "list", "-o", "json").stdout)["EventSourceMappings"]) == 1
    daemon.answer(f"GET {BASE}/u-1", MAPPING)
    assert json.loads(run("event-source", "get", "u-1", "-o", "json").stdout) == MAPPING
    daemon.answer(f"DELETE {BASE}/u-1", MAPPING | {"State": "Deleting"}, 202)
    assert run("event-source", "delete", "u-1").stdout == ""
    assert json.loads(run("event-source", "delete", "u-1", "-o", "json").stdout)["State"] == "Deleting"
