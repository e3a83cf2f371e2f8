"""Packages of code: the options that name one, and its bytes as the API takes them.

Room: command line. May: read the caller's files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sandboxd.cli.context import Context, Misuse

C = TypeVar("C", bound=Callable[..., Any])


def package_options(command: C) -> C:
    """Add `--zip FILE` and `--dir DIR`."""
    directory = click.Path(exists=True, file_okay=False, path_type=Path)
    command = click.option(
        "--dir", "directory", metavar="DIR", type=directory, help="A directory to pack (without __pycache__)."
    )(command)
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--zip", "zip_file", metavar="FILE", type=file, help="The package, as a zip file.")(command)


def read_package(context: Context, zip_file: Path | None, directory: Path | None) -> str:
    """The package as the API takes it, in base64. Raises UsageError where not one is named, and Misuse."""
    import base64

    from sandboxd.cli.package import PackageError, pack_directory, within_limit

    if zip_file is None and directory is None:
        raise click.UsageError("one of --zip and --dir is needed")
    if zip_file is not None and directory is not None:
        raise click.UsageError("--zip excludes --dir")
    limits = context.config.limits
    try:
        if directory is not None:
            package = pack_directory(directory, limits)
        else:
            assert zip_file is not None
            with zip_file.open("rb") as file:
                package = within_limit(file.read(limits.zip_bytes + 1), zip_file, limits)
    except PackageError as error:
        raise Misuse(str(error)) from None
    except OSError as error:
        raise Misuse(f"{error.filename or zip_file or directory}: {error.strerror}") from None
    return base64.b64encode(package).decode("ascii")
