"""The service's own lines in a log: as text, and as objects from a level on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sandboxd.environment.platform_log import JsonLog, platform_log
from sandboxd.environment.words import Report
from sandboxd.model.function import FunctionVersion

GOOD = Report("id", 12.34567, 13, 128, 40, 150.00049)
BAD = Report("id", 3000, 3000, 128, 40, status="timeout")
WORSE = Report("id", 3, 3, 128, 40, status="error", error_type="Runtime.ExitError")


def version(**settings: Any) -> FunctionVersion:
    kept = tuple((name, json.dumps(value)) for name, value in settings.items())
    return FunctionVersion(
        "f", "$LATEST", "arn", "python3.13", "role", "h", "", 0, 128, 3, "revision", "modified", settings=kept
    )


def lines(level: str) -> list[str]:
    log = JsonLog(level)
    return [
        log.init_start("python3.13", "us-east-1", bytes(32)),
        log.init_report(10_000.5, "init", "timeout"),
        log.start("id", "7"),
        log.report(GOOD, ""),
        log.report(BAD, "Task timed out\n\n"),
        log.report(WORSE, "RequestId: id Error: exit\n"),
    ]


def test_text_is_what_it_always_was() -> None:
    log = platform_log(version())
    assert log.start("id", "7") == "START RequestId: id Version: 7\n"
    assert log.report(BAD, "Task timed out\n\n").startswith(
        "Task timed out\n\nEND RequestId: id\nREPORT RequestId: id\t"
    )
    assert log.init_report(1, "init", "timeout").startswith("INIT_REPORT Init Duration: 1.00 ms\tPhase: init\t")


def test_objects_say_the_same() -> None:
    log = platform_log(version(LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "INFO"}))
    assert json.loads(log.start("id", "7"))["record"] == {"requestId": "id", "version": "7"}
    said = [json.loads(line) for line in lines("INFO")]
    for record in said:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert [record["type"].removeprefix("platform.") for record in said] == [
        "initStart", "initReport", "start", "report", "report", "report",
    ]  # fmt: skip
    assert said[0]["record"]["runtimeVersion"] == "python:3.13"
    assert said[0]["record"]["runtimeVersionArn"] == f"arn:aws:lambda:us-east-1::runtime:{'0' * 64}"
    assert said[3]["record"] == {
        "requestId": "id",
        "metrics": {
            "durationMs": 12.346,
            "billedDurationMs": 13,
            "memorySizeMB": 128,
            "maxMemoryUsedMB": 40,
            "initDurationMs": 150.0,
        },
        "status": "success",
    }
    assert said[4]["record"]["status"] == "timeout" and "initDurationMs" not in said[4]["record"]["metrics"]
    assert (said[5]["record"]["status"], said[5]["record"]["errorType"]) == ("error", "Runtime.ExitError")


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 6), ("INFO", 6), ("WARN", 3)])
def test_levels(level: str, count: int) -> None:
    assert len(list(filter(None, lines(level)))) == count
