"""`sandboxd signing`: code signing configurations, and which function has which.

Room: command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, completer, function_argument, output_option
from sandboxd.cli.output import show_json, show_pairs, show_table

C = TypeVar("C", bound=Callable[..., Any])

_CONFIGS, _MEMBER = "/2020-04-22/code-signing-configs", "CodeSigningConfig"
_arn_argument = click.argument(
    "arn", shell_complete=completer("ListCodeSigningConfigs", f"{_MEMBER}s", f"{_MEMBER}Arn", lambda _: _CONFIGS)
)


def _settings(command: C) -> C:
    for option in (
        click.option("--description", help="What the configuration is for."),
        click.option(
            "--publisher",
            multiple=True,
            metavar="ARN",
            help="A version of a signing profile that is trusted; repeatable.",
        ),
        click.option(
            "--policy",
            type=click.Choice(["Warn", "Enforce"], case_sensitive=False),
            help="Enforce refuses unsigned packages; here none is signed.",
        ),
    ):
        command = option(command)
    return command


@click.group
def signing() -> None:
    """Create, update, show, list and delete code signing configurations, and give them to functions."""


@signing.command(
    epilog="Example: sandboxd signing create --policy Enforce "
    "--publisher arn:aws:signer:us-east-1:123456789012:/signing-profiles/ours/abcdef1234"
)
@_settings
@output_option
@click.pass_obj
def create(context: Context, /, **settings: Any) -> None:
    """Create a configuration and print its ARN."""
    if not settings["publisher"]:
        raise click.UsageError("--publisher is needed at least once")
    shown = context.client.call("CreateCodeSigningConfig", "POST", _CONFIGS, _body(settings))
    if context.output == "json":
        show_json(shown)
    else:
        click.echo(shown[_MEMBER][f"{_MEMBER}Arn"])


@signing.command(epilog="Example: sandboxd signing update ARN --policy Warn")
@_arn_argument
@_settings
@output_option
@click.pass_obj
def update(context: Context, /, arn: str, **settings: Any) -> None:
    """Update the configuration ARN; what is not named stays as it is."""
    body = _body(settings)
    if not body:
        raise click.UsageError("nothing to update: name at least one option")
    _show(context, context.client.call("UpdateCodeSigningConfig", "PUT", _path(arn), body))


@signing.command(epilog="Example: sandboxd signing get ARN")
@_arn_argument
@output_option
@click.pass_obj
def get(context: Context, arn: str) -> None:
    """Show the configuration ARN."""
    _show(context, context.client.call("GetCodeSigningConfig", "GET", _path(arn)))


@signing.command(name="list", epilog="Example: sandboxd signing list")
@output_option
@click.pass_obj
def list_configs(context: Context) -> None:
    """List the configurations."""
    rows = context.client.every("ListCodeSigningConfigs", _CONFIGS, f"{_MEMBER}s")
    if context.output == "json":
        show_json({f"{_MEMBER}s": rows})
    else:
        show_table(["ARN", "POLICY", "MODIFIED", "DESCRIPTION"], [_cells(row) for row in rows])


@signing.command(epilog="Example: sandboxd signing functions ARN")
@_arn_argument
@output_option
@click.pass_obj
def functions(context: Context, arn: str) -> None:
    """List the ARNs of the functions that have the configuration ARN."""
    found = context.client.every("ListFunctionsByCodeSigningConfig", f"{_path(arn)}/functions", "FunctionArns")
    if context.output == "json":
        show_json({"FunctionArns": found})
    else:
        show_table(["FunctionArn"], [{"FunctionArn": one} for one in found], ["FUNCTION"])


@signing.command(epilog="Example: sandboxd signing delete ARN")
@_arn_argument
@output_option
@click.pass_obj
def delete(context: Context, arn: str) -> None:
    """Delete the configuration ARN, which no function may have."""
    context.client.call("DeleteCodeSigningConfig", "DELETE", _path(arn))
    if context.output == "json":
        show_json({"Deleted": arn})


@signing.command(epilog="Example: sandboxd signing attach hello ARN")
@function_argument
@_arn_argument
@output_option
@click.pass_obj
def attach(context: Context, name: str, arn: str) -> None:
    """Give the function NAME the configuration ARN, which judges packages from now on."""
    shown = context.client.call("PutFunctionCodeSigningConfig", "PUT", _of(name), {f"{_MEMBER}Arn": arn})
    if context.output == "json":
        show_json(shown)


@signing.command(epilog="Example: sandboxd signing attached hello")
@function_argument
@output_option
@click.pass_obj
def attached(context: Context, name: str) -> None:
    """Print the ARN of the configuration that the function NAME has; - where it has none."""
    shown = context.client.call("GetFunctionCodeSigningConfig", "GET", _of(name))
    if context.output == "json":
        show_json(shown)
    else:
        click.echo(shown.get(f"{_MEMBER}Arn", "-"))


@signing.command(epilog="Example: sandboxd signing detach hello")
@function_argument
@output_option
@click.pass_obj
def detach(context: Context, name: str) -> None:
    """Take the configuration from the function NAME."""
    context.client.call("DeleteFunctionCodeSigningConfig", "DELETE", _of(name))
    if context.output == "json":
        show_json({"Detached": name})


def _path(arn: str) -> str:
    return f"{_CONFIGS}/{quote(arn, safe='')}"


def _of(name: str) -> str:
    return function_path(name, "/code-signing-config", since="2020-06-30")


def _body(settings: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if settings["publisher"]:
        body["AllowedPublishers"] = {"SigningProfileVersionArns": list(settings["publisher"])}
    if settings["policy"] is not None:
        body["CodeSigningPolicies"] = {"UntrustedArtifactOnDeployment": settings["policy"]}
    if settings["description"] is not None:
        body["Description"] = settings["description"]
    return body


def _cells(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "ARN": config[f"{_MEMBER}Arn"],
        "POLICY": config["CodeSigningPolicies"]["UntrustedArtifactOnDeployment"],
        "MODIFIED": config["LastModified"],
        "DESCRIPTION": config.get("Description"),
    }


def _show(context: Context, shown: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(shown)
    else:
        config = shown[_MEMBER]
        publishers = config.get("AllowedPublishers", {}).get("SigningProfileVersionArns", [])
        show_pairs(_cells(config) | {"PUBLISHERS": publishers})
