"""A directory as a code package: the same files give the same bytes, and with them the same digest.

Room: command line. May: read the caller's files.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sandboxd.model.limits import Limits

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


class PackageError(ValueError):
    """A file or directory that cannot be packed; the text names it."""


def pack_directory(directory: Path, limits: Limits) -> bytes:
    """The zip of a directory: sorted names, one date, modes 644 and 755, no `__pycache__`.

    Raises PackageError for a link or special file and for what is larger than the daemon would take.
    """
    names = sorted(_files(directory, ""))
    if not names:
        raise PackageError(f"{directory}: holds no file")
    if len(names) > limits.zip_entries:
        raise PackageError(f"{directory}: {len(names)} files, more than {limits.zip_entries} (limits.zip_entries)")
    buffer, total = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name in names:
            content, mode = _read(directory / name, limits.unzipped_bytes - total)
            total += len(content)
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | mode) << 16
            package.writestr(entry, content)
    return within_limit(buffer.getvalue(), directory, limits)


def within_limit(package: bytes, source: Path, limits: Limits) -> bytes:
    """The package, or PackageError where it is larger than the daemon takes."""
    if len(package) > limits.zip_bytes:
        raise PackageError(f"{source}: as a zip larger than {limits.zip_bytes} bytes (limits.zip_bytes)")
    return package


def _files(directory: Path, prefix: str) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _files(directory / entry.name, f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                if not entry.name.endswith(".pyc"):
                    yield prefix + entry.name
            else:
                raise PackageError(f"{entry.path}: neither a file nor a directory (links are not packed)")


def _read(path: Path, room: int) -> tuple[bytes, int]:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(max(0, room) + 1)
    if len(content) > room:
        raise PackageError(f"{path}: with it the files exceed what is allowed altogether (limits.unzipped_bytes)")
    return content, 0o755 if status.st_mode & stat.S_IXUSR else 0o644
