"""`sandboxd runtime` and `sandboxd recursion`: when a function's runtime is updated, and what becomes of loops.

Room: command line.
"""

from __future__ import annotations

from typing import Any

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, function_argument, output_option
from sandboxd.cli.output import show_json


@click.group
def runtime() -> None:
    """Show and set when the runtimes of functions are updated (sandboxd image builds them)."""


@runtime.command(epilog="Example: sandboxd runtime get hello:live")
@function_argument
@output_option
@click.pass_obj
def get(context: Context, name: str) -> None:
    """Print when the runtime of the function NAME (or NAME:QUALIFIER) is updated."""
    _show(context, context.client.call("GetRuntimeManagementConfig", "GET", _path(name)), "UpdateRuntimeOn")


@runtime.command(epilog="Example: sandboxd runtime put hello Auto")
@function_argument
@click.argument(
    "update_on", metavar="WHEN", type=click.Choice(["Auto", "FunctionUpdate", "Manual"], case_sensitive=False)
)
@click.option("--runtime-version", metavar="ARN", help="With Manual: the version of the runtime.")
@output_option
@click.pass_obj
def put(context: Context, name: str, update_on: str, runtime_version: str | None) -> None:
    """Set WHEN the runtime of the function NAME is updated: Auto (when its image is built again) is all there is."""
    body = {"UpdateRuntimeOn": update_on} | ({"RuntimeVersionArn": runtime_version} if runtime_version else {})
    shown = context.client.call("PutRuntimeManagementConfig", "PUT", _path(name), body)
    if context.output == "json":
        show_json(shown)


@click.group
def recursion() -> None:
    """Show and set what becomes of functions that invoke themselves; it is kept, but loops are not detected here."""


@recursion.command(name="get", epilog="Example: sandboxd recursion get hello")
@function_argument
@output_option
@click.pass_obj
def get_recursion(context: Context, name: str) -> None:
    """Print what is to become of loops of the function NAME."""
    _show(context, context.client.call("GetFunctionRecursionConfig", "GET", _loops(name)), "RecursiveLoop")


@recursion.command(name="put", epilog="Example: sandboxd recursion put hello Allow")
@function_argument
@click.argument("loop", metavar="WHAT", type=click.Choice(["Allow", "Terminate"], case_sensitive=False))
@output_option
@click.pass_obj
def put_recursion(context: Context, name: str, loop: str) -> None:
    """Set WHAT is to become of loops of the function NAME: Allow or Terminate."""
    shown = context.client.call("PutFunctionRecursionConfig", "PUT", _loops(name), {"RecursiveLoop": loop})
    if context.output == "json":
        show_json(shown)


def _path(name: str) -> str:
    return function_path(name, "/runtime-management-config", since="2021-07-20")


def _loops(name: str) -> str:
    return function_path(name, "/recursion-config", since="2024-08-31")


def _show(context: Context, shown: dict[str, Any], member: str) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        click.echo(shown[member])
