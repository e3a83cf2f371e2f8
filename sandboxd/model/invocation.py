"""One invocation and how it ended.

Room: model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from sandboxd.model.function import FunctionVersion


class ResponseStream(Protocol):
    """Where an answer goes while it is still being made."""

    too_large: bool  # it broke its limit: the rest was dropped
    content_type: str  # set before the first piece

    def write(self, data: bytes, go_on: Callable[[], None]) -> bool:
        """Take a piece; False: no more until `go_on` is called."""
        ...

    def end(self) -> None:
        """There is no more."""
        ...


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
    stream: ResponseStream | None = None  # for an answer that its runtime streams


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
