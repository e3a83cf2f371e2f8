"""What the service itself says in a function's log, as text or, with LogFormat JSON, as one object a line.

Room: service. May: make text, ask the time.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html (the objects),
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html (their levels)
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Protocol

from sandboxd.environment import words
from sandboxd.model.function import FunctionVersion

_LEVELS = ("DEBUG", "INFO", "WARN")
_TYPE = "on-demand"


class PlatformLog(Protocol):
    """The lines around init phases and invocations; an empty text where there is nothing to say."""

    def init_start(self, runtime: str, region: str, image_digest: bytes) -> str: ...

    def init_report(self, duration_ms: float, phase: str, status: str, error_type: str = "") -> str: ...

    def start(self, request_id: str, version: str) -> str: ...

    def report(self, report: words.Report, line: str) -> str:
        """END and REPORT, behind the line that tells how an invocation failed."""


class TextLog:
    """Lines as Lambda has always written them."""

    init_start = staticmethod(words.init_start)
    init_report = staticmethod(words.init_report)
    start = staticmethod(words.start)

    @staticmethod
    def report(report: words.Report, line: str) -> str:
        return line + report.lines()


class JsonLog:
    """Objects, from a level on: DEBUG, INFO or WARN."""

    def __init__(self, level: str) -> None:
        self._level = _LEVELS.index(level)

    def init_start(self, runtime: str, region: str, image_digest: bytes) -> str:
        version, arn = words.runtime_version(runtime, region, image_digest)
        record = {"initializationType": _TYPE, "phase": "init", "runtimeVersion": version, "runtimeVersionArn": arn}
        return self._line("INFO", "platform.initStart", record)

    def init_report(self, duration_ms: float, phase: str, status: str, error_type: str = "") -> str:
        record: dict[str, Any] = {"initializationType": _TYPE, "phase": phase, "status": status}
        record |= {"errorType": error_type} if error_type else {}
        return self._line("WARN", "platform.initReport", record | {"metrics": {"durationMs": round(duration_ms, 3)}})

    def start(self, request_id: str, version: str) -> str:
        return self._line("INFO", "platform.start", {"requestId": request_id, "version": version})

    def report(self, report: words.Report, line: str) -> str:
        metrics = {
            "durationMs": round(report.duration_ms, 3),
            "billedDurationMs": report.billed_ms,
            "memorySizeMB": report.memory_size,
            "maxMemoryUsedMB": report.max_memory_used,
        }
        if report.init_ms is not None:
            metrics["initDurationMs"] = round(report.init_ms, 3)
        record = {"requestId": report.request_id, "metrics": metrics, "status": report.status or "success"}
        record |= {"errorType": report.error_type} if report.error_type else {}
        return self._line("WARN" if report.status else "INFO", "platform.report", record)

    def _line(self, level: str, kind: str, record: dict[str, Any]) -> str:
        if _LEVELS.index(level) < self._level:
            return ""
        return json.dumps({"time": timestamp(), "type": kind, "record": record}, separators=(",", ":")) + "\n"


def platform_log(function: FunctionVersion) -> PlatformLog:
    """The log that a function version asks for."""
    logging = function.logging
    return JsonLog(logging["SystemLogLevel"]) if logging.get("LogFormat") == "JSON" else TextLog()


def timestamp() -> str:
    """This moment, to the millisecond, as AWS's logs have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
