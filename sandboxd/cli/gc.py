"""`sandboxd gc`: what a dead daemon left behind.

Room: command line. May: run the builder's collector as a process of its own. May not: import it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click

from sandboxd.cli.context import Context, Failure, Misuse, output_option
from sandboxd.cli.output import show_json, show_table


@click.command
@click.option("--dry-run", is_flag=True, help="Show what would be removed and remove nothing.")
@output_option
@click.pass_obj
def gc(context: Context, dry_run: bool) -> None:
    """Remove what a dead daemon left: cgroup directories, run files, volumes. What a living one holds is not touched.

    The daemon does the same at each start; this shows it, or does it without a start.
    """
    context.config  # noqa: B018  # a wrong configuration is reported here, by name
    if os.geteuid() != 0:
        raise Misuse("gc has to be run as root")
    command = [sys.executable, "-I", "-m", "sandboxd.builder.leftovers", "--output", "json"]
    if context.config_file:
        command += ["--config", str(context.config_file.absolute())]
    if dry_run:
        command.append("--dry-run")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"gc: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
    leftovers = json.loads(done.stdout)
    if context.output == "json":
        show_json(leftovers)
    elif leftovers:
        show_table(["kind", "name", "removed"], leftovers, ["KIND", "NAME", "REMOVED"])
    else:
        click.echo("nothing is left over")
