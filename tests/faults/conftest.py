"""Faults are counted, and the run prints which process was killed at which point."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import harness
from tests.support.daemon import Daemon


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-fault", action="store_true", help="kill every process at every point, not one at each")


@pytest.fixture(scope="module")
def faults(alone: None) -> Iterator[harness.Faults]:
    """One daemon that outlives every fault of a module."""
    with harness.running(Daemon(keep_alive=600)) as faults:
        yield faults


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not harness.HITS:
        return
    terminalreporter.section("killed: point, process, how often")
    for (point, process), count in sorted(harness.HITS.items()):
        terminalreporter.write_line(f"{point:44} {process:10} {count:4}")
    slowest = ", ".join(f"{process} {seconds:.2f} s" for process, seconds in sorted(harness.SLOWEST.items()))
    terminalreporter.write_line(f"slowest to serve again after the end of: {slowest}")
