"""`sandboxd version`: the published versions of functions.

Room: command line.
"""

from __future__ import annotations

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, completer, function_argument, of_function, output_option
from sandboxd.cli.output import show_json, show_table


@click.group
def version() -> None:
    """Publish, list and delete versions of functions."""


@version.command(epilog="Example: sandboxd version publish hello --description 'first of May'")
@function_argument
@click.option("--description", help="What the version is.")
@output_option
@click.pass_obj
def publish(context: Context, name: str, description: str | None) -> None:
    """Publish the function NAME as it is now, and print the version's number.

    Where nothing changed since the last version was published, that one is the answer.
    """
    body = {} if description is None else {"Description": description}
    configuration = context.client.call("PublishVersion", "POST", function_path(name, "/versions"), body)
    if context.output == "json":
        show_json(configuration)
    else:
        click.echo(configuration["Version"])


@version.command(name="list", epilog="Example: sandboxd version list hello")
@function_argument
@output_option
@click.pass_obj
def list_versions(context: Context, name: str) -> None:
    """List the versions of the function NAME, $LATEST first."""
    path = function_path(name, "/versions")
    rows = context.client.every("ListVersionsByFunction", path, "Versions")
    if context.output == "json":
        show_json({"Versions": rows})
        return
    columns = ["Version", "Runtime", "MemorySize", "Timeout", "CodeSize", "LastModified", "Description"]
    titles = ["VERSION", "RUNTIME", "MEMORY MB", "TIMEOUT S", "CODE BYTES", "MODIFIED", "DESCRIPTION"]
    show_table(columns, rows, titles)


@version.command(epilog="Example: sandboxd version delete hello 3")
@function_argument
@click.argument(
    "number", shell_complete=completer("ListVersionsByFunction", "Versions", "Version", of_function("/versions"))
)
@output_option
@click.pass_obj
def delete(context: Context, name: str, number: str) -> None:
    """Delete the version NUMBER of the function NAME."""
    context.client.call("DeleteFunction", "DELETE", function_path(name), query={"Qualifier": number})
    if context.output == "json":
        show_json({"Deleted": f"{name}:{number}"})
