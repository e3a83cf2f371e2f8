"""LoggingConfig inside real environments, and a runtime that another runtime's image serves."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import packages
from tests.support.daemon import Daemon


@pytest.fixture(scope="module")
def mapped(alone: None) -> Iterator[Daemon]:
    """A daemon that lets the image of python3.13 serve python3.12."""
    with Daemon(runtimes__python3__12="python3.13") as running:
        yield running


def deployed(daemon: Daemon, function: str, **members: Any) -> str:
    return daemon.deploy(packages.load(function), f"{function}-{secrets.token_hex(4)}", **members)


def test_a_log_in_json(mapped: Daemon) -> None:
    name = deployed(mapped, "printer", LoggingConfig={"LogFormat": "JSON", "LogGroup": "cool"})
    answer = mapped.invoke(name, {"word": "wörd"})
    request_id = answer.headers["x-amzn-requestid"]
    records = [json.loads(line) for line in answer.log.splitlines() if line.startswith("{")]
    first, *said, last = records
    assert (first["type"], first["record"]) == ("platform.start", {"requestId": request_id, "version": "$LATEST"})
    (logged,) = (record for record in said if "logging: wörd" in record.get("message", ""))
    assert (logged["level"], logged["requestId"]) == ("INFO", request_id)
    assert (last["type"], last["record"]["status"]) == ("platform.report", "success")
    assert last["record"]["metrics"].keys() == {
        "durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB", "initDurationMs",
    }  # fmt: skip
    text = mapped.cli("logs", name).stdout
    assert json.loads(text.splitlines()[0])["type"] == "platform.initStart"
    assert "REPORT RequestId" not in text


def test_levels_of_a_log_in_json(mapped: Daemon) -> None:
    levels = {"LogFormat": "JSON", "ApplicationLogLevel": "ERROR", "SystemLogLevel": "WARN"}
    name = deployed(mapped, "printer", LoggingConfig=levels)
    log = mapped.invoke(name, {"word": "wörd"}).log
    assert "platform." not in log and "stdout: grüße" in log
    speaking = deployed(mapped, "environment", LoggingConfig=levels)
    assert json.loads(mapped.invoke(speaking, {}).body)["environ"]["AWS_LAMBDA_LOG_LEVEL"] == "ERROR"
    failing = deployed(mapped, "exits", LoggingConfig=levels)
    log = mapped.invoke(failing, {"code": 3}).log
    last = json.loads(log.splitlines()[-1])
    assert (last["type"], last["record"]["status"]) == ("platform.report", "error")
    assert last["record"]["errorType"] == "Runtime.ExitError"


def test_the_group_of_a_log_in_text(mapped: Daemon) -> None:
    name = deployed(mapped, "environment", LoggingConfig={"LogGroup": "cool"})
    variables = json.loads(mapped.invoke(name, {}).body)["environ"]
    assert variables["AWS_LAMBDA_LOG_GROUP_NAME"] == "cool"
    assert "AWS_LAMBDA_LOG_FORMAT" not in variables


def test_another_image_serves_a_runtime(mapped: Daemon) -> None:
    name = deployed(mapped, "environment", Runtime="python3.12")
    assert mapped.invoke(name, {}).status == 200
    assert "python3.12 is served by the image of python3.13" in mapped.log()
    assert "python3.12 (served by the image of python3.13)" in mapped.cli("function", "get", name).stdout
    assert json.loads(mapped.cli("function", "get", name, "--output", "json").stdout)["ServedBy"] == "python3.13"
    doctor = json.loads(mapped.cli("doctor", "--output", "json").stdout)
    assert "python3.12 is served by the image of python3.13" in json.dumps(doctor)
