"""The line that ends everything tells of every part, and fails with any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY

GOOD = '<testsuites><testsuite errors="0" failures="0" skipped="2" tests="10" time="1.5"/></testsuites>'
BAD = '<testsuites><testsuite errors="1" failures="3" skipped="0" tests="5" time="0.25"/></testsuites>'


@pytest.mark.parametrize(
    ("failed", "results", "said", "code"),
    [
        (0, [GOOD, GOOD], " 16 passed, 4 skipped in 3.00s ", 0),
        (1, [GOOD, BAD], " 3 failed, 9 passed, 2 skipped, 1 error in 1.75s ", 1),
        (1, [GOOD], " 8 passed, 2 skipped, 1 error in 1.50s ", 1),
        (2, [], " 2 errors in 0.00s ", 1),
    ],
)
def test_parts_add_up(failed: int, results: list[str], said: str, code: int, tmp_path: Path) -> None:
    files = []
    for number, text in enumerate(results):
        files.append(tmp_path / f"{number}.xml")
        files[-1].write_text(text)
    command = [sys.executable, "-m", "tests.support.summary", str(failed), *map(str, files)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip().strip("="), done.returncode) == (said, code)
