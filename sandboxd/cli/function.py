"""`sandboxd function`: create, update, show, list and delete.

Room: command line.
"""

from __future__ import annotations

from typing import Any

import click

from sandboxd.cli import functions_api as api
from sandboxd.cli.client import Client
from sandboxd.cli.context import Context, Failure, complete_function, function_argument, output_option
from sandboxd.cli.function_options import configuration_options, creation_options, egress_option, members, wait_option
from sandboxd.cli.output import show_json, show_pairs, show_table
from sandboxd.cli.upload import Source, package_options
from sandboxd.errors import SandboxdError

# What people see of a configuration; `--output json` has all of it.
_SHOWN = (
    "FunctionName", "FunctionArn", "Description", "Runtime", "Handler", "Role", "MemorySize", "Timeout",
    "EphemeralStorage", "Environment", "Layers", "DeadLetterConfig", "AllowEgress", "AllowInvoke",
    "Reaches", "ReachesNot", "ReachesNothing",
    "CodeSize", "CodeSha256", "Version", "LastModified", "State", "StateReason", "LastUpdateStatus",
    "LastUpdateStatusReason",
)  # fmt: skip


@click.group
def function() -> None:
    """Create, update, show, list and delete functions."""


@function.command(epilog="Example: sandboxd function create hello --runtime python3.13 --handler app.handler --dir .")
@click.argument("name")
@click.option("--runtime", required=True, metavar="RUNTIME", help="Such as python3.13.")
@click.option("--handler", required=True, metavar="MODULE.FUNCTION", help="Such as app.handler.")
@package_options
@configuration_options
@creation_options
@egress_option
@click.option("--allow-invoke", is_flag=True, help="Permit calls to this server's own Lambda endpoint.")
@wait_option
@output_option
@click.pass_obj
def create(
    context: Context,
    /,
    name: str,
    source: Source,
    allow_egress: list[str],
    allow_invoke: bool,
    wait: bool,
    **settings: Any,
) -> None:
    """Create the function NAME from a zip file, a directory or an object in a bucket."""
    request = {"FunctionName": name, "Code": source.members(context)}
    settings["role"] = settings["role"] or f"arn:aws:iam::{context.account}:role/sandboxd"
    client = context.client
    configuration = api.create(client, request | members(context, settings))
    if allow_egress or allow_invoke:
        try:
            api.wait_ready(client, name)
            api.put_policy(client, name, {"AllowEgress": allow_egress or None, "AllowInvoke": allow_invoke})
        except (Failure, SandboxdError):
            api.delete(client, name)
            raise
    _finish(context, client, configuration, wait)


@function.command(epilog="Example: sandboxd function update hello --memory 256 --env STAGE=test")
@function_argument
@click.option("--runtime", metavar="RUNTIME", help="Such as python3.13.")
@click.option("--handler", metavar="MODULE.FUNCTION", help="Such as app.handler.")
@package_options
@configuration_options
@click.option("--no-env", is_flag=True, help="Remove all variables (--env replaces all of them).")
@click.option("--no-layers", is_flag=True, help="Take away all layers (--layer replaces all of them).")
@egress_option
@click.option("--no-egress", is_flag=True, help="Permit no egress (--allow-egress replaces what was permitted).")
@click.option("--role-egress", is_flag=True, help="Take the function's own setting away: its role alone decides.")
@click.option("--allow-invoke/--deny-invoke", default=None, help="Permit calls to this server's own Lambda endpoint.")
@wait_option
@output_option
@click.pass_obj
def update(
    context: Context,
    /,
    name: str,
    source: Source,
    allow_egress: list[str],
    no_egress: bool,
    role_egress: bool,
    allow_invoke: bool | None,
    wait: bool,
    **settings: Any,
) -> None:
    """Update code, configuration or permissions of the function NAME; what is not named stays as it is."""
    changes = members(context, settings)
    new_policy: dict[str, Any] = {"AllowEgress": allow_egress} if allow_egress or no_egress else {}
    new_policy |= {"AllowEgress": None} if role_egress else {}
    new_policy |= {} if allow_invoke is None else {"AllowInvoke": allow_invoke}
    if (
        (settings["no_env"] and settings["env"])
        or (settings["no_layers"] and settings["layer"])
        or sum(map(bool, (allow_egress, no_egress, role_egress))) > 1
    ):
        raise click.UsageError(
            "--no-env excludes --env, --no-layers --layer, and each of --allow-egress, --no-egress and --role-egress "
            "the others"
        )
    if not (source.named or changes or new_policy):
        raise click.UsageError("nothing to update: name at least one option")
    client = context.client
    if source.named:
        configuration = api.update_code(client, name, source.members(context))
        if changes or new_policy:
            api.wait_ready(client, name)
    if changes:
        configuration = api.update_configuration(client, name, changes)
        if new_policy:
            api.wait_ready(client, name)
    if new_policy:
        api.put_policy(client, name, api.get_policy(client, name) | new_policy)
        configuration = api.configuration(client, name)
    _finish(context, client, configuration, wait)


@function.command(epilog="Example: sandboxd function get hello")
@function_argument
@output_option
@click.pass_obj
def get(context: Context, name: str) -> None:
    """Show the function NAME with its permissions."""
    document = api.get(context.client, name)
    configuration = document["Configuration"]
    document["Policy"] = api.get_policy(context.client, configuration["FunctionName"])
    network = document["Network"] = api.get_network(context.client, configuration["FunctionName"])
    other = api.served_by(context.client, configuration["Runtime"])
    if other:
        document["ServedBy"] = other
        configuration["Runtime"] += f" (served by the image of {other})" if context.output != "json" else ""
    if context.output == "json":
        show_json(document)
    else:
        reaches = {"Reaches": network["Allow"], "ReachesNot": network["Deny"], "ReachesNothing": network.get("Error")}
        _show(configuration | document["Policy"] | {name: value for name, value in reaches.items() if value})


@function.command(name="list", epilog="Example: sandboxd function list --output json")
@output_option
@click.pass_obj
def list_functions(context: Context) -> None:
    """List the functions."""
    functions = api.every(context.client)
    if context.output == "json":
        show_json({"Functions": functions})
        return
    columns = ["FunctionName", "Runtime", "Handler", "MemorySize", "Timeout", "CodeSize", "LastModified"]
    titles = ["NAME", "RUNTIME", "HANDLER", "MEMORY MB", "TIMEOUT S", "CODE BYTES", "MODIFIED"]
    show_table(columns, functions, titles)


@function.command(epilog="Example: sandboxd function delete hello")
@click.argument("name", shell_complete=complete_function)
@output_option
@click.pass_obj
def delete(context: Context, name: str) -> None:
    """Delete the function NAME, its code and its environments."""
    api.delete(context.client, name)
    if context.output == "json":
        show_json({"Deleted": name})


def _finish(context: Context, client: Client, configuration: dict[str, Any], wait: bool) -> None:
    if wait:
        configuration = api.wait_ready(client, configuration["FunctionName"])
    if context.output == "json":
        show_json(configuration)
    else:
        _show(configuration)


def _show(configuration: dict[str, Any]) -> None:
    pairs = {name: configuration[name] for name in _SHOWN if configuration.get(name) not in (None, "")}
    for name, inner in (("EphemeralStorage", "Size"), ("Environment", "Variables"), ("DeadLetterConfig", "TargetArn")):
        if name in pairs:
            pairs[name] = pairs[name].get(inner)
    if "Layers" in pairs:
        pairs["Layers"] = [layer["Arn"] for layer in pairs["Layers"]]
    show_pairs(pairs)
