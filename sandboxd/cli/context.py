"""What every command shares: configuration, kind of output, failures with exit codes, the options that set them.

Room: command line. May: load the configuration, when a command first asks for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sandboxd.cli.client import Client
    from sandboxd.config import Config

EXIT_INTERRUPTED = 130

C = TypeVar("C", bound=Callable[..., Any])


class Failure(click.ClickException):
    """A failure that was expected: one line on standard error and exit code 1, never a traceback."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"sandboxd: {self.format_message()}", file=file, err=True)


class Misuse(Failure):
    """Wrong usage, payload or configuration, or not root where root is needed."""

    exit_code = 2


class Unreachable(Failure):
    """The daemon cannot be reached."""

    exit_code = 125


class Context:
    """The `ctx.obj` of every command. `output` is "table" (for people) or "json" (for programs)."""

    def __init__(self, config_file: Path | None = None, output: str = "table") -> None:
        self.config_file, self.output = config_file, output

    @functools.cached_property
    def config(self) -> Config:
        """The configuration; raises ConfigError."""
        from sandboxd.config import load

        return load(self.config_file)

    @property
    def client(self) -> Client:
        """The daemon's door; nothing is connected yet."""
        from sandboxd.cli.client import Client

        return Client(self.config.api_socket)


def _take_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    context = ctx.ensure_object(Context)
    if value is not None:
        context.config_file = value


def _take_output(ctx: click.Context, _: click.Parameter, value: str) -> None:
    ctx.ensure_object(Context).output = value


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
    """Add `--output table|json` and `--config FILE`."""
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


def complete_function(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of functions that begin so; none where the daemon does not answer at once."""
    from sandboxd.errors import SandboxdError

    try:
        body = ctx.ensure_object(Context).client.call("ListFunctions", "GET", "/2015-03-31/functions/", timeout=1)
    except (Failure, SandboxdError):
        return []
    names = [str(function["FunctionName"]) for function in body.get("Functions", [])]
    return [name for name in names if name.startswith(incomplete)]


def function_argument(command: C) -> C:
    """Add the NAME of a function, with completion."""
    return click.argument("name", shell_complete=complete_function)(command)
