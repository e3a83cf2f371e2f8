"""The run as a table for a terminal or a page; widths are those of what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_COLUMNS = ("figure", "unit", "p50", "p90", "p99", "CPU ms", "count", "ratio", "to")
_TARGET_COLUMNS = ("figure", "to", "target", "measured", "")


def tables(figures: list[dict[str, Any]], targets: list[dict[str, Any]]) -> str:
    """Both tables in Markdown, aligned, so that they can be read as they are."""
    first = [
        (
            row["name"], row["unit"],
            *(("", "", "") if row["p50"] is None else (_number(row[key]) for key in ("p50", "p90", "p99"))),
            _number(row["cpu_ms"]), str(row["count"] or ""), _number(row["ratio"]), _to(row),
        )
        for row in figures
    ]  # fmt: skip
    second = [
        (
            row["figure"] + (" (floor)" if row["floor"] else ""), row["peer"] or "",
            row["target"] + (f" ({row['note']})" if row["note"] else ""), _number(row["measured"]),
            {True: "met", False: "missed", None: "not measured"}[row["met"]],
        )
        for row in targets
    ]  # fmt: skip
    notes = dict.fromkeys(row["note"] for row in figures if row["note"] and row["p50"] is not None)
    lines = [f"- {note}" for note in notes]
    return "\n".join([*_table(_COLUMNS, first), "", *_table(_TARGET_COLUMNS, second), "", *lines])


def _to(row: dict[str, Any]) -> str:
    """What stands at a row's end: its peer, or why there are no numbers."""
    return str(row["note"] if row["p50"] is None else row["peer"] or "")


def _number(value: float | None) -> str:
    """Three digits, and no exponent."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = ["| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |"
             for line in (head, *rows)]  # fmt: skip
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
