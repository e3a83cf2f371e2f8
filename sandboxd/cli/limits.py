"""`sandboxd limits`: what the account may have, and what of it is used.

Room: command line.
"""

from __future__ import annotations

import click

from sandboxd.cli.context import Context, output_option
from sandboxd.cli.output import show_json, show_table


@click.command(epilog="Example: sandboxd limits --output json")
@output_option
@click.pass_obj
def limits(context: Context) -> None:
    """Show the limits of the account and what of them is used; sizes in bytes."""
    shown = context.client.call("GetAccountSettings", "GET", "/2016-08-19/account-settings")
    if context.output == "json":
        show_json(shown)
        return
    limit, usage = shown["AccountLimit"], shown["AccountUsage"]
    names = dict.fromkeys([*usage, *limit])
    rows = [{"name": name, "used": usage.get(name), "limit": limit.get(name)} for name in names]
    show_table(["name", "used", "limit"], rows, ["NAME", "USED", "LIMIT"])
