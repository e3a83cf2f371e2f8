"""What is known to differ from AWS's recorded answers, and the page of the documentation that says so.

`python -m tests.aws.differences > docs/aws-answers.md` writes the page.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_TABLE = Path(__file__).parent / "differences.toml"
PAGE = Path(__file__).parents[2] / "docs" / "aws-answers.md"
_HEAD = """\
# Answers of AWS, and ours

Real answers of AWS Lambda were recorded by the LocalStack project: 397 steps of 153 scenarios, of functions, versions,
aliases, permissions, concurrency, event invoke settings and limits. `pytest tests/aws --aws-snapshots DIR` asks the API
the same and compares each answer member by member; without the option it is done with those in `tests/aws/data`. This
page is `tests/aws/differences.toml` in words (`python -m tests.aws.differences`); a step that matches may not be on it.
"""


def rows() -> dict[tuple[str, str], str]:
    """The reason by scenario and step."""
    table = tomllib.loads(_TABLE.read_text())["difference"]
    return {(row["scenario"], step): row["reason"] for row in table for step in row["steps"]}


def page() -> str:
    """The page: each reason, and what it is the reason of."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for (scenario, step), reason in rows().items():
        reasons.setdefault(reason, {}).setdefault(scenario, []).append(step)
    parts = [_HEAD]
    for reason, scenarios in reasons.items():
        parts.append(f"- {reason}\n")
        parts += [f"  - `{scenario}`: {', '.join(steps)}\n" for scenario, steps in scenarios.items()]
    return parts[0] + "\n" + "".join(parts[1:])


if __name__ == "__main__":
    print(page(), end="")
