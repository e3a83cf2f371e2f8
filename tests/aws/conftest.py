"""At the end of a run: how many of AWS's recorded answers the API gives."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Matched of recorded steps, by area."""
    matched, recorded = Counter[str](), Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for area, good, every in (value for name, value in report.user_properties if name == "aws"):
                matched[area] += good
                recorded[area] += every
    for area in recorded:
        terminalreporter.write_line(f"{area}: {matched[area]} of {recorded[area]} recorded answers")
    if recorded:
        terminalreporter.write_line(f"all: {matched.total()} of {recorded.total()} recorded answers")
