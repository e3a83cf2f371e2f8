"""`sandboxd event-source`: queues whose messages functions get.

Room: command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sandboxd.cli.context import Context, complete_function, completer, function_argument, output_option
from sandboxd.cli.output import show_json, show_pairs, show_table

C = TypeVar("C", bound=Callable[..., Any])

_PATH = "/2015-03-31/event-source-mappings"
_MEMBER = "EventSourceMappings"
_COLUMNS = {
    "UUID": "UUID",
    "EventSourceArn": "SOURCE",
    "FunctionArn": "FUNCTION",
    "State": "STATE",
    "BatchSize": "BATCH",
    "LastProcessingResult": "LAST RESULT",
}

_complete_uuid = completer("ListEventSourceMappings", _MEMBER, "UUID", lambda _: _PATH)


def _object(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, Any] | None:
    try:
        document = None if value is None else json.loads(value)
    except (ValueError, RecursionError):
        document = value
    if document is not None and not isinstance(document, dict):
        raise click.BadParameter('it is no JSON object of further members, such as \'{"Queues": ["q"]}\'')
    return document


def _settings(command: C) -> C:
    for option in (
        click.option(
            "--members", metavar="JSON", callback=_object, help="Further members of the request, by AWS's names."
        ),
        click.option(
            "--partial/--no-partial",
            default=None,
            help="The function's answer says which messages of a batch failed (ReportBatchItemFailures).",
        ),
        click.option(
            "--concurrency", type=int, metavar="N", help="Batches that run at one time (2 to 1000; 0: as many as may)."
        ),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="PATTERN",
            help="Which messages are of interest, as JSON; more than once: any of them. '' for all.",
        ),
        click.option("--window", type=int, metavar="SECONDS", help="How long a batch is gathered (0 to 300)."),
        click.option("--batch", type=int, metavar="N", help="Messages in a batch (1 to 10000)."),
        click.option("--enabled/--disabled", default=None, help="Whether messages are taken."),
    ):
        command = option(command)
    return command


def _uuid_argument(command: C) -> C:
    return click.argument("uuid", metavar="UUID", shell_complete=_complete_uuid)(command)


@click.group(name="event-source")
def event_source() -> None:
    """Have functions get the messages of queues at the endpoint that the configuration names under [services].

    Mappings of other sources are kept while they are disabled: nobody polls them here.
    """


@event_source.command(
    epilog="Example: sandboxd event-source create hello arn:aws:sqs:us-east-1:000000000000:jobs --batch 10 --partial"
)
@function_argument
@click.argument("source", metavar="SOURCE")
@_settings
@output_option
@click.pass_obj
def create(context: Context, /, name: str, source: str, **settings: Any) -> None:
    """Have the function NAME (or NAME:QUALIFIER) get what comes from the source of the ARN SOURCE."""
    body = {"FunctionName": name, "EventSourceArn": source} | _body(settings)
    _show(context, context.client.call("CreateEventSourceMapping", "POST", _PATH, body))


@event_source.command(epilog="Example: sandboxd event-source update 14e0db71-5d35-4eb5-b481-8945cf9d10c2 --disabled")
@_uuid_argument
@click.option("--function", metavar="NAME", shell_complete=complete_function, help="The function from now on.")
@_settings
@output_option
@click.pass_obj
def update(context: Context, /, uuid: str, function: str | None, **settings: Any) -> None:
    """Change the mapping UUID; what is not named stays as it is."""
    body = ({} if function is None else {"FunctionName": function}) | _body(settings)
    if not body:
        raise click.UsageError("nothing to update: name at least one option")
    _show(context, context.client.call("UpdateEventSourceMapping", "PUT", _path(uuid), body))


@event_source.command(epilog="Example: sandboxd event-source get 14e0db71-5d35-4eb5-b481-8945cf9d10c2")
@_uuid_argument
@output_option
@click.pass_obj
def get(context: Context, uuid: str) -> None:
    """Show the mapping UUID."""
    _show(context, context.client.call("GetEventSourceMapping", "GET", _path(uuid)))


@event_source.command(name="list", epilog="Example: sandboxd event-source list --function hello")
@click.option("--function", metavar="NAME", shell_complete=complete_function, help="Only those of this function.")
@click.option("--source", metavar="ARN", help="Only those of this source.")
@output_option
@click.pass_obj
def list_mappings(context: Context, function: str | None, source: str | None) -> None:
    """List the mappings."""
    query = {name: value for name, value in (("FunctionName", function), ("EventSourceArn", source)) if value}
    rows = context.client.every("ListEventSourceMappings", _PATH, _MEMBER, query)
    if context.output == "json":
        show_json({_MEMBER: rows})
    else:
        show_table(list(_COLUMNS), rows, list(_COLUMNS.values()))


@event_source.command(epilog="Example: sandboxd event-source delete 14e0db71-5d35-4eb5-b481-8945cf9d10c2")
@_uuid_argument
@output_option
@click.pass_obj
def delete(context: Context, uuid: str) -> None:
    """Delete the mapping UUID; what it took from its source is finished first."""
    shown = context.client.call("DeleteEventSourceMapping", "DELETE", _path(uuid))
    if context.output == "json":
        show_json(shown)


def _path(uuid: str) -> str:
    return f"{_PATH}/{quote(uuid, safe='')}"


def _body(settings: dict[str, Any]) -> dict[str, Any]:
    members = {
        "Enabled": settings["enabled"],
        "BatchSize": settings["batch"],
        "MaximumBatchingWindowInSeconds": settings["window"],
    }
    if settings["filters"]:
        members["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in settings["filters"] if pattern]}
    if settings["concurrency"] is not None:
        count = settings["concurrency"]
        members["ScalingConfig"] = {"MaximumConcurrency": count} if count else {}
    if settings["partial"] is not None:
        members["FunctionResponseTypes"] = ["ReportBatchItemFailures"] if settings["partial"] else []
    return {name: value for name, value in members.items() if value is not None} | (settings["members"] or {})


def _show(context: Context, shown: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        show_pairs({title: shown[name] for name, title in _COLUMNS.items() if name in shown})
