"""`sandboxd daemon`.

Room: command line. May: hand over to the daemon. May not: import it for any other command.
"""

from __future__ import annotations

import os

import click

from sandboxd.cli.context import Context, Misuse, config_option


@click.command(epilog="Example: sandboxd daemon")
@config_option
@click.pass_context
def daemon(ctx: click.Context) -> None:
    """Run the daemon in the foreground, as root, until SIGTERM."""
    context = ctx.ensure_object(Context)
    config = context.config
    if os.geteuid() != 0:
        raise Misuse("the daemon has to be started as root")
    from sandboxd.daemon import main

    ctx.exit(main(config))
