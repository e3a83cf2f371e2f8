"""The options that say how a function is to be, and what they are in a request.

Room: command line. May: check what is written. Shapes: botocore's lambda/2015-03-31 model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from sandboxd.cli.context import Context
from sandboxd.cli.layer import complete_layer_version, version_arn

C = TypeVar("C", bound=Callable[..., Any])

_MEMBERS = {
    "runtime": "Runtime",
    "handler": "Handler",
    "role": "Role",
    "description": "Description",
    "memory": "MemorySize",
    "timeout": "Timeout",
    "code_signing": "CodeSigningConfigArn",
}
_LOGGING = {
    "log_format": "LogFormat",
    "log_level": "ApplicationLogLevel",
    "system_log_level": "SystemLogLevel",
    "log_group": "LogGroup",
}


def members(context: Context, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The request's members for the options that were given."""
    request = {_MEMBERS[name]: value for name, value in settings.items() if name in _MEMBERS and value is not None}
    if settings["tmp"] is not None:
        request["EphemeralStorage"] = {"Size": settings["tmp"]}
    if settings["env"] or settings.get("no_env"):
        request["Environment"] = {"Variables": settings["env"]}
    if settings["layer"] or settings.get("no_layers"):
        request["Layers"] = [version_arn(context, one) for one in settings["layer"]]
    logging = {member: settings[name] for name, member in _LOGGING.items() if settings[name] is not None}
    if logging:
        request["LoggingConfig"] = logging
    if settings["dead_letter"] is not None:
        request["DeadLetterConfig"] = {"TargetArn": settings["dead_letter"]}
    if settings["tracing"] is not None:
        request["TracingConfig"] = {"Mode": settings["tracing"]}
    if settings["snap_start"] is not None:
        request["SnapStart"] = {"ApplyOn": settings["snap_start"]}
    if settings.get("architecture") is not None:
        request["Architectures"] = [settings["architecture"]]
    if settings.get("tag"):
        request["Tags"] = settings["tag"]
    return request


def _pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, separator, content = value.partition("=")
        if not name or not separator:
            raise click.BadParameter(f"{value!r} is not {parameter.metavar}")
        pairs[name] = content
    return pairs


def _egress(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[str]:
    from sandboxd.model.egress import parse

    try:
        return [str(parse(value)) for value in values]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _options(*options: Callable[[Any], Any]) -> Callable[[C], C]:
    def add(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _choice(*values: str) -> click.Choice[str]:
    return click.Choice(values, case_sensitive=False)


configuration_options = _options(
    click.option("--memory", type=int, metavar="MB", help="Memory; CPU comes in proportion (1769 MB: one CPU)."),
    click.option("--timeout", type=int, metavar="SECONDS", help="How long an invocation may last."),
    click.option("--tmp", type=int, metavar="MB", help="Size of /tmp."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", callback=_pairs, help="A variable; repeatable."),
    click.option(
        "--layer",
        multiple=True,
        metavar="LAYER:VERSION|ARN",
        shell_complete=complete_layer_version,
        help="A version of a layer, laid below /opt over those before it; repeatable.",
    ),
    click.option("--description", help="A text for people."),
    click.option("--role", metavar="ARN", help="The role; one of `sandboxd role` says what it may invoke and reach."),
    click.option("--dead-letter", metavar="ARN", help="The queue for events that failed for good; '' for none."),
    click.option("--log-format", type=_choice("Text", "JSON"), help="How the log is written."),
    click.option(
        "--log-level",
        type=_choice("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"),
        help="The least that is logged of what the function says (JSON only).",
    ),
    click.option(
        "--system-log-level",
        type=_choice("DEBUG", "INFO", "WARN"),
        help="The least that is logged of its START, END and REPORT (JSON only).",
    ),
    click.option("--log-group", metavar="NAME", help="The name of the log that the function is told."),
    click.option("--tracing", type=_choice("Active", "PassThrough"), help="Whether invocations are sampled."),
    click.option(
        "--snap-start", type=_choice("PublishedVersions", "None"), help="Kept and shown; nothing is snapshotted."
    ),
)
creation_options = _options(
    click.option("--tag", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="A tag; repeatable."),
    click.option("--architecture", metavar="NAME", help="Such as x86_64; this server's own is the default."),
    click.option("--code-signing", metavar="ARN", help="A code signing configuration (sandboxd signing)."),
)
egress_option = click.option(
    "--allow-egress",
    multiple=True,
    metavar="CIDR:PORT|HOST:PORT",
    callback=_egress,
    help="Permit connections to this network and port (or FIRST-LAST), host and port, or *.host and port; repeatable. "
    "Without: what the role permits (`sandboxd role`), or else loopback only.",
)
wait_option = click.option("--wait/--no-wait", default=True, help="Wait until the function is ready (default).")
