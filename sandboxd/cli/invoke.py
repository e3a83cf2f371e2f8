"""`sandboxd invoke`: the function's result on standard output and nothing else.

Room: command line.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import click

from sandboxd.cli.client import check, function_path
from sandboxd.cli.context import Context, config_option, function_argument
from sandboxd.cli.output import write_log


def _payload(_: click.Context, __: click.Parameter, value: str) -> bytes:
    """The bytes of `--payload`, as given; empty is no event at all, anything else has to be JSON in UTF-8."""
    try:
        if value == "-":
            payload = sys.stdin.buffer.read()
        elif value.startswith("@"):
            payload = Path(value[1:]).read_bytes()
        else:
            payload = value.encode("utf-8", "surrogateescape")
    except OSError as error:
        raise click.BadParameter(f"{value[1:]}: {error.strerror}") from None
    try:
        if payload.strip():
            # Only a judgement: numbers stay text, whatever their size.
            json.loads(payload.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON in UTF-8: {error}") from None
    return payload


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@click.command(epilog='Example: sandboxd invoke hello --payload \'{"name": "world"}\' --log')
@function_argument
@click.option(
    "-p", "--payload", metavar="JSON|@FILE|-", default="", callback=_payload, help="The event; - reads standard input."
)
@click.option("--log", "log", is_flag=True, help="Print the last 4 KB of the invocation's log on standard error.")
@click.option("--dry-run", is_flag=True, help="Only check that the function could be invoked.")
@config_option
@click.pass_context
def invoke(ctx: click.Context, name: str, payload: bytes, log: bool, dry_run: bool) -> None:
    """Invoke the function NAME (or NAME:QUALIFIER, or an ARN) and print its result.

    Exit codes: 0; 1 the function returned an error (printed as JSON) or the daemon refused the request (one line on
    standard error); 2 usage; 125 the daemon cannot be reached.
    """
    context = ctx.ensure_object(Context)
    headers = {"Content-Type": "application/json"}
    if log:
        headers["X-Amz-Log-Type"] = "Tail"
    if dry_run:
        headers["X-Amz-Invocation-Type"] = "DryRun"
    limits = context.config.limits
    patience = limits.timeout_seconds + limits.init_seconds + 60
    answer = context.client.request("POST", function_path(name, "/invocations"), payload, headers, patience)
    check("Invoke", answer)
    if answer.body:
        sys.stdout.buffer.write(answer.body if answer.body.endswith(b"\n") else answer.body + b"\n")
        sys.stdout.buffer.flush()
    if log:
        tail = base64.b64decode(answer.headers.get("x-amz-log-result", "")).decode("utf-8", "replace")
        write_log(tail if tail.endswith("\n") or not tail else tail + "\n", err=True)
    if "x-amz-function-error" in answer.headers:
        ctx.exit(1)
