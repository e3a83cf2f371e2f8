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
from sandboxd.cli.context import Context, Failure, account_option, config_option, function_argument
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


def _client_context(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The header for `--client-context`: a JSON object in base64."""
    if value is None:
        return None
    try:
        if not isinstance(json.loads(value), dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{value[:80]!r} is not a JSON object: {error}") from None
    return base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@click.command(epilog='Example: sandboxd invoke hello --payload \'{"name": "world"}\' --log')
@function_argument
@click.option(
    "-p", "--payload", metavar="JSON|@FILE|-", default="", callback=_payload, help="The event; - reads standard input."
)
@click.option("--log", "log", is_flag=True, help="Print the last 4 KB of the invocation's log on standard error.")
@click.option("--dry-run", is_flag=True, help="Only check that the function could be invoked.")
@click.option("--event", is_flag=True, help="Queue the event and do not wait for the function; its result is dropped.")
@click.option("--stream", is_flag=True, help="Print the result as the function makes it.")
@click.option(
    "--client-context", metavar="JSON", callback=_client_context, help="An object for the function's context."
)
@account_option
@config_option
@click.pass_context
def invoke(
    ctx: click.Context,
    name: str,
    payload: bytes,
    log: bool,
    dry_run: bool,
    event: bool,
    stream: bool,
    client_context: str | None,
) -> None:
    """Invoke the function NAME (or NAME:QUALIFIER, or an ARN) and print its result.

    Exit codes: 0; 1 the function returned an error (printed as JSON, with --stream on standard error) or the daemon
    refused the request (one line on standard error); 2 usage; 125 the daemon cannot be reached.
    """
    if event and (log or stream or dry_run):
        raise click.UsageError("--event excludes --log, --stream and --dry-run: nothing is waited for")
    if stream and dry_run:
        raise click.UsageError("--stream excludes --dry-run")
    context = ctx.ensure_object(Context)
    headers = {"Content-Type": "application/json"}
    if log:
        headers["X-Amz-Log-Type"] = "Tail"
    if dry_run or event:
        headers["X-Amz-Invocation-Type"] = "DryRun" if dry_run else "Event"
    if client_context is not None:
        headers["X-Amz-Client-Context"] = client_context
    limits = context.config.limits
    patience = limits.timeout_seconds + limits.init_seconds + 60
    failed = (_stream if stream else _whole)(context, name, payload, headers, patience)
    if failed:
        ctx.exit(1)


def _whole(context: Context, name: str, payload: bytes, headers: dict[str, str], patience: float) -> bool:
    """Print the result at its end; whether it is an error."""
    answer = context.client.request("POST", function_path(name, "/invocations"), payload, headers, patience)
    check("Invoke", answer)
    if answer.body:
        _write(answer.body if answer.body.endswith(b"\n") else answer.body + b"\n")
    if "X-Amz-Log-Type" in headers:
        _write_tail(answer.headers.get("x-amz-log-result", ""))
    return "x-amz-function-error" in answer.headers


def _stream(context: Context, name: str, payload: bytes, headers: dict[str, str], patience: float) -> bool:
    """Print the pieces of the result as they come; whether it ended in an error."""
    from sandboxd.cli.stream import messages

    target = function_path(name, "/response-streaming-invocations", since="2021-11-15")
    complete, last = None, b""
    try:
        for kind, content in messages(
            context.client.stream("InvokeWithResponseStream", target, payload, headers, patience)
        ):
            if kind == "InvokeComplete":
                complete = json.loads(content)
            elif content:
                _write(content)
                last = content
    except ValueError as error:
        raise Failure(f"the answer is no event stream: {error}") from None
    if complete is None:
        raise Failure("the answer ended before it was complete")
    if last and not last.endswith(b"\n"):
        _write(b"\n")
    if "LogResult" in complete:
        _write_tail(complete["LogResult"])
    if "ErrorCode" in complete:
        write_log(f"{complete.get('ErrorDetails') or complete['ErrorCode']}\n", err=True)
    return "ErrorCode" in complete


def _write(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _write_tail(encoded: str) -> None:
    tail = base64.b64decode(encoded).decode("utf-8", "replace")
    write_log(tail if tail.endswith("\n") or not tail else tail + "\n", err=True)
