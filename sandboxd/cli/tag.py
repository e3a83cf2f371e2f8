"""`sandboxd tag`: tags of functions.

Room: command line.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import click

from sandboxd.cli.client import function_path
from sandboxd.cli.context import Context, function_argument, output_option
from sandboxd.cli.output import show_json, show_table


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    wrong = next(
        (value for value, (key, separator, _) in zip(values, pairs, strict=True) if not key or not separator), ""
    )
    if wrong:
        raise click.BadParameter(f"{wrong!r} is not KEY=VALUE, such as team=payments")
    return {key: value for key, _, value in pairs}


@click.group
def tag() -> None:
    """Put, list and remove tags of functions.

    NAME may be the ARN of another resource that has tags, such as an event source mapping's.
    """


@tag.command(epilog="Example: sandboxd tag put hello team=payments stage=live")
@function_argument
@click.argument("tags", metavar="KEY=VALUE...", nargs=-1, required=True, callback=_pairs)
@output_option
@click.pass_obj
def put(context: Context, name: str, tags: dict[str, str]) -> None:
    """Give the function NAME tags; those that it has under the same keys are replaced."""
    context.client.call("TagResource", "POST", _path(context, name), {"Tags": tags})
    if context.output == "json":
        show_json({"Tags": tags})


@tag.command(name="list", epilog="Example: sandboxd tag list hello")
@function_argument
@output_option
@click.pass_obj
def list_tags(context: Context, name: str) -> None:
    """List the tags of the function NAME."""
    shown = context.client.call("ListTags", "GET", _path(context, name))
    if context.output == "json":
        show_json(shown)
        return
    rows = [{"Key": key, "Value": value} for key, value in sorted(shown["Tags"].items())]
    show_table(["Key", "Value"], rows, ["KEY", "VALUE"])


@tag.command(epilog="Example: sandboxd tag remove hello team stage")
@function_argument
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@output_option
@click.pass_obj
def remove(context: Context, name: str, keys: tuple[str, ...]) -> None:
    """Remove tags of the function NAME."""
    query = urlencode([("tagKeys", key) for key in keys], quote_via=quote)
    context.client.call("UntagResource", "DELETE", f"{_path(context, name)}?{query}")
    if context.output == "json":
        show_json({"Removed": list(keys)})


def _path(context: Context, name: str) -> str:
    """Tags are those of an ARN, which may be another resource's than a function's."""
    if not name.startswith("arn:"):
        path = function_path(name, "/configuration")
        name = context.client.call("GetFunctionConfiguration", "GET", path)["FunctionArn"]
    return f"/2017-03-31/tags/{quote(name, safe='')}"
