"""One invocation and how it ended.

Room: model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sandboxd.model.function import FunctionVersion


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request to run a function version once. `payload` is JSON in UTF-8 as the client sent it."""

    request_id: str
    function: FunctionVersion
    invoked_arn: str
    payload: bytes
    client_context: str = ""  # JSON, already taken out of base64
    trace_id: str = ""
    tail: bool = False  # LogType=Tail: the last 4 KB of the log come back


class Outcome(Enum):
    """How an invocation ended, and with it what may happen to its environment."""

    OK = "ok"
    HANDLED = "handled"  # the runtime reported the handler's error; the environment lives on
    FAILED = "failed"  # init error, runtime exit, out of memory: the environment is gone
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """What the caller gets. `function_error` is the value of X-Amz-Function-Error or None."""

    outcome: Outcome
    payload: bytes
    content_type: str = "application/json"
    function_error: str | None = None
    log_tail: bytes = b""
