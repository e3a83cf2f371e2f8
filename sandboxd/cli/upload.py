"""Packages of code: the options that name one, and what they are in a request.

Room: command line. May: read the caller's files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from sandboxd.cli.context import Context, Misuse

C = TypeVar("C", bound=Callable[..., Any])


class Source(NamedTuple):
    """Where a package comes from; at most one of file, directory and bucket is named."""

    file: Path | None
    directory: Path | None
    bucket: tuple[str, str] | None
    version: str | None

    @property
    def named(self) -> bool:
        """Whether there is one."""
        return self[:3] != (None, None, None)

    def members(self, context: Context) -> dict[str, str]:
        """The source as the API takes it. Raises UsageError where not one is named, and Misuse."""
        if not self.named:
            raise click.UsageError("one of --zip, --dir and --s3 is needed")
        if self.bucket is None:
            return {"ZipFile": self._content(context)}
        members = dict(zip(("S3Bucket", "S3Key"), self.bucket, strict=True))
        return members if self.version is None else members | {"S3ObjectVersion": self.version}

    def _content(self, context: Context) -> str:
        import base64

        from sandboxd.cli.package import PackageError, pack_directory, within_limit

        limits = context.config.limits
        try:
            if self.directory is not None:
                package = pack_directory(self.directory, limits)
            else:
                assert self.file is not None
                with self.file.open("rb") as file:
                    package = within_limit(file.read(limits.zip_bytes + 1), self.file, limits)
        except PackageError as error:
            raise Misuse(str(error)) from None
        except OSError as error:
            raise Misuse(f"{error.filename or self.file or self.directory}: {error.strerror}") from None
        return base64.b64encode(package).decode("ascii")


def _object(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    bucket, _separator, name = value.removeprefix("s3://").partition("/")
    if not value.startswith("s3://") or not bucket or not name:
        raise click.BadParameter(f"{value!r} is not s3://BUCKET/KEY")
    return bucket, name


def package_options(command: C) -> C:
    """Add `--zip`, `--dir`, `--s3` and `--s3-version`; the command gets them as `source`."""

    @functools.wraps(command)
    def with_source(*arguments: Any, **options: Any) -> Any:
        source = Source(*(options.pop(name) for name in ("zip_file", "directory", "s3", "s3_version")))
        if sum(one is not None for one in source[:3]) > 1:
            raise click.UsageError("--zip, --dir and --s3 exclude one another")
        if source.version is not None and source.bucket is None:
            raise click.UsageError("--s3-version needs --s3")
        return command(*arguments, source=source, **options)

    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    directory = click.Path(exists=True, file_okay=False, path_type=Path)
    result: Any = with_source
    for option in (
        click.option("--s3-version", metavar="ID", help="Which version of the object."),
        click.option(
            "--s3",
            metavar="s3://BUCKET/KEY",
            callback=_object,
            help="The package, as an object at the services' endpoint.",
        ),
        click.option("--dir", "directory", metavar="DIR", type=directory, help="A directory to pack (no __pycache__)."),
        click.option("--zip", "zip_file", metavar="FILE", type=file, help="The package, as a zip file."),
    ):
        result = option(result)
    return result  # type: ignore[no-any-return]
