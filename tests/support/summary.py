"""The closing line of several runs of pytest together, in pytest's own words.

`python -m tests.support.summary FAILED RESULT.xml …`: FAILED is how many parts of the whole failed, those without a
result included. The exit code is 1 unless none did.
"""

from __future__ import annotations

import sys
from collections import Counter
from xml.etree import ElementTree

WORDS = {"failures": "failed", "passed": "passed", "skipped": "skipped", "errors": "error"}


def count(files: list[str]) -> tuple[Counter[str], float]:
    """How the tests of these runs ended, and how many seconds they took."""
    counts: Counter[str] = Counter()
    seconds = 0.0
    for file in files:
        for suite in ElementTree.parse(file).iter("testsuite"):
            numbers = {key: int(suite.attrib[key]) for key in ("failures", "errors", "skipped")}
            counts.update(numbers, passed=int(suite.attrib["tests"]) - sum(numbers.values()))
            seconds += float(suite.attrib["time"])
    return counts, seconds


def closing_line(failed: int, counts: Counter[str], seconds: float) -> str:
    """The line; a part that failed without a test that did counts as an error."""
    if failed and not counts["failures"] + counts["errors"]:
        counts["errors"] += failed
    said = [f"{counts[key]} {word}" for key, word in WORDS.items() if counts[key]] or ["no tests ran"]
    if counts["errors"] > 1:
        said[-1] += "s"
    return f" {', '.join(said)} in {seconds:.2f}s ".center(80, "=")


if __name__ == "__main__":
    print(closing_line(int(sys.argv[1]), *count(sys.argv[2:])))
    sys.exit(int(sys.argv[1]) > 0)
