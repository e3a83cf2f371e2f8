"""`sandboxd url`: addresses by which HTTP clients invoke functions.

Room: command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, function_argument, output_option
from sandboxd.cli.output import show_json, show_pairs, show_table
from sandboxd.errors import ApiError

C = TypeVar("C", bound=Callable[..., Any])

_SINCE = "2021-10-31"
# As AWS's console names them: a URL that needs no signature needs both.
_PUBLIC = (
    ("FunctionURLAllowPublicAccess", {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}),
    ("FunctionURLInvokeAllowPublicAccess", {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True}),
)
_SHOWN = {"FunctionUrl": "URL", "FunctionArn": "FUNCTION", "AuthType": "AUTH", "InvokeMode": "MODE"}
_CORS = {
    "origin": ("AllowOrigins", "An origin that may ask, such as https://example.com, or *."),
    "method": ("AllowMethods", "A method that other origins may use, such as POST, or *."),
    "header": ("AllowHeaders", "A header that other origins may send, or *."),
    "expose": ("ExposeHeaders", "A header of answers that other origins may read."),
}

_alias_option = click.option("--alias", metavar="ALIAS", help="The URL of an alias rather than of the function.")


def _settings(command: C) -> C:
    for name, (_, text) in reversed(_CORS.items()):
        command = click.option(f"--cors-{name}", name, multiple=True, metavar=name.upper(), help=text)(command)
    credentials = click.option("--cors-credentials/--no-cors-credentials", "credentials", default=None)
    command = credentials(click.option("--cors-max-age", "max_age", type=int, help="Seconds.")(command))
    streams = "Whether an answer is sent on while the function makes it."
    return click.option("--stream/--buffer", default=None, help=streams)(command)


@click.group
def url() -> None:
    """Create, update, show, list and delete addresses by which HTTP clients invoke functions."""


@url.command(epilog="Example: sandboxd url create hello --public")
@function_argument
@_alias_option
@click.option("--public", is_flag=True, help="Let in everybody. Else requests are signed, and policies say who may.")
@_settings
@output_option
@click.pass_obj
def create(context: Context, /, name: str, alias: str | None, public: bool, **settings: Any) -> None:
    """Create the URL of the function NAME."""
    client, body = context.client, {"AuthType": "NONE" if public else "AWS_IAM"} | _body(settings)
    shown = client.call("CreateFunctionUrlConfig", "POST", _path(name, "/url", alias), body)
    for statement, members in _PUBLIC if public else ():
        members = {"StatementId": statement, "Principal": "*"} | members
        try:
            client.call("AddPermission", "POST", _path(name, "/policy", alias, since="2015-03-31"), members)
        except ApiError as error:
            if error.code != "ResourceConflictException":  # of a URL that was there before
                raise
    _show(context, shown)


@url.command(epilog="Example: sandboxd url update hello --auth AWS_IAM --cors-origin https://example.com")
@function_argument
@_alias_option
@click.option("--auth", type=click.Choice(["AWS_IAM", "NONE"]), help="Whether requests are signed; policies stay.")
@click.option("--no-cors", is_flag=True, help="Say nothing of other origins any more.")
@_settings
@output_option
@click.pass_obj
def update(context: Context, /, name: str, alias: str | None, auth: str | None, no_cors: bool, **settings: Any) -> None:
    """Update the URL of the function NAME; what is not named stays, and of --cors options all that are wanted are."""
    body = _body(settings) | ({"AuthType": auth} if auth else {}) | ({"Cors": {}} if no_cors else {})
    if not body:
        raise click.UsageError("nothing to update: name at least one option")
    _show(context, context.client.call("UpdateFunctionUrlConfig", "PUT", _path(name, "/url", alias), body))


@url.command(epilog="Example: sandboxd url get hello --alias live")
@function_argument
@_alias_option
@output_option
@click.pass_obj
def get(context: Context, name: str, alias: str | None) -> None:
    """Show the URL of the function NAME."""
    _show(context, context.client.call("GetFunctionUrlConfig", "GET", _path(name, "/url", alias)))


@url.command(name="list", epilog="Example: sandboxd url list hello")
@function_argument
@output_option
@click.pass_obj
def list_urls(context: Context, name: str) -> None:
    """List the URLs of the function NAME and of its aliases."""
    path = function_path(name, "/urls", since=_SINCE)
    rows = context.client.every("ListFunctionUrlConfigs", path, "FunctionUrlConfigs")
    if context.output == "json":
        show_json({"FunctionUrlConfigs": rows})
    else:
        show_table(list(_SHOWN), rows, list(_SHOWN.values()))


@url.command(epilog="Example: sandboxd url delete hello")
@function_argument
@_alias_option
@output_option
@click.pass_obj
def delete(context: Context, name: str, alias: str | None) -> None:
    """Delete the URL of the function NAME; another one that is made later has another address."""
    context.client.call("DeleteFunctionUrlConfig", "DELETE", _path(name, "/url", alias))
    if context.output == "json":
        show_json({"Deleted": f"{name}:{alias}" if alias else name})


def _path(name: str, rest: str, alias: str | None, since: str = _SINCE) -> str:
    query = f"?Qualifier={quote(alias, safe='')}" if alias else ""
    return function_path(name, rest, since=since) + query


def _body(settings: dict[str, Any]) -> dict[str, Any]:
    cors: dict[str, Any] = {member: list(settings[name]) for name, (member, _) in _CORS.items() if settings[name]}
    cors |= {"MaxAge": settings["max_age"]} if settings["max_age"] is not None else {}
    cors |= {"AllowCredentials": settings["credentials"]} if settings["credentials"] is not None else {}
    body: dict[str, Any] = {"Cors": cors} if cors else {}
    if settings["stream"] is not None:
        body["InvokeMode"] = "RESPONSE_STREAM" if settings["stream"] else "BUFFERED"
    return body


def _show(context: Context, shown: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        show_pairs({name: shown[name] for name in _SHOWN if name in shown})
