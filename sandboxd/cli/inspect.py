"""`sandboxd inspect`: how one environment is isolated, read back from the kernel.

Room: command line. May: run the builder's reader as a process of its own. May not: import it.
"""

from __future__ import annotations

import click

from sandboxd.cli.context import Context, host_output_option
from sandboxd.cli.output import show_json, show_table
from sandboxd.cli.rooms import run_as_root


@click.command(epilog="Example: sandboxd inspect 7")
@click.argument("environment", metavar="ENV", type=click.IntRange(min=1))
@host_output_option
@click.pass_context
def inspect(ctx: click.Context, environment: int) -> None:
    """Show how an environment (an id of `sandboxd ps`) is isolated, each part with a verdict.

    All of it is read back from the kernel: namespaces, ids, privilege, mounts, limits, network, descriptors. Run it as
    root; exit code 0 where everything is as meant, 1 otherwise.
    """
    context = ctx.ensure_object(Context)
    findings = run_as_root(context, "inspect", "sandboxd.builder.inspection", str(environment))
    if context.output == "json":
        show_json({"Environment": environment, "Findings": findings})
    else:
        rows = [row | {"verdict": "ok" if row["ok"] else f"not as meant: {row['meant']}"} for row in findings]
        show_table(["part", "name", "found", "verdict"], rows, ["PART", "WHAT", "FOUND", "VERDICT"])
    ctx.exit(0 if all(row["ok"] for row in findings) else 1)
