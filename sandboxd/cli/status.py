"""`sandboxd status`.

Room: command line.
"""

from __future__ import annotations

import click

from sandboxd.cli.client import ADMIN
from sandboxd.cli.context import Context, output_option
from sandboxd.cli.output import show_json, show_pairs


@click.command(epilog="Example: sandboxd status --output json")
@output_option
@click.pass_obj
def status(context: Context) -> None:
    """Show what the daemon is and what it holds."""
    document = context.client.call("GetStatus", "GET", f"{ADMIN}/status")
    if context.output == "json":
        show_json(document)
        return
    images = document.get("Images", [])
    names = [image.get("runtime", image.get("Runtime")) if isinstance(image, dict) else image for image in images]
    limits = {f"limits.{name}": value for name, value in document.pop("Limits", {}).items()}
    events = document.pop("Events", {})
    show_pairs(document | {"Images": names} | events | limits)
