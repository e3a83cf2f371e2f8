"""`sandboxd image`: build, list and remove the images of runtimes.

Room: command line, as root. May: run the image maker in this process, tell the daemon afterwards.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from sandboxd.cli.context import Context, Failure, Unreachable, host_output_option
from sandboxd.cli.output import show_json, show_table

if TYPE_CHECKING:
    from sandboxd.images.maker import Progress


@click.group
def image() -> None:
    """Build, list and remove images: the file systems that functions run in, one for each runtime."""


def _complete_recipe(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    from sandboxd.images.recipe import known_runtimes

    return [runtime for runtime in known_runtimes() if runtime.startswith(incomplete)]


@image.command(epilog="Example: sandboxd image build python3.13")
@click.argument("runtime", shell_complete=_complete_recipe)
@click.option(
    "--force", "--no-cache", is_flag=True, help="Build even if nothing changed, with Debian's newest packages."
)
@click.option("--mirror", metavar="URI", help="Debian mirror to use instead of deb.debian.org.")
@host_output_option
@click.pass_obj
def build(context: Context, runtime: str, force: bool, mirror: str | None) -> None:
    """Build the image of RUNTIME, as python3.13, nodejs22.x or provided.al2023, unless it is there and current."""
    from sandboxd.images import maker, recipe

    signal.signal(signal.SIGTERM, _terminate)
    with _failures():
        entry = None if force else maker.current(context.config, recipe.load_recipe(runtime))
        unchanged = entry is not None
        if entry is None:
            with _progress(f"image {runtime}") as report:
                entry = maker.build(context.config, runtime, force=force, mirror=mirror, progress=report)
        _announce(context)
    if context.output == "json":
        show_json(asdict(entry))
    elif unchanged:
        click.echo(f"{runtime} is unchanged: {entry.digest[:12]}, built {entry.built} (--force builds it anew)")
    else:
        click.echo(f"{runtime} is ready: {entry.digest[:12]}, {entry.bytes / (1 << 20):.0f} MB")


@image.command(name="list", epilog="Example: sandboxd image list")
@host_output_option
@click.pass_obj
def list_images(context: Context) -> None:
    """List the images that are there."""
    from sandboxd.images import store

    with _failures():
        entries = store.list_entries(context.config)
    if context.output == "json":
        show_json({"Images": [asdict(entry) for entry in entries]})
        return
    rows = [{**asdict(e), "digest": e.digest[:12], "bytes": f"{e.bytes / (1 << 20):.0f} MB"} for e in entries]
    show_table(["runtime", "digest", "bytes", "built"], rows, ["RUNTIME", "DIGEST", "SIZE", "BUILT"])


def _complete_image(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    from sandboxd.errors import SandboxdError
    from sandboxd.images.store import list_entries

    with contextlib.suppress(SandboxdError):
        return [e.runtime for e in list_entries(ctx.ensure_object(Context).config) if e.runtime.startswith(incomplete)]
    return []


@image.command(epilog="Example: sandboxd image rm python3.11")
@click.argument("runtime", shell_complete=_complete_image)
@host_output_option
@click.pass_obj
def rm(context: Context, runtime: str) -> None:
    """Remove the image of RUNTIME. What runs in it goes on; no new environment starts from it."""
    from sandboxd.images import store

    with _failures():
        store.remove_entry(context.config, runtime)
        _announce(context)
    if context.output == "json":
        show_json({"Removed": runtime})


def _announce(context: Context) -> None:
    """Tell a running daemon to read the index again; where none runs, remove what the index no longer names."""
    from sandboxd.images import store

    try:
        context.client.call("RefreshImages", "POST", "/sandboxd/v1/images/refresh", timeout=10)
    except Unreachable:
        store.remove_unused(context.config)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    from sandboxd.images.recipe import ImageError

    try:
        yield
    except ImageError as error:
        raise Failure(str(error)) from error
    except PermissionError as error:
        raise Failure(f"{error.filename}: permission denied; images are root's (use sudo)") from error


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # an exception, so that the build cleans up


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Progress]:
    """A progress bar on a terminal, else one line for each phase; both on standard error."""
    from sandboxd.images.maker import PHASES

    seen: list[str] = []
    if not sys.stderr.isatty():

        def report_line(phase: str, _: float) -> None:
            if phase not in seen:
                seen.append(phase)
                click.echo(f"{label}: {phase}", err=True)

        yield report_line
        return
    names = list(PHASES)
    bar: Any = click.progressbar(length=1000, label=label, file=sys.stderr, item_show_func=lambda phase: phase or "")
    with bar:

        def report_bar(phase: str, done: float) -> None:
            before = sum(PHASES[name] for name in names[: names.index(phase)])
            position = round(1000 * (before + done * PHASES[phase]))
            bar.update(max(0, position - bar.pos), phase)

        yield report_bar
