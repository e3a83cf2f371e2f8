"""`sandboxd user`: users of the REST API, and the policies that say what they may do.

Room: command line.
"""

from __future__ import annotations

from typing import IO, Any
from urllib.parse import quote

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, output_option
from sandboxd.cli.output import show_json, show_table

USERS = f"{ADMIN}/users"


@click.group
def user() -> None:
    """Create, show, list and delete users, and give them policies."""


@user.command(epilog="Example: sandboxd user create alice")
@click.argument("name")
@click.option("--account", help="The 12 digits of the user's account, where it is not this server's.")
@output_option
@click.pass_obj
def create(context: Context, name: str, account: str | None) -> None:
    """Create the user NAME, who may do nothing until a policy allows it, and print the ARN."""
    body = {"UserName": name} | ({"AccountId": account} if account else {})
    made = context.client.call("CreateUser", "POST", USERS, body)
    if context.output == "json":
        show_json(made)
    else:
        click.echo(made["Arn"])


@user.command(name="list", epilog="Example: sandboxd user list")
@output_option
@click.pass_obj
def list_users(context: Context) -> None:
    """List the users and the names of their policies."""
    document = context.client.call("ListUsers", "GET", USERS)
    if context.output == "json":
        show_json(document)
        return
    rows: list[dict[str, Any]] = [
        row | {"Policies": " ".join(row.get("Policies", []))} for row in document.get("Users", [])
    ]
    show_table(["UserName", "Arn", "CreateDate", "Policies"], rows)


@user.command(epilog="Example: sandboxd user get alice")
@click.argument("name")
@output_option
@click.pass_obj
def get(context: Context, name: str) -> None:
    """Show the user NAME and the policies, as JSON."""
    show_json(context.client.call("GetUser", "GET", _path(name)))


@user.command(epilog="Example: sandboxd user delete alice")
@click.argument("name")
@output_option
@click.pass_obj
def delete(context: Context, name: str) -> None:
    """Delete the user NAME with policies and keys, which stop working at once."""
    context.client.call("DeleteUser", "DELETE", _path(name))
    if context.output == "json":
        show_json({"Deleted": name})


@user.command(name="put-policy", epilog="Example: sandboxd user put-policy alice invoke -")
@click.argument("name")
@click.argument("policy")
@click.argument("file", type=click.File(encoding="utf-8"))
@output_option
@click.pass_obj
def put_policy(context: Context, name: str, policy: str, file: IO[str]) -> None:
    """Give the user NAME the policy POLICY, an IAM policy document in FILE (- for standard input)."""
    body = {"PolicyName": policy, "PolicyDocument": file.read()}
    context.client.call("PutUserPolicy", "PUT", f"{_path(name)}/policies", body)
    if context.output == "json":
        show_json({"Put": policy})


@user.command(name="delete-policy", epilog="Example: sandboxd user delete-policy alice invoke")
@click.argument("name")
@click.argument("policy")
@output_option
@click.pass_obj
def delete_policy(context: Context, name: str, policy: str) -> None:
    """Take the policy POLICY from the user NAME."""
    context.client.call("DeleteUserPolicy", "DELETE", f"{_path(name)}/policies?name={quote(policy, safe='')}")
    if context.output == "json":
        show_json({"Deleted": policy})


def _path(name: str) -> str:
    return f"{USERS}/{quote(name, safe='')}"
