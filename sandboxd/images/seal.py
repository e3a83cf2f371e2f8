"""Sealing: a tree that unprivileged processes wrote becomes root's, without privileges of its own, and gets its digest.

Room: image maker, root. May: change owner and mode of what lies below one directory, by descriptor. May not: follow a
link, touch a file that the build did not make.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxd.images.recipe import ImageError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed tree: digest in hex, bytes of its files, bytes that they take on the disk."""

    digest: str
    bytes: int
    allocated: int


class _Sealer:
    def __init__(self, owners: Container[int], modes: Mapping[str, int]) -> None:
        self.owners, self.modes = owners, modes
        self.manifest: list[bytes] = []
        self.sealed: set[int] = set()  # inodes of files, which may have several names
        self.bytes = self.allocated = 0

    def entry(self, directory: int, path: str, name: str) -> None:
        """Seal one member of a directory that is not a directory itself."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            self._check_owner(path, found)
            os.chown(name, 0, 0, dir_fd=directory, follow_symlinks=False)
            self._record(path, f"l {os.readlink(name, dir_fd=directory)}", found)
        elif stat.S_ISREG(found.st_mode):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                self._file(descriptor, path)
            finally:
                os.close(descriptor)
        else:
            raise ImageError(f"the image has a file of a kind that it may not have: {path}")

    def directory(self, descriptor: int, path: str) -> None:
        """Seal a directory itself."""
        found = os.fstat(descriptor)
        self._check_owner(path, found)
        mode = self._seal(descriptor, path, 0o755)
        self._record(path, f"d {mode:o}", found)

    def _file(self, descriptor: int, path: str) -> None:
        found = os.fstat(descriptor)
        if found.st_ino not in self.sealed:
            self._check_owner(path, found)
            self.sealed.add(found.st_ino)
        mode = self._seal(descriptor, path, 0o755 if found.st_mode & 0o111 else 0o644)
        content = hashlib.sha256()
        while chunk := os.read(descriptor, _CHUNK):
            content.update(chunk)
        self._record(path, f"f {mode:o} {content.hexdigest()}", found)

    def _check_owner(self, path: str, found: os.stat_result) -> None:
        # What the build did not make can only be here as a hard link to a file of the host.
        if found.st_uid not in self.owners or found.st_gid not in self.owners:
            raise ImageError(f"the image has a file that the build did not make: {path}")

    def _seal(self, descriptor: int, path: str, mode: int) -> int:
        for attribute in os.listxattr(descriptor):  # among them file capabilities
            os.removexattr(descriptor, attribute)
        mode = self.modes.get(path, mode)
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, mode)
        return mode

    def _record(self, path: str, what: str, found: os.stat_result) -> None:
        if not stat.S_ISDIR(found.st_mode):
            self.bytes += found.st_size
        self.allocated += found.st_blocks * 512
        self.manifest.append(os.fsencode(f"{path}\0{what}\n"))


def seal(
    tree: Path, owners: Container[int], modes: Mapping[str, int], progress: Callable[[int], None] | None = None
) -> Sealed:
    """Seal everything below `tree`, and it: owner root, mode 0755 or 0644 (or as `modes` says by path), no attributes.

    `owners` are the uids and gids of the build; a file of anybody else raises ImageError, as does a device or the like.
    No process that could change the tree may live. `progress` gets the count of entries sealed.
    """
    sealer = _Sealer(owners, modes)
    top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for path, directories, files, descriptor in os.fwalk(".", dir_fd=top, onerror=_raise):
            below = "" if path == "." else path.removeprefix("./") + "/"
            for name in files:
                sealer.entry(descriptor, below + name, name)
            for name in directories:  # a link to a directory counts as one for fwalk, which does not enter it
                if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    sealer.entry(descriptor, below + name, name)
            sealer.directory(descriptor, below.rstrip("/") or ".")
            if progress:
                progress(len(sealer.manifest))
    finally:
        os.close(top)
    return Sealed(hashlib.sha256(b"".join(sorted(sealer.manifest))).hexdigest(), sealer.bytes, sealer.allocated)


def _raise(error: OSError) -> None:
    raise error
