"""`sandboxd layer`: packages that functions have below /opt, in versions, and who else may use them.

Room: command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sandboxd.cli.context import Context, completer, output_option
from sandboxd.cli.output import show_json, show_pairs, show_table
from sandboxd.cli.upload import Source, package_options

C = TypeVar("C", bound=Callable[..., Any])

LAYERS = "/2018-10-31/layers"


def version_arn(context: Context, version: str) -> str:
    """The ARN of NAME:VERSION; an ARN is taken as it is. Raises UsageError for what is neither."""
    from sandboxd.model.arn import layer_arn

    if version.startswith("arn:"):
        return version
    name, number = _numbered(version)
    return layer_arn(context.config.region, context.account, name, int(number))


def _numbered(version: str) -> tuple[str, str]:
    name, _, number = version.rpartition(":")
    if not name or not number.isascii() or not number.isdigit():
        raise click.UsageError(f"{version!r} is not LAYER:VERSION, such as tools:1, nor the ARN of a layer's version")
    return name, number


def _versions_path(layer: str) -> str:
    return f"{LAYERS}/{quote(layer, safe='')}/versions"


def _version_path(version: str) -> str:
    name, number = _numbered(version)
    return f"{_versions_path(name)}/{number}"


_complete_layer = completer("ListLayers", "Layers", "LayerName", lambda _: LAYERS)
_layer_argument = click.argument("name", metavar="LAYER", shell_complete=_complete_layer)


def _newest(row: dict[str, Any]) -> str:
    return f"{row['LayerName']}:{row['LatestMatchingVersion']['Version']}"


_complete_newest = completer("ListLayers", "Layers", _newest, lambda _: LAYERS)


def complete_layer_version(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """LAYER:VERSION of the newest versions, or of all once a layer is named."""
    layer, separator, number = incomplete.rpartition(":")
    if not separator:
        return _complete_newest(ctx, parameter, incomplete)
    versions = completer("ListLayerVersions", "LayerVersions", "Version", lambda _: _versions_path(layer))
    return [f"{layer}:{version}" for version in versions(ctx, parameter, number)]


def _version_argument(command: C) -> C:
    return click.argument("version", metavar="LAYER:VERSION", shell_complete=complete_layer_version)(command)


def _filters(command: C) -> C:
    command = click.option("--architecture", help="Only what is compatible with it, such as x86_64.")(command)
    return click.option("--runtime", help="Only what is compatible with it, such as python3.13.")(command)


@click.group
def layer() -> None:
    """Publish, list, show and delete layers, and permit others to use them.

    LAYER:VERSION is a layer's name and a version's number, such as tools:1, or the version's ARN.
    """


@layer.command(epilog="Example: sandboxd layer publish tools --dir . --runtime python3.13")
@_layer_argument
@package_options
@click.option("--description", help="What the version is.")
@click.option("--license", "license_info", help="Its licence: an identifier of SPDX, an address or a text.")
@click.option("--runtime", multiple=True, help="A runtime that it is compatible with; repeatable.")
@click.option("--architecture", multiple=True, help="An architecture that it is compatible with; repeatable.")
@output_option
@click.pass_obj
def publish(
    context: Context,
    /,
    name: str,
    source: Source,
    description: str | None,
    license_info: str | None,
    runtime: tuple[str, ...],
    architecture: tuple[str, ...],
) -> None:
    """Publish a package as the next version of the layer LAYER, and print the version's ARN.

    What it holds stands below /opt: python/ and bin/ are where functions look for modules and programs.
    """
    members = {
        "Content": source.members(context),
        "Description": description,
        "LicenseInfo": license_info,
        "CompatibleRuntimes": list(runtime) or None,
        "CompatibleArchitectures": list(architecture) or None,
    }
    body = {member: value for member, value in members.items() if value is not None}
    made = context.client.call("PublishLayerVersion", "POST", _versions_path(name), body, timeout=300)
    if context.output == "json":
        show_json(made)
    else:
        click.echo(made["LayerVersionArn"])


@layer.command(name="list", epilog="Example: sandboxd layer list --runtime python3.13")
@_filters
@output_option
@click.pass_obj
def list_layers(context: Context, runtime: str | None, architecture: str | None) -> None:
    """List the layers with their newest versions."""
    layers = context.client.every("ListLayers", LAYERS, "Layers", _compatible(runtime, architecture))
    if context.output == "json":
        show_json({"Layers": layers})
        return
    _show_rows([{"LayerName": row["LayerName"]} | row["LatestMatchingVersion"] for row in layers], "LayerName", "NAME")


@layer.command(epilog="Example: sandboxd layer versions tools")
@_layer_argument
@_filters
@output_option
@click.pass_obj
def versions(context: Context, name: str, runtime: str | None, architecture: str | None) -> None:
    """List the versions of the layer LAYER, newest first."""
    query = _compatible(runtime, architecture)
    rows = context.client.every("ListLayerVersions", _versions_path(name), "LayerVersions", query)
    if context.output == "json":
        show_json({"LayerVersions": rows})
    else:
        _show_rows(rows, "LayerVersionArn", "ARN")


@layer.command(epilog="Example: sandboxd layer get tools:1")
@_version_argument
@output_option
@click.pass_obj
def get(context: Context, version: str) -> None:
    """Show a version of a layer, with an address where its package can be fetched for ten minutes."""
    if version.startswith("arn:"):
        query = {"find": "LayerVersion", "Arn": version}
        shown = context.client.call("GetLayerVersionByArn", "GET", LAYERS, query=query)
    else:
        shown = context.client.call("GetLayerVersion", "GET", _version_path(version))
    if context.output == "json":
        show_json(shown)
    else:
        content = shown.pop("Content")
        del shown["LayerArn"]
        show_pairs(shown | {name: content[name] for name in ("CodeSize", "CodeSha256", "Location")})


@layer.command(epilog="Example: sandboxd layer delete tools:1")
@_version_argument
@output_option
@click.pass_obj
def delete(context: Context, version: str) -> None:
    """Delete a version of a layer; functions that have it keep it. It is no error where there is none."""
    context.client.call("DeleteLayerVersion", "DELETE", _version_path(version))
    if context.output == "json":
        show_json({"Deleted": version})


@layer.group
def permission() -> None:
    """Permit other accounts to use a version of a layer, show and take back what was permitted."""


@permission.command(epilog="Example: sandboxd layer permission add tools:1 all --principal '*'")
@_version_argument
@click.argument("statement")
@click.option("--principal", required=True, help="An account, the ARN of its root, or *.")
@click.option("--action", default="lambda:GetLayerVersion", show_default=True, help="What is permitted.")
@click.option("--organization", metavar="ID", help="With the principal *: only accounts of this organization.")
@output_option
@click.pass_obj
def add(
    context: Context, /, version: str, statement: str, principal: str, action: str, organization: str | None
) -> None:
    """Add a statement with the id STATEMENT to the policy of a version, and print it."""
    body = {"StatementId": statement, "Principal": principal, "Action": action}
    body |= {"OrganizationId": organization} if organization is not None else {}
    answer = context.client.call("AddLayerVersionPermission", "POST", f"{_version_path(version)}/policy", body)
    show_json(json.loads(answer["Statement"]))


@permission.command(name="list", epilog="Example: sandboxd layer permission list tools:1")
@_version_argument
@output_option
@click.pass_obj
def list_permissions(context: Context, version: str) -> None:
    """List the statements of the policy of a version."""
    policy = json.loads(
        context.client.call("GetLayerVersionPolicy", "GET", f"{_version_path(version)}/policy")["Policy"]
    )
    if context.output == "json":
        show_json(policy)
    else:
        show_table(["Sid", "Action", "Principal", "Condition"], policy["Statement"])


@permission.command(epilog="Example: sandboxd layer permission remove tools:1 all")
@_version_argument
@click.argument("statement")
@output_option
@click.pass_obj
def remove(context: Context, version: str, statement: str) -> None:
    """Remove the statement STATEMENT from the policy of a version."""
    path = f"{_version_path(version)}/policy/{quote(statement, safe='')}"
    context.client.call("RemoveLayerVersionPermission", "DELETE", path)
    if context.output == "json":
        show_json({"Removed": statement})


def _compatible(runtime: str | None, architecture: str | None) -> dict[str, str]:
    query = {"CompatibleRuntime": runtime, "CompatibleArchitecture": architecture}
    return {name: value for name, value in query.items() if value is not None}


def _show_rows(rows: list[dict[str, Any]], first: str, title: str) -> None:
    columns = [first, "Version", "CreatedDate", "CompatibleRuntimes", "CompatibleArchitectures", "Description"]
    show_table(columns, rows, [title, "VERSION", "CREATED", "RUNTIMES", "ARCHITECTURES", "DESCRIPTION"])
