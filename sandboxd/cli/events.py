"""`sandboxd events`: how events that were queued for a function are tried, and who is told how they ended.

Room: command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, function_argument, output_option
from sandboxd.cli.output import show_json, show_pairs, show_table

C = TypeVar("C", bound=Callable[..., Any])

_SIDES = {"OnSuccess": "ON SUCCESS", "OnFailure": "ON FAILURE"}


def _settings(command: C) -> C:
    for option in (
        click.option("--on-failure", metavar="ARN", help="Who is sent those that failed for good; '' for nobody."),
        click.option("--on-success", metavar="ARN", help="Who is sent what came of those that succeeded; '' likewise."),
        click.option("--max-age", type=int, metavar="SECONDS", help="How old an event may become (60 to 21600)."),
        click.option("--retries", type=int, metavar="N", help="How often a failed event is tried again (0 to 2)."),
    ):
        command = option(command)
    return command


@click.group
def events() -> None:
    """Say how queued events (invoke --event) are tried, and who is told how they ended.

    NAME:QUALIFIER means a version or an alias, which has settings of its own.
    """


@events.command(epilog="Example: sandboxd events put hello --retries 0 --max-age 3600")
@function_argument
@_settings
@output_option
@click.pass_obj
def put(context: Context, /, name: str, **settings: Any) -> None:
    """Set how events of the function NAME are tried; what is not named is the default again."""
    body = _body(settings, {})
    if not body:
        raise click.UsageError("nothing to put: name at least one option")
    _show(context, context.client.call("PutFunctionEventInvokeConfig", "PUT", _path(name), body))


@events.command(epilog="Example: sandboxd events update hello --on-failure ''")
@function_argument
@_settings
@output_option
@click.pass_obj
def update(context: Context, /, name: str, **settings: Any) -> None:
    """Change how events of the function NAME are tried; what is not named stays as it is."""
    if all(value is None for value in settings.values()):
        raise click.UsageError("nothing to update: name at least one option")
    kept = {}
    if settings["on_success"] is not None or settings["on_failure"] is not None:
        # The API replaces both destinations when it is told of one.
        kept = context.client.call("GetFunctionEventInvokeConfig", "GET", _path(name)).get("DestinationConfig", {})
    body = _body(settings, kept)
    _show(context, context.client.call("UpdateFunctionEventInvokeConfig", "POST", _path(name), body))


@events.command(epilog="Example: sandboxd events get hello")
@function_argument
@output_option
@click.pass_obj
def get(context: Context, name: str) -> None:
    """Show how events of the function NAME are tried, where that was set."""
    _show(context, context.client.call("GetFunctionEventInvokeConfig", "GET", _path(name)))


@events.command(name="list", epilog="Example: sandboxd events list hello")
@function_argument
@output_option
@click.pass_obj
def list_configs(context: Context, name: str) -> None:
    """List the settings of the function NAME, its versions and aliases."""
    member = "FunctionEventInvokeConfigs"
    rows = context.client.every("ListFunctionEventInvokeConfigs", _path(name, "/list"), member)
    if context.output == "json":
        show_json({member: rows})
        return
    columns = ["QUALIFIER", "RETRIES", "MAX AGE S", *_SIDES.values()]
    show_table(columns, [{"QUALIFIER": row["FunctionArn"].rpartition(":")[2]} | _cells(row) for row in rows])


@events.command(epilog="Example: sandboxd events delete hello")
@function_argument
@output_option
@click.pass_obj
def delete(context: Context, name: str) -> None:
    """Have events of the function NAME tried as by default."""
    context.client.call("DeleteFunctionEventInvokeConfig", "DELETE", _path(name))
    if context.output == "json":
        show_json({"Deleted": name})


def _path(name: str, rest: str = "") -> str:
    return function_path(name, f"/event-invoke-config{rest}", since="2019-09-25")


def _body(settings: dict[str, Any], destinations: dict[str, Any]) -> dict[str, Any]:
    """The request; `destinations` are those that stay where they are not named."""
    body = {"MaximumRetryAttempts": settings["retries"], "MaximumEventAgeInSeconds": settings["max_age"]}
    body = {member: value for member, value in body.items() if value is not None}
    named = {"OnSuccess": settings["on_success"], "OnFailure": settings["on_failure"]}
    changed = {side: {"Destination": arn} if arn else {} for side, arn in named.items() if arn is not None}
    return body | ({"DestinationConfig": destinations | changed} if changed else {})


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    config = row.get("DestinationConfig", {})
    sides = {title: config.get(side, {}).get("Destination") for side, title in _SIDES.items()}
    return {"RETRIES": row.get("MaximumRetryAttempts"), "MAX AGE S": row.get("MaximumEventAgeInSeconds")} | sides


def _show(context: Context, shown: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        show_pairs({"ARN": shown["FunctionArn"]} | _cells(shown))
