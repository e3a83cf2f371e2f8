"""`sandboxd concurrency` and `sandboxd provisioned`: how many invocations at once, and environments made ahead of them.

Room: command line.
"""

from __future__ import annotations

import time
from typing import Any

import click

from sandboxd.cli.client import Client, function_path
from sandboxd.cli.context import Context, Failure, function_argument, output_option
from sandboxd.cli.functions_api import every
from sandboxd.cli.output import show_json, show_pairs, show_table

_RESERVED, _PROVISIONED = "ReservedConcurrentExecutions", "ProvisionedConcurrentExecutions"
_READY_SECONDS, _POLL_SECONDS = 300, 0.2
_SHOWN = {
    f"Requested{_PROVISIONED}": "REQUESTED",
    f"Allocated{_PROVISIONED}": "ALLOCATED",
    f"Available{_PROVISIONED}": "AVAILABLE",
    "Status": "STATUS",
    "StatusReason": "REASON",
}
_count = click.argument("count", type=click.IntRange(min=0))


@click.group
def concurrency() -> None:
    """Reserve concurrency for functions, show it and give it back.

    So many invocations of the function may run at once, no more, and other functions leave room for them.
    """


@concurrency.command(epilog="Example: sandboxd concurrency put hello 10")
@function_argument
@_count
@output_option
@click.pass_obj
def put(context: Context, name: str, count: int) -> None:
    """Reserve COUNT for the function NAME; 0 lets no invocation in."""
    path = function_path(name, "/concurrency", since="2017-10-31")
    shown = context.client.call("PutFunctionConcurrency", "PUT", path, {_RESERVED: count})
    if context.output == "json":
        show_json(shown)


@concurrency.command(epilog="Example: sandboxd concurrency get hello")
@function_argument
@output_option
@click.pass_obj
def get(context: Context, name: str) -> None:
    """Print what is reserved for the function NAME; - where nothing is."""
    shown = _reserved(context.client, name)
    if context.output == "json":
        show_json(shown)
    else:
        click.echo(shown.get(_RESERVED, "-"))


@concurrency.command(name="list", epilog="Example: sandboxd concurrency list")
@output_option
@click.pass_obj
def list_reserved(context: Context) -> None:
    """List the functions that have something reserved."""
    client = context.client
    asked = ({"FunctionName": row["FunctionName"]} | _reserved(client, row["FunctionName"]) for row in every(client))
    rows = [row for row in asked if _RESERVED in row]
    if context.output == "json":
        show_json({"Functions": rows})
    else:
        show_table(["FunctionName", _RESERVED], rows, ["NAME", "RESERVED"])


@concurrency.command(epilog="Example: sandboxd concurrency delete hello")
@function_argument
@output_option
@click.pass_obj
def delete(context: Context, name: str) -> None:
    """Give back what is reserved for the function NAME."""
    path = function_path(name, "/concurrency", since="2017-10-31")
    context.client.call("DeleteFunctionConcurrency", "DELETE", path)
    if context.output == "json":
        show_json({"Deleted": name})


@click.group
def provisioned() -> None:
    """Have environments of versions and aliases made ahead of invocations, show and remove them.

    NAME:QUALIFIER means a published version or an alias; $LATEST can have none.
    """


@provisioned.command(name="put", epilog="Example: sandboxd provisioned put hello:live 5")
@function_argument
@_count
@click.option("--wait/--no-wait", default=True, help="Wait until they are there (default).")
@output_option
@click.pass_obj
def put_provisioned(context: Context, name: str, count: int, wait: bool) -> None:
    """Keep COUNT environments of NAME:QUALIFIER ready."""
    client, (path, query) = context.client, _target(name)
    shown = client.call("PutProvisionedConcurrencyConfig", "PUT", path, {_PROVISIONED: count}, query)
    deadline = time.monotonic() + _READY_SECONDS
    while wait and shown["Status"] == "IN_PROGRESS":
        if time.monotonic() > deadline:
            raise Failure(f"{name} is still IN_PROGRESS after {_READY_SECONDS} s")
        time.sleep(_POLL_SECONDS)
        shown = client.call("GetProvisionedConcurrencyConfig", "GET", path, query=query)
    if shown["Status"] == "FAILED":
        raise Failure(f"environments of {name} cannot be made: {shown.get('StatusReason', 'no reason given')}")
    _show(context, shown)


@provisioned.command(name="get", epilog="Example: sandboxd provisioned get hello:live")
@function_argument
@output_option
@click.pass_obj
def get_provisioned(context: Context, name: str) -> None:
    """Show how many environments of NAME:QUALIFIER are wanted and how many there are."""
    path, query = _target(name)
    _show(context, context.client.call("GetProvisionedConcurrencyConfig", "GET", path, query=query))


@provisioned.command(name="list", epilog="Example: sandboxd provisioned list hello")
@function_argument
@output_option
@click.pass_obj
def list_provisioned(context: Context, name: str) -> None:
    """List what is provisioned of the versions and aliases of the function NAME."""
    path, rows = _path(name), "ProvisionedConcurrencyConfigs"
    found = context.client.every("ListProvisionedConcurrencyConfigs", path, rows, {"List": "ALL"})
    if context.output == "json":
        show_json({rows: found})
        return
    qualified = [row | {"Qualifier": row["FunctionArn"].rpartition(":")[2]} for row in found]
    show_table(["Qualifier", *_SHOWN], qualified, ["QUALIFIER", *_SHOWN.values()])


@provisioned.command(name="delete", epilog="Example: sandboxd provisioned delete hello:live")
@function_argument
@output_option
@click.pass_obj
def delete_provisioned(context: Context, name: str) -> None:
    """Have no more environments of NAME:QUALIFIER kept ready."""
    path, query = _target(name)
    context.client.call("DeleteProvisionedConcurrencyConfig", "DELETE", path, query=query)
    if context.output == "json":
        show_json({"Deleted": name})


def _reserved(client: Client, name: str) -> dict[str, Any]:
    return client.call("GetFunctionConcurrency", "GET", function_path(name, "/concurrency", since="2019-09-30"))


def _path(name: str) -> str:
    return function_path(name, "/provisioned-concurrency", since="2019-09-30")


def _target(name: str) -> tuple[str, dict[str, str]]:
    """Path and query of NAME:QUALIFIER: these operations want the qualifier by itself."""
    from sandboxd.model.arn import parse_function_reference

    reference = parse_function_reference(name)
    if reference is None or reference.qualifier is None:
        raise click.UsageError(f"{name!r} is not NAME:QUALIFIER, such as hello:live: a version or an alias")
    return _path(name.removesuffix(f":{reference.qualifier}")), {"Qualifier": reference.qualifier}


def _show(context: Context, shown: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        show_pairs({title: shown[member] for member, title in _SHOWN.items() if member in shown})
