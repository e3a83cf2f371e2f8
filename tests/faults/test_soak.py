"""The short form of scripts/soak: nothing is left of environments that came and went while rooms were killed."""

from __future__ import annotations

import os

import pytest

from tests.faults.soak import judge, soak

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon"),
    pytest.mark.usefixtures("alone"),
]


def test_nothing_is_left_and_memory_is_flat() -> None:
    report = soak(environments=10, invocations=200, pause=2)
    assert judge(report) == [], report
    assert sum(report["faults"].values()) > 0


def test_what_is_left_is_told() -> None:
    rows = {"links": {"before": 1, "after": 2}, "loops": {"before": 1, "after": 1}}
    memory = {"service": {"first": 20.0, "last": 60.0}}
    assert judge({"left": rows, "memory_mb": memory, "answers": {"200": 1, "502 Bad": 1}}) == [
        "links: 2, before 1",
        "memory of service: 60.0 MB, at first 20.0 MB",
        "answer: 502 Bad",
    ]
