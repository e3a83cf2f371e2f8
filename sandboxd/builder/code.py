"""Code packages: an unprivileged extractor unpacks a zip below one directory, the sealer makes it root's and final.

Room: root. The builder forks a child per upload. Its own child, the extractor (`builder/extractor.py`), is confined to
the new directory by chroot, has a uid that nobody else has, no capability, no network, bounded resources and a filter
of a few system calls before it reads the first byte of the zip. A large package has two of them, a half for each. When
they have ended, nothing can hold a writable descriptor of the tree, and the sealer walks it by descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import resource
import secrets
import signal
import stat
import struct
import sys
from typing import NoReturn

import prctl

from sandboxd.builder import capabilities, extractor, linux
from sandboxd.privsep.messages import UnpackStatus

RESULT = struct.Struct("!BQ")
_CONTENTS = struct.Struct("!QI")
_NOTE = "trusted.sandboxd"  # a package's contents, which only root can say
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CPU_SECONDS = 120
_PARTS, _DIVIDED = 2, 1 << 20  # extractors, of a package of more bytes; a small one is not worth a second process
_MEMORY = 1 << 30  # bytes of addresses, beyond those of the process that it is a fork of
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000  # <linux/fs.h>


def open_directory(path: str) -> int:
    """The directory of all packages, set up so that ext4 spreads them over the disk.

    Else it puts every package near the last one, and looks past each inode deleted there in the last five minutes, for
    each new one: after a package of 65,535 files was removed, another took 22 s instead of 3 (fs/ext4/ialloc.c).
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # other filesystems have no such flag, and no need of it
        flags = bytearray(8)
        fcntl.ioctl(directory, _FS_IOC_GETFLAGS, flags)
        number = int.from_bytes(flags, sys.byteorder) | _FS_TOPDIR_FL
        fcntl.ioctl(directory, _FS_IOC_SETFLAGS, number.to_bytes(8, sys.byteorder))
    return directory


def temporary_name(name: str, unpacker: int) -> str:
    """What a package is called until it is whole."""
    return f".new-{name}-{unpacker}"


def run_unpacker(code_directory: int, name: str, package: int, uid: int, max_bytes: int, max_entries: int,
                 result: int, program: bytes) -> NoReturn:  # fmt: skip
    """The child of one upload: extract, seal, rename; write one RESULT and exit. Nothing half-made stays."""
    prctl.set_proctitle("sandboxd: unpacker")
    temporary = temporary_name(name, os.getpid())
    status, size = UnpackStatus.FAILED, 0
    try:
        os.mkdir(temporary, 0o700, dir_fd=code_directory)
        tree = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=code_directory)
        os.fchown(tree, uid, uid)
        extracted, size = _extract(tree, package, uid, max_bytes, max_entries, program)
        if extracted is UnpackStatus.OK:
            os.setxattr(tree, _NOTE, _CONTENTS.pack(size, _seal(tree)))
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


def _extract(
    tree: int, package: int, uid: int, max_bytes: int, max_entries: int, program: bytes
) -> tuple[UnpackStatus, int]:
    """By extractors that each unpack a part; how the first ended that did not end well."""
    parts = _PARTS if os.fstat(package).st_size > _DIVIDED else 1
    started = []
    try:
        for part in range(parts):
            share = max_entries, part, parts
            started.append(_start_extractor(tree, package, uid, max_bytes, program, share))
    finally:  # nobody seals or removes a tree in which one still writes
        ended = [_wait_for_extractor(pid, reader) for pid, reader in started]
    return next((one for one in ended if one[0] is not UnpackStatus.OK), ended[0])


def _start_extractor(
    tree: int, package: int, uid: int, max_bytes: int, program: bytes, share: tuple[int, int, int]
) -> tuple[int, int]:
    """A process of its own and where its RESULT will come from."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status, size = UnpackStatus.FAILED, 0
        try:
            _confine(tree, package, writer, uid, max_bytes, program)
            status, size = extractor.extract(_PACKAGE, _TREE, max_bytes, *share)
        finally:
            os.write(_RESULT, RESULT.pack(status, size))
            os._exit(0)
    os.close(writer)
    return pid, reader


def _wait_for_extractor(pid: int, reader: int) -> tuple[UnpackStatus, int]:
    answer = os.read(reader, RESULT.size)
    os.close(reader)
    _, ended, usage = os.wait4(pid, 0)
    if len(answer) != RESULT.size:
        # Its limit on CPU time ends it by SIGKILL too; without that, somebody else did, who says nothing of the zip.
        killed = ended == signal.SIGKILL and usage.ru_utime + usage.ru_stime < _CPU_SECONDS - 1
        return UnpackStatus.FAILED if killed else UnpackStatus.CORRUPT, 0
    number, size = RESULT.unpack(answer)
    return UnpackStatus(number), size


_PACKAGE, _RESULT, _TREE = 3, 4, 5  # the extractor's descriptors


def _confine(tree: int, package: int, result: int, uid: int, max_bytes: int, program: bytes) -> None:
    """All but these goes: descriptors, network, root directory, ids, capabilities, and at last most system calls."""
    linux.keep_only((0, 1, 2, package, result, tree))
    linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
    with open("/proc/self/statm") as file:
        inherited = int(file.read().split()[0]) * resource.getpagesize()
    os.fchdir(_TREE)
    os.chroot(".")
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, max_bytes + 1),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, inherited + _MEMORY),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (value, value))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.umask(0)
    os.setresuid(uid, uid, uid)  # and with it every permitted and effective capability (capabilities(7))
    linux.capset_none()
    # Not without the unpacker, whose tree and uid it has; a change of ids takes this signal away (prctl(2)).
    prctl.set_pdeathsig(signal.SIGKILL)
    capabilities.no_new_privs_in_child()
    gc.disable()  # it lives for one package, and nothing that it makes is a cycle
    linux.load_seccomp(program)


def _seal(tree: int) -> int:
    """Make every file and directory root's and read-only, by descriptor, refusing what the extractor may not make; how
    many there are."""
    count = 0
    for _, directories, files, directory in os.fwalk(".", dir_fd=tree, follow_symlinks=False):
        for name in files:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                about = os.fstat(file)
                if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
                    raise OSError(errno.EPERM, "not a plain file")
                os.fchown(file, 0, 0)
                mode = extractor.PROGRAM if about.st_mode & 0o100 else extractor.FILE
                if stat.S_IMODE(about.st_mode) != mode:
                    os.fchmod(file, mode)
            finally:
                os.close(file)
        count += len(directories) + len(files)
        os.fchown(directory, 0, 0)
        os.fchmod(directory, extractor.PROGRAM)
    return count


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


def contents(directory: int, name: str) -> tuple[int, int]:
    """What a package takes: bytes, and files with directories. Raises OSError."""
    package = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        size, files = _CONTENTS.unpack(os.getxattr(package, _NOTE))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        size, files = _count(package)  # of before there were notes
    finally:
        os.close(package)
    return size, files


def _count(tree: int) -> tuple[int, int]:
    size = count = 0
    for _, directories, files, directory in os.fwalk(".", dir_fd=tree, follow_symlinks=False):
        size += sum(os.stat(name, dir_fd=directory, follow_symlinks=False).st_size for name in files)
        count += len(directories) + len(files)
    return size, count
