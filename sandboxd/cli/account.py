"""`sandboxd account`: accounts, each with functions, layers, users and limits of its own.

Room: command line.
"""

from __future__ import annotations

from urllib.parse import quote

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, host_output_option
from sandboxd.cli.output import show_json, show_table

ACCOUNTS = f"{ADMIN}/accounts"
_COLUMNS = ["AccountId", "Default", "Functions", "Users", "Keys"]


@click.group
def account() -> None:
    """Create, list and delete accounts.

    Accounts are isolated from one another: names, lists, logs, limits, users and keys are an account's own. Commands
    act in the configuration's account, or in that of --account or SANDBOXD_ACCOUNT.
    """


@account.command(epilog="Example: sandboxd account create 222222222222")
@click.argument("account_id", metavar="ID")
@host_output_option
@click.pass_obj
def create(context: Context, account_id: str) -> None:
    """Create the account ID, which is 12 digits. Its first key: sandboxd key create --account ID."""
    made = context.client.call("CreateAccount", "POST", ACCOUNTS, {"AccountId": account_id})
    if context.output == "json":
        show_json(made)
    else:
        click.echo(made["AccountId"])


@account.command(name="list", epilog="Example: sandboxd account list")
@host_output_option
@click.pass_obj
def list_accounts(context: Context) -> None:
    """List the accounts with what they have."""
    document = context.client.call("ListAccounts", "GET", ACCOUNTS)
    if context.output == "json":
        show_json(document)
    else:
        show_table(_COLUMNS, document.get("Accounts", []))


@account.command(epilog="Example: sandboxd account delete 222222222222")
@click.argument("account_id", metavar="ID")
@host_output_option
@click.pass_obj
def delete(context: Context, account_id: str) -> None:
    """Delete the account ID, which has to be empty, with its users, keys and roles."""
    context.client.call("DeleteAccount", "DELETE", f"{ACCOUNTS}/{quote(account_id, safe='')}")
    if context.output == "json":
        show_json({"Deleted": account_id})
