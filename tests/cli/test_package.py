"""sandboxd/cli/package.py: the same files give the same bytes; what cannot be packed is named."""

from __future__ import annotations

import dataclasses
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from sandboxd.cli.package import PackageError, pack_directory
from sandboxd.model.limits import Limits

LIMITS = Limits()


def fill(directory: Path) -> Path:
    (directory / "lib" / "deep").mkdir(parents=True)
    (directory / "__pycache__").mkdir()
    (directory / "app.py").write_text("x = 1\n")
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o750)
    (directory / "lib" / "deep" / "ü.txt").write_bytes(b"\0" * 5000)
    (directory / "lib" / "old.pyc").write_bytes(b"stale")
    (directory / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"stale")
    return directory


def test_content_and_modes(tmp_path: Path) -> None:
    package = zipfile.ZipFile(io.BytesIO(pack_directory(fill(tmp_path), LIMITS)))
    modes = {entry.filename: oct(stat.S_IMODE(entry.external_attr >> 16)) for entry in package.infolist()}
    assert modes == {"app.py": "0o644", "lib/deep/ü.txt": "0o644", "run.sh": "0o755"}
    assert all(stat.S_ISREG(entry.external_attr >> 16) for entry in package.infolist())
    assert package.read("lib/deep/ü.txt") == b"\0" * 5000
    assert package.testzip() is None


def test_same_files_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    first = pack_directory(fill(one), LIMITS)
    fill(other)
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert pack_directory(other, LIMITS) == first


def test_links_and_special_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(PackageError, match="link: neither a file nor a directory"):
        pack_directory(tmp_path, LIMITS)
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackageError, match="pipe: neither"):
        pack_directory(tmp_path, LIMITS)


def test_linked_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(PackageError, match="loop"):
        pack_directory(tmp_path, LIMITS)


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    with pytest.raises(PackageError, match="holds no file"):
        pack_directory(tmp_path, LIMITS)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"zip_entries": 2}, "3 files, more than 2"),
        ({"unzipped_bytes": 5000}, "limits.unzipped_bytes"),
        ({"zip_bytes": 100}, "larger than 100 bytes .limits.zip_bytes."),
    ],
)
def test_limits(tmp_path: Path, limit: dict[str, int], words: str) -> None:
    with pytest.raises(PackageError, match=words):
        pack_directory(fill(tmp_path), dataclasses.replace(LIMITS, **limit))


def test_exactly_at_the_limit(tmp_path: Path) -> None:
    total = len("x = 1\n") + len("#!/bin/sh\n") + 5000
    assert pack_directory(fill(tmp_path), dataclasses.replace(LIMITS, unzipped_bytes=total, zip_entries=3))
