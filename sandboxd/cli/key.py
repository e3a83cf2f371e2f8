"""`sandboxd key`: access keys for the REST API's TCP door.

Room: command line.
"""

from __future__ import annotations

from urllib.parse import quote

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, output_option
from sandboxd.cli.output import show_json, show_table

KEYS = f"{ADMIN}/keys"


@click.group
def key() -> None:
    """Create, list and delete access keys of the REST API."""


@key.command(epilog="Example: sandboxd key create --description 'build server' --user alice")
@click.option("--description", default="", help="What the key is for.")
@click.option("--user", help="Whose it is (sandboxd user); without one it is admin's, who may do everything.")
@output_option
@click.pass_obj
def create(context: Context, description: str, user: str | None) -> None:
    """Create a key pair. The secret is shown this once."""
    client = context.client
    body = {"Description": description} | ({"UserName": user} if user else {})
    pair = client.call("CreateKey", "POST", KEYS, body)
    if context.output == "json":
        show_json(pair)
        return
    status = client.call("GetStatus", "GET", f"{ADMIN}/status")
    settings = {
        "AWS_ACCESS_KEY_ID": pair["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": pair["SecretAccessKey"],
        "AWS_DEFAULT_REGION": status["Region"],
        "AWS_ENDPOINT_URL_LAMBDA": status["Endpoint"],
    }
    click.echo("# The secret is shown this once. For the shell:")
    for name, value in settings.items():
        click.echo(f"export {name}={value}")
    click.echo("\n# Or as a profile of the aws CLI and boto3 (aws --profile sandboxd lambda ...):")
    for name, value in zip(
        ("aws_access_key_id", "aws_secret_access_key", "region", "endpoint_url"), settings.values(), strict=True
    ):
        click.echo(f"aws configure set {name} {value} --profile sandboxd")


@key.command(name="list", epilog="Example: sandboxd key list")
@output_option
@click.pass_obj
def list_keys(context: Context) -> None:
    """List the keys, without their secrets."""
    document = context.client.call("ListKeys", "GET", KEYS)
    if context.output == "json":
        show_json(document)
    else:
        show_table(["AccessKeyId", "UserName", "CreateDate", "Description"], document.get("Keys", []))


@key.command(epilog="Example: sandboxd key delete AKIAIOSFODNN7EXAMPLE")
@click.argument("key_id")
@output_option
@click.pass_obj
def delete(context: Context, key_id: str) -> None:
    """Delete the key KEY_ID; it stops working at once."""
    context.client.call("DeleteKey", "DELETE", f"{KEYS}/{quote(key_id, safe='')}")
    if context.output == "json":
        show_json({"Deleted": key_id})
