"""The count of properties and of what is open, in the terminal's summary."""

from __future__ import annotations

import pytest

TRIED = pytest.StashKey[dict[str, bool]]()  # by name: whether it got through on any road


@pytest.fixture(scope="session")
def tried(pytestconfig: pytest.Config) -> dict[str, bool]:
    """What the summary counts."""
    return pytestconfig.stash.setdefault(TRIED, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tried := config.stash.get(TRIED, {}):
        terminalreporter.section("attacks from inside a sandbox")
        terminalreporter.line(f"{len(tried)} properties, {sum(tried.values())} open")
