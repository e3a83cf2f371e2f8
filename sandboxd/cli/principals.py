"""`sandboxd user`, `sandboxd group` and `sandboxd role`: who asks, and the policies that say what they may do.

Room: command line.
"""

from __future__ import annotations

import copy
from typing import IO, Any
from urllib.parse import quote

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, output_option
from sandboxd.cli.output import show_json, show_table


@click.group
def user() -> None:
    """Create, show, list and delete users, and give them policies."""


@click.group
def group() -> None:
    """Create, show, list and delete groups of users, give them policies, and put users into them.

    The policies of a group are those of every user in it, beside the user's own.
    """


@click.group
def role() -> None:
    """Create, show, list and delete roles of functions, and give them policies.

    A role that is kept here decides which functions those that have it may invoke (beside --allow-invoke), and which
    network destinations they may reach: sandboxd:Connect on arn:sandboxd:network:::DESTINATION, where a destination is
    *, 10.0.0.0/8, 10.0.0.0/8:5432, 10.1.2.3:8000-8010, api.example.com:443 or *.example.com:443. What is without a port
    means every port. --allow-egress of a function, where it is given, narrows that.
    """


@user.command(name="create", epilog="Example: sandboxd user create alice")
@click.argument("name")
@output_option
@click.pass_obj
def create_user(context: Context, name: str) -> None:
    """Create the user NAME, who may do nothing until a policy allows it, and print the ARN."""
    _create(context, {"UserName": name})


@group.command(name="create", epilog="Example: sandboxd group create readers")
@click.argument("name")
@output_option
@click.pass_obj
def create_group(context: Context, name: str) -> None:
    """Create the group NAME, whose users may do nothing by it until a policy allows it, and print the ARN."""
    _create(context, {"GroupName": name})


@group.command(name="add-user", epilog="Example: sandboxd group add-user readers alice")
@click.argument("name")
@click.argument("user_name", metavar="USER")
@output_option
@click.pass_obj
def add_user(context: Context, name: str, user_name: str) -> None:
    """Put USER into the group NAME."""
    context.client.call("AddUser", "PUT", _groups_of(user_name), {"GroupName": name})
    if context.output == "json":
        show_json({"Added": user_name})


@group.command(name="remove-user", epilog="Example: sandboxd group remove-user readers alice")
@click.argument("name")
@click.argument("user_name", metavar="USER")
@output_option
@click.pass_obj
def remove_user(context: Context, name: str, user_name: str) -> None:
    """Take USER out of the group NAME."""
    context.client.call("RemoveUser", "DELETE", f"{_groups_of(user_name)}?name={quote(name, safe='')}")
    if context.output == "json":
        show_json({"Removed": user_name})


@role.command(name="create", epilog="Example: sandboxd role create worker")
@click.argument("name")
@click.option("--trust", type=click.File(encoding="utf-8"), help="Who may assume it, a policy; without: Lambda.")
@output_option
@click.pass_obj
def create_role(context: Context, name: str, trust: IO[str] | None) -> None:
    """Create the role NAME, which may do nothing until a policy allows it, and print the ARN."""
    _create(context, {"RoleName": name} | ({"AssumeRolePolicyDocument": trust.read()} if trust else {}))


@role.command(name="put-trust", epilog="Example: sandboxd role put-trust worker -")
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@output_option
@click.pass_obj
def put_trust(context: Context, name: str, file: IO[str]) -> None:
    """Say who may assume the role NAME: a trust policy in FILE (- for standard input).

    Functions whose role does not let lambda.amazonaws.com assume it cannot run.
    """
    context.client.call("PutTrust", "PUT", f"{_path(name)}/trust", {"PolicyDocument": file.read()})
    if context.output == "json":
        show_json({"Put": name})


@click.command(name="list", epilog="")
@output_option
@click.pass_obj
def list_all(context: Context) -> None:
    """List them with the names of their policies."""
    document = context.client.call("List", "GET", _path())
    if context.output == "json":
        show_json(document)
        return
    title = _noun().title()
    rows: list[dict[str, Any]] = [
        row | {"Policies": " ".join(row.get("Policies", []))} for row in document.get(f"{title}s", [])
    ]
    show_table([f"{title}Name", "Arn", "CreateDate", "Policies"], rows)


@click.command(epilog="worker")
@click.argument("name")
@output_option
@click.pass_obj
def get(context: Context, name: str) -> None:
    """Show NAME and the policies, as JSON."""
    show_json(context.client.call("Get", "GET", _path(name)))


@click.command(epilog="worker")
@click.argument("name")
@output_option
@click.pass_obj
def delete(context: Context, name: str) -> None:
    """Delete NAME with the policies, and of a user the keys, which stop working at once."""
    context.client.call("Delete", "DELETE", _path(name))
    if context.output == "json":
        show_json({"Deleted": name})


@click.command(name="put-policy", epilog="worker invoke -")
@click.argument("name")
@click.argument("policy")
@click.argument("file", type=click.File(encoding="utf-8"))
@output_option
@click.pass_obj
def put_policy(context: Context, name: str, policy: str, file: IO[str]) -> None:
    """Give NAME the policy POLICY, an IAM policy document in FILE (- for standard input)."""
    body = {"PolicyName": policy, "PolicyDocument": file.read()}
    context.client.call("PutPolicy", "PUT", f"{_path(name)}/policies", body)
    if context.output == "json":
        show_json({"Put": policy})


@click.command(name="delete-policy", epilog="worker invoke")
@click.argument("name")
@click.argument("policy")
@output_option
@click.pass_obj
def delete_policy(context: Context, name: str, policy: str) -> None:
    """Take the policy POLICY from NAME."""
    context.client.call("DeletePolicy", "DELETE", f"{_path(name)}/policies?name={quote(policy, safe='')}")
    if context.output == "json":
        show_json({"Deleted": policy})


@click.command(name="put-boundary", epilog="worker -")
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@output_option
@click.pass_obj
def put_boundary(context: Context, name: str, file: IO[str]) -> None:
    """Let the policies of NAME allow nothing beyond a policy in FILE (- for standard input)."""
    context.client.call("PutBoundary", "PUT", f"{_path(name)}/boundary", {"PolicyDocument": file.read()})
    if context.output == "json":
        show_json({"Put": name})


@click.command(name="delete-boundary", epilog="worker")
@click.argument("name")
@output_option
@click.pass_obj
def delete_boundary(context: Context, name: str) -> None:
    """Take the permissions boundary of NAME away."""
    context.client.call("DeleteBoundary", "DELETE", f"{_path(name)}/boundary")
    if context.output == "json":
        show_json({"Deleted": name})


for _group in (user, group, role):
    _commands = [list_all, get, delete, put_policy, delete_policy]
    for _command in _commands if _group is group else [*_commands, put_boundary, delete_boundary]:
        _of_group = copy.copy(_command)
        _of_group.epilog = f"Example: sandboxd {_group.name} {_command.name} {_command.epilog}".rstrip()
        _group.add_command(_of_group)


def _create(context: Context, body: dict[str, str]) -> None:
    made = context.client.call("Create", "POST", _path(), body)
    if context.output == "json":
        show_json(made)
    else:
        click.echo(made["Arn"])


def _noun() -> str:
    """Whether it is `sandboxd user`, `sandboxd group` or `sandboxd role`."""
    parent = click.get_current_context().parent
    assert parent is not None and parent.command.name is not None
    return parent.command.name


def _groups_of(user_name: str) -> str:
    return f"{ADMIN}/users/{quote(user_name, safe='')}/groups"


def _path(name: str | None = None) -> str:
    return f"{ADMIN}/{_noun()}s" + ("" if name is None else f"/{quote(name, safe='')}")
