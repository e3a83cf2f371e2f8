"""Code packages: an unprivileged extractor unpacks a zip below one directory, the sealer makes it root's and final.

Room: root. `unpack` forks a child per upload. Its own child, the extractor, is confined to the new directory by chroot,
has a uid that nobody else has, no capability, no network and bounded resources before it reads the first byte of the
zip. When it has ended, nothing can hold a writable descriptor of the tree, and the sealer walks it by descriptors.
"""

from __future__ import annotations

import encodings.cp437  # zipfile looks it up by name when the extractor can no longer import
import errno
import os
import resource
import secrets
import stat
import struct
import zipfile
from typing import NoReturn

import prctl

from sandboxd.builder import capabilities, linux
from sandboxd.privsep.messages import UnpackStatus

_ = encodings.cp437

RESULT = struct.Struct("!BQ")
_CHUNK = 256 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CPU_SECONDS = 120
_MEMORY = 1 << 30
_MAX_DEPTH = 100  # directories in each other: who walks them holds a descriptor and a frame of the stack for each
_MAX_PATH = 4000  # bytes; with /var/task/ before it, below the kernel's PATH_MAX
_SAFE_MODE_FILE, _SAFE_MODE_DIRECTORY = 0o444, 0o555


class _Refused(Exception):
    def __init__(self, status: UnpackStatus) -> None:
        self.status = status


def run_unpacker(code_directory: int, name: str, package: int, uid: int, max_bytes: int, max_entries: int,
                 result: int) -> NoReturn:  # fmt: skip
    """The child of one upload: extract, seal, rename; write one RESULT and exit. Nothing half-made stays."""
    prctl.set_proctitle("sandboxd: unpacker")
    temporary = f".new-{name}-{os.getpid()}"
    status, size = UnpackStatus.FAILED, 0
    try:
        os.mkdir(temporary, 0o700, dir_fd=code_directory)
        tree = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=code_directory)
        os.fchown(tree, uid, uid)
        extracted, size = _extract_in_own_process(tree, package, uid, max_bytes, max_entries)
        if extracted is UnpackStatus.OK:
            _seal(tree)
            linux.syncfs(tree)
            try:
                os.rename(temporary, name, src_dir_fd=code_directory, dst_dir_fd=code_directory)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # the same package came twice at once
                    raise
        status = extracted
    except OSError as error:
        status = UnpackStatus.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else UnpackStatus.FAILED
    finally:
        try:
            remove_tree(code_directory, temporary)
        finally:
            os.write(result, RESULT.pack(status, size))
            os._exit(0)


def _extract_in_own_process(
    tree: int, package: int, uid: int, max_bytes: int, max_entries: int
) -> tuple[UnpackStatus, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status, size = UnpackStatus.FAILED, 0
        try:
            os.close(reader)
            _confine(tree, package, writer, uid, max_bytes)
            size = _extract(max_bytes, max_entries)
            status = UnpackStatus.OK
        except _Refused as refused:
            status = refused.status
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                status = UnpackStatus.DISK_FULL
            elif error.errno in (None, errno.EINVAL):  # bz2's word for bad data; a position before the zip's first byte
                status = UnpackStatus.CORRUPT
        except Exception:  # whatever a parser says of what a stranger wrote
            status = UnpackStatus.CORRUPT
        finally:
            os.write(4, RESULT.pack(status, size))
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, RESULT.size)
    os.close(reader)
    os.waitpid(pid, 0)
    if len(answer) != RESULT.size:
        return UnpackStatus.CORRUPT, 0  # ended by one of its limits
    number, size = RESULT.unpack(answer)
    return UnpackStatus(number), size


def _confine(tree: int, package: int, result: int, uid: int, max_bytes: int) -> None:
    """3 is the zip, 4 the result; everything else goes: descriptors, network, root directory, ids, capabilities."""
    linux.keep_only((0, 1, 2, package, result, tree))
    linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
    os.fchdir(5)
    os.chroot(".")
    os.close(5)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, max_bytes + 1),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (value, value))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.umask(0o077)
    os.setresuid(uid, uid, uid)  # and with it every permitted and effective capability (capabilities(7))
    linux.capset_none()
    capabilities.no_new_privs_in_child()


def _extract(max_bytes: int, max_entries: int) -> int:
    """Unpack descriptor 3 into the root directory; the sum of the files' sizes in bytes."""
    with os.fdopen(3, "rb", closefd=False) as file:
        if not zipfile.is_zipfile(file):
            raise _Refused(UnpackStatus.NOT_A_ZIP)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > max_entries:
                raise _Refused(UnpackStatus.TOO_MANY_ENTRIES)
            if sum(e.file_size for e in entries) > max_bytes:
                raise _Refused(UnpackStatus.TOO_LARGE)
            made: set[str] = set()
            left = max_bytes
            for entry in entries:
                parts = _checked_name(entry)
                _make_directories(parts if entry.is_dir() else parts[:-1], made)
                if not entry.is_dir():
                    left -= _write_file(archive, entry, "/".join(parts), left)
    return max_bytes - left


def _checked_name(entry: zipfile.ZipInfo) -> list[str]:
    name = entry.orig_filename
    if name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/"):
        raise _Refused(UnpackStatus.ABSOLUTE_NAME)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in name.replace("\\", "/").split("/"):
        raise _Refused(UnpackStatus.PARENT_NAME)
    if not parts and entry.is_dir():
        return parts
    if not parts or len(parts) > _MAX_DEPTH or "\0" in name:
        raise _Refused(UnpackStatus.BAD_NAME)
    if len(name.encode()) > _MAX_PATH or any(len(part.encode()) > 255 for part in parts):
        raise _Refused(UnpackStatus.BAD_NAME)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _Refused(UnpackStatus.LINK)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _Refused(UnpackStatus.SPECIAL_FILE)
    if entry.flag_bits & 1:
        raise _Refused(UnpackStatus.CORRUPT)  # encrypted
    return parts


def _make_directories(parts: list[str], made: set[str]) -> None:
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if path not in made:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                raise _Refused(UnpackStatus.DUPLICATE_NAME) from None  # a file has the directory's name
            made.add(path)


def _write_file(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str, left: int) -> int:
    mode = 0o700 if (entry.external_attr >> 16) & 0o111 else 0o600
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise _Refused(UnpackStatus.DUPLICATE_NAME) from None
    written = 0
    with os.fdopen(target, "wb", buffering=0) as sink, archive.open(entry) as source:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > left:
                raise _Refused(UnpackStatus.TOO_LARGE)
            sink.write(chunk)
    return written


def _seal(tree: int) -> None:
    """Make every file and directory root's and read-only, by descriptor, refusing what the extractor may not make."""
    for _, directories, files, directory in os.fwalk(".", dir_fd=tree, follow_symlinks=False):
        for name in files:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                about = os.fstat(file)
                if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
                    raise OSError(errno.EPERM, "not a plain file")
                os.fchown(file, 0, 0)
                os.fchmod(file, _SAFE_MODE_FILE | (about.st_mode & 0o100 and 0o111))
            finally:
                os.close(file)
        del directories
        os.fchown(directory, 0, 0)
        os.fchmod(directory, _SAFE_MODE_DIRECTORY)


def remove_tree(parent: int, name: str) -> None:
    """Remove a directory tree below a directory, by descriptors, however deep it is; what is not there is fine."""
    try:
        tree = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        while entries := os.listdir(tree):
            for entry in entries:
                try:
                    os.unlink(entry, dir_fd=tree)
                except IsADirectoryError:
                    _lift(tree, entry)
                    os.rmdir(entry, dir_fd=tree)
    finally:
        os.close(tree)
    os.rmdir(name, dir_fd=parent)


def _lift(tree: int, name: str) -> None:
    """Remove the files of a directory in a tree, and bring its directories up into the tree itself."""
    directory = os.open(name, _DIRECTORY, dir_fd=tree)
    try:
        for entry in os.listdir(directory):
            try:
                os.unlink(entry, dir_fd=directory)
            except IsADirectoryError:
                os.rename(entry, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=tree)
    finally:
        os.close(directory)


def exists(code_directory: int, name: str) -> bool:
    """Whether a package of this digest is in place."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=code_directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
