"""`sandboxd alias`: names for versions of functions.

Room: command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, completer, function_argument, of_function, output_option
from sandboxd.cli.output import show_json, show_pairs, show_table

C = TypeVar("C", bound=Callable[..., Any])

_complete_alias = completer("ListAliases", "Aliases", "Name", of_function("/aliases"))
_complete_version = completer("ListVersionsByFunction", "Versions", "Version", of_function("/versions"))
_alias_argument = click.argument("alias_name", metavar="ALIAS", shell_complete=_complete_alias)


def _weight(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    version, separator, share = value.partition("=")
    try:
        return {"AdditionalVersionWeights": {version: float(share)} if separator else {}}
    except ValueError:
        raise click.BadParameter(f"{value!r} is not VERSION=SHARE, such as 2=0.1") from None


def _settings(command: C) -> C:
    command = click.option("--description", help="What the alias is for.")(command)
    return click.option(
        "--route",
        metavar="VERSION=SHARE",
        callback=_weight,
        help="A second version, and which share of the invocations (0 to 1) it gets; '' ends that.",
    )(command)


@click.group
def alias() -> None:
    """Create, update, show, list and delete aliases of functions."""


@alias.command(epilog="Example: sandboxd alias create hello live --version 1 --route 2=0.1")
@function_argument
@click.argument("alias_name", metavar="ALIAS")
@click.option(
    "--version",
    required=True,
    metavar="VERSION",
    shell_complete=_complete_version,
    help="The version that it is a name for.",
)
@_settings
@output_option
@click.pass_obj
def create(
    context: Context, name: str, alias_name: str, version: str, description: str | None, route: dict[str, Any] | None
) -> None:
    """Create the alias ALIAS of the function NAME."""
    body = {"Name": alias_name} | _body(version, description, route)
    _show(context, context.client.call("CreateAlias", "POST", function_path(name, "/aliases"), body))


@alias.command(epilog="Example: sandboxd alias update hello live --version 2 --route ''")
@function_argument
@_alias_argument
@click.option(
    "--version",
    metavar="VERSION",
    shell_complete=_complete_version,
    help="The version that it is a name for from now on.",
)
@_settings
@output_option
@click.pass_obj
def update(
    context: Context,
    name: str,
    alias_name: str,
    version: str | None,
    description: str | None,
    route: dict[str, Any] | None,
) -> None:
    """Update the alias ALIAS of the function NAME; what is not named stays as it is."""
    body = _body(version, description, route)
    if not body:
        raise click.UsageError("nothing to update: name at least one option")
    _show(context, context.client.call("UpdateAlias", "PUT", _path(name, alias_name), body))


@alias.command(epilog="Example: sandboxd alias get hello live")
@function_argument
@_alias_argument
@output_option
@click.pass_obj
def get(context: Context, name: str, alias_name: str) -> None:
    """Show the alias ALIAS of the function NAME."""
    _show(context, context.client.call("GetAlias", "GET", _path(name, alias_name)))


@alias.command(name="list", epilog="Example: sandboxd alias list hello")
@function_argument
@output_option
@click.pass_obj
def list_aliases(context: Context, name: str) -> None:
    """List the aliases of the function NAME."""
    rows = context.client.every("ListAliases", function_path(name, "/aliases"), "Aliases")
    if context.output == "json":
        show_json({"Aliases": rows})
        return
    for row in rows:
        row["Route"] = _route(row)
    columns = ["Name", "FunctionVersion", "Route", "Description"]
    show_table(columns, rows, ["ALIAS", "VERSION", "ROUTE", "DESCRIPTION"])


@alias.command(epilog="Example: sandboxd alias delete hello live")
@function_argument
@_alias_argument
@output_option
@click.pass_obj
def delete(context: Context, name: str, alias_name: str) -> None:
    """Delete the alias ALIAS of the function NAME; the version stays."""
    context.client.call("DeleteAlias", "DELETE", _path(name, alias_name))
    if context.output == "json":
        show_json({"Deleted": f"{name}:{alias_name}"})


def _path(name: str, alias_name: str) -> str:
    return function_path(name, f"/aliases/{quote(alias_name, safe='')}")


def _body(version: str | None, description: str | None, route: dict[str, Any] | None) -> dict[str, Any]:
    members = {"FunctionVersion": version, "Description": description, "RoutingConfig": route}
    return {name: value for name, value in members.items() if value is not None}


def _route(shown: dict[str, Any]) -> str:
    weights = shown.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
    return ", ".join(f"{version}={share:g}" for version, share in weights.items()) or "-"


def _show(context: Context, shown: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        show_pairs({name: shown[name] for name in ("AliasArn", "FunctionVersion")} | {"Route": _route(shown)})
