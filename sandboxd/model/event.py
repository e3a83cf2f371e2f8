"""An asynchronous event: a payload on its way to an ARN, which is a function's or a destination's.

Room: model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it waits. Times are seconds since 1970; `id` is 0 until it is kept, and counts arrivals."""

    target: str  # the ARN as it was asked for
    created: float
    due: float  # before then nothing is tried
    request_id: str
    payload: bytes
    client_context: str = ""
    trace_id: str = ""
    attempts: int = 0  # that ended in the function's own error
    failures: int = 0  # of the system, since the last attempt
    id: int = 0
