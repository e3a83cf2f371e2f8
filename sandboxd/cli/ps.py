"""`sandboxd ps`.

Room: command line.
"""

from __future__ import annotations

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, output_option
from sandboxd.cli.output import show_json, show_table

_COLUMNS = {
    "Id": "ID",
    "Account": "ACCOUNT",
    "Function": "FUNCTION",
    "Version": "VERSION",
    "State": "STATE",
    "Invocations": "INVOCATIONS",
    "MemoryUsedMB": "USED MB",
    "MemorySize": "LIMIT MB",
    "AgeSeconds": "AGE S",
    "IdleSeconds": "IDLE S",
}


@click.command(epilog="Example: sandboxd ps")
@output_option
@click.pass_obj
def ps(context: Context) -> None:
    """List the execution environments."""
    document = context.client.call("ListEnvironments", "GET", f"{ADMIN}/environments")
    if context.output == "json":
        show_json(document)
    else:
        show_table(list(_COLUMNS), document.get("Environments", []), list(_COLUMNS.values()))
