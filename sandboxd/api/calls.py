"""A call of an operation and its result, as every resource's file takes and gives them.

Room: service. May: hold values.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation: its checked members, and scheme and authority under which the client reached us."""

    members: dict[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation answers; no document is no body."""

    status: int
    document: dict[str, Any] | None = None


Operations = dict[str, Callable[[Call], Coroutine[Any, Any, Result]]]
