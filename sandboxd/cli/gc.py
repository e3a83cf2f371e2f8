"""`sandboxd gc`: what a dead daemon left behind.

Room: command line. May: run the builder's collector as a process of its own. May not: import it.
"""

from __future__ import annotations

import click

from sandboxd.cli.context import Context, host_output_option
from sandboxd.cli.output import show_json, show_table
from sandboxd.cli.rooms import run_as_root


@click.command(epilog="Example: sandboxd gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Show what would be removed and remove nothing.")
@host_output_option
@click.pass_obj
def gc(context: Context, dry_run: bool) -> None:
    """Remove what a dead daemon left: cgroup directories, run files, volumes. What a living one holds is not touched.

    The daemon does the same at each start; this shows it, or does it without a start.
    """
    leftovers = run_as_root(context, "gc", "sandboxd.builder.leftovers", *(["--dry-run"] if dry_run else []))
    if context.output == "json":
        show_json(leftovers)
    elif leftovers:
        show_table(["kind", "name", "removed"], leftovers, ["KIND", "NAME", "REMOVED"])
    else:
        click.echo("nothing is left over")
