"""`sandboxd logs`.

Room: command line.
"""

from __future__ import annotations

from urllib.parse import quote

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, account_option, config_option, function_argument
from sandboxd.cli.output import write_log

WAIT_SECONDS = 20  # of the 30 that the daemon grants one poll


@click.command(epilog="Example: sandboxd logs hello --tail 20 --follow")
@function_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, until interrupted.")
@click.option("--version", "version", default="$LATEST", show_default=True, help="The function's version.")
@click.option("-n", "--tail", "lines", type=click.IntRange(min=0), metavar="LINES", help="Only the last lines.")
@account_option
@config_option
@click.pass_obj
def logs(context: Context, name: str, follow: bool, version: str, lines: int | None) -> None:
    """Print the log of the function NAME: what it wrote and each invocation's START, END and REPORT lines."""
    offset, kept = 0, ""
    while True:
        offset, text = _read(context, name, version, offset, 0)
        if not text:
            break
        if lines is None:
            write_log(text)
        else:
            kept = "".join((kept + text).splitlines(keepends=True)[-lines:]) if lines else ""
    write_log(kept)
    while follow:
        offset, text = _read(context, name, version, offset, WAIT_SECONDS)
        write_log(text)


def _read(context: Context, name: str, version: str, offset: int, wait: int) -> tuple[int, str]:
    query = {"version": version, "offset": str(offset), "wait": str(wait)}
    path = f"{ADMIN}/functions/{quote(name, safe='')}/logs"
    document = context.client.call("GetLogs", "GET", path, query=query, timeout=wait + 60)
    return int(document["Offset"]), str(document["Data"])
