"""`sandboxd permission`: the resource-based policies of functions, versions and aliases.

Room: command line.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, function_argument, output_option
from sandboxd.cli.output import show_json, show_table

_MEMBERS = {
    "principal": "Principal",
    "action": "Action",
    "source_arn": "SourceArn",
    "source_account": "SourceAccount",
    "organization": "PrincipalOrgID",
    "event_source_token": "EventSourceToken",
    "url_auth": "FunctionUrlAuthType",
    "via_url": "InvokedViaFunctionUrl",
}


@click.group
def permission() -> None:
    """Permit others to invoke functions, show and take back what was permitted.

    NAME:QUALIFIER means a version or an alias, which has permissions of its own.
    """


@permission.command(epilog="Example: sandboxd permission add hello s3 --principal s3.amazonaws.com")
@function_argument
@click.argument("statement")
@click.option("--principal", required=True, help="An account, the ARN of a user or a role, a service, or *.")
@click.option("--action", default="lambda:InvokeFunction", show_default=True, help="What is permitted.")
@click.option("--source-arn", help="The resource for which a service asks; * and ? are wildcards.")
@click.option("--source-account", help="The account for which a service asks.")
@click.option("--organization", metavar="ID", help="The organization to which who asks has to belong.")
@click.option("--event-source-token", metavar="TOKEN", help="What an Alexa skill has to bring.")
@click.option(
    "--url-auth",
    type=click.Choice(["AWS_IAM", "NONE"], case_sensitive=False),
    help="With lambda:InvokeFunctionUrl: only while the URL asks for this.",
)
@click.option("--via-url", is_flag=True, default=None, help="With lambda:InvokeFunction: only through the URL.")
@output_option
@click.pass_obj
def add(context: Context, /, name: str, statement: str, **options: Any) -> None:
    """Add a statement with the id STATEMENT to the policy of the function NAME, and print it."""
    given = {_MEMBERS[option]: value for option, value in options.items() if value is not None}
    body = {"StatementId": statement} | given
    answer = context.client.call("AddPermission", "POST", function_path(name, "/policy"), body)
    show_json(json.loads(answer["Statement"]))


@permission.command(name="list", epilog="Example: sandboxd permission list hello:live")
@function_argument
@output_option
@click.pass_obj
def list_permissions(context: Context, name: str) -> None:
    """List the statements of the policy of the function NAME."""
    answer = context.client.call("GetPolicy", "GET", function_path(name, "/policy"))
    policy = json.loads(answer["Policy"])
    if context.output == "json":
        show_json(policy)
        return
    columns = ["Sid", "Action", "Principal", "Condition"]
    show_table(columns, [{column: _text(row.get(column)) for column in columns} for row in policy["Statement"]])


@permission.command(epilog="Example: sandboxd permission remove hello s3")
@function_argument
@click.argument("statement")
@output_option
@click.pass_obj
def remove(context: Context, name: str, statement: str) -> None:
    """Remove the statement STATEMENT from the policy of the function NAME."""
    path = function_path(name, f"/policy/{quote(statement, safe='')}")
    context.client.call("RemovePermission", "DELETE", path)
    if context.output == "json":
        show_json({"Removed": statement})


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value
