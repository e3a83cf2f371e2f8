"""How results look: tables for people, JSON for programs, text of strangers without its control characters.

Room: command line. May: print.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

# A function's log or description is a stranger's text; on root's terminal an escape sequence in it could retitle,
# remap keys or paste commands.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Text whose control characters, other than tab and newline, are spelled out."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def show_json(document: object) -> None:
    """Print a document as JSON."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], titles: Sequence[str] = ()) -> None:
    """Print rows under their columns' names; numbers stand right, everything else left."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    head = list(titles or columns)
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    right = [all(isinstance(row.get(column), int | float) for row in rows) and bool(rows) for column in columns]
    for line in [head, *cells]:
        padded = [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def show_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}".rstrip())


def write_log(text: str, *, err: bool = False) -> None:
    """Print a log: as it is into a file or pipe, harmless onto a terminal."""
    stream = sys.stderr if err else sys.stdout
    stream.write(harmless(text) if stream.isatty() else text)
    stream.flush()


def _cell(value: Any) -> str:
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.1f}"
        case list() | tuple():
            text = ", ".join(map(_cell, value)) or "-"
        case dict():
            text = " ".join(f"{key}={_cell(item)}" for key, item in value.items()) or "-"
        case _:
            text = str(value)
    return harmless(text.replace("\n", " "))
