"""What every command shares: configuration, kind of output, failures with exit codes, the options that set them.

Room: command line. May: load the configuration, when a command first asks for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from sandboxd.cli.output import harmless

if TYPE_CHECKING:
    from sandboxd.cli.client import Client
    from sandboxd.config import Config

EXIT_INTERRUPTED = 130

C = TypeVar("C", bound=Callable[..., Any])


class Failure(click.ClickException):
    """A failure that was expected: one line on standard error and exit code 1, never a traceback."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"sandboxd: {harmless(self.format_message())}", file=file, err=True)


class Misuse(Failure):
    """Wrong usage, payload or configuration, or not root where root is needed."""

    exit_code = 2


class Unreachable(Failure):
    """The daemon cannot be reached."""

    exit_code = 125


class Context:
    """The `ctx.obj` of every command. `output` is "table" (for people) or "json" (for programs).

    `named_account` is the account that a command is for; None: the configuration's.
    """

    def __init__(self, config_file: Path | None = None, output: str = "table") -> None:
        self.config_file, self.output = config_file, output
        self.named_account: str | None = None

    @functools.cached_property
    def config(self) -> Config:
        """The configuration; raises ConfigError."""
        from sandboxd.config import load

        return load(self.config_file)

    @property
    def account(self) -> str:
        """The account that a command is for."""
        return self.named_account or self.config.account_id

    @property
    def client(self) -> Client:
        """The daemon's door, in that account; nothing is connected yet."""
        from sandboxd.cli.client import Client

        return Client(self.config.api_socket, self.named_account)


def _take_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    context = ctx.ensure_object(Context)
    if value is not None:
        context.config_file = value


def _take_output(ctx: click.Context, _: click.Parameter, value: str) -> None:
    ctx.ensure_object(Context).output = value


def _take_account(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        if not re.fullmatch(r"\d{12}", value, re.ASCII):
            raise click.BadParameter("an account's id is 12 digits")
        ctx.ensure_object(Context).named_account = value


def account_option(command: C) -> C:
    """Add `--account ID`."""
    return click.option(
        "--account",
        metavar="ID",
        envvar="SANDBOXD_ACCOUNT",
        expose_value=False,
        callback=_take_account,
        help="Act in this account (or SANDBOXD_ACCOUNT), not the configuration's.",
    )(command)


def config_option(command: C) -> C:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_take_config,
        help="Configuration file (default /etc/sandboxd/sandboxd.toml).",
    )(command)


def output_option(command: C) -> C:
    """Add `--output table|json`, `--account ID` and `--config FILE`."""
    return account_option(host_output_option(command))


def host_output_option(command: C) -> C:
    """Add `--output table|json` and `--config FILE`, for what is no account's."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        expose_value=False,
        callback=_take_output,
        help="A table for people (default) or JSON for programs.",
    )
    return config_option(option(command))


def completer(
    operation: str, member: str, shown: str | Callable[[dict[str, Any]], str], path: Callable[[str], str]
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completes by what an operation lists: the `shown` of each of its `member`. `path` gets the NAME that was typed.

    There is nothing to choose from where the daemon does not answer at once.
    """

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from sandboxd.errors import SandboxdError

        # Where it is an option that lacks its value, click has not given the arguments their names yet.
        name = ctx.params.get("name") or next(iter(ctx.args), "")
        try:
            rows = ctx.ensure_object(Context).client.every(operation, path(name), member, timeout=1)
        except (Failure, SandboxdError):
            return []
        names = [str(row[shown]) if isinstance(shown, str) else shown(row) for row in rows]
        return [name for name in names if name.startswith(incomplete)]

    return complete


complete_function = completer("ListFunctions", "Functions", "FunctionName", lambda _: "/2015-03-31/functions/")


def of_function(rest: str) -> Callable[[str], str]:
    """For `completer`: the path below the function that the command names."""

    def path(name: str) -> str:
        from sandboxd.cli.client import function_path

        return function_path(name, rest)

    return path


def function_argument(command: C) -> C:
    """Add the NAME of a function, with completion."""
    return click.argument("name", shell_complete=complete_function)(command)
