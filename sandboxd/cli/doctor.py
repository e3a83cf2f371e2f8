"""`sandboxd doctor`: what this machine has, what it lacks, what to do about it.

Room: command line. May: look, and try things in children that end at once. May not: change anything.
"""

from __future__ import annotations

import click

from sandboxd.cli.context import Context, host_output_option
from sandboxd.cli.output import harmless, show_json

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command(epilog="Example: sandboxd doctor")
@host_output_option
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check this machine and say what to do about each failure.

    Run it as root; exit code 0 where nothing failed, 1 otherwise. Warnings do not count as failures.
    """
    from sandboxd.cli.checks import run_all

    context = ctx.ensure_object(Context)
    checks = run_all(context.config)
    failed = [check for check in checks if check.status == "fail"]
    if context.output == "json":
        show_json({"Checks": [check.as_document() for check in checks], "Failed": len(failed)})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(harmless(f"{_MARKS[check.status]}  {check.name.ljust(width)}  {check.found}"))
            if check.advice:
                click.echo(harmless(f"{'':6}{'':{width}}  -> {check.advice}"))
    ctx.exit(1 if failed else 0)
