"""The extractor: reads a stranger's zip and writes files below one directory, with hardly a system call left.

Room: child of the builder without privilege. May: read the package, write below the tree. May not: import (its root is
the empty tree), open anything but what `builder/profiles/extractor.json` leaves.

The central directory is zipfile's business. The entries' data are read here: zipfile takes 20 µs and several objects
for each, knows more compressions than AWS takes, and in Python 3.11 lets entries overlap, which is how the better zip
bombs are made. Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import encodings.cp437  # looked up by name when nothing can be imported any more
import errno
import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

from sandboxd.builder import linux
from sandboxd.privsep.messages import UnpackStatus

_ = encodings.cp437

_LOCAL = struct.Struct("<4s2xHH16xHH")  # signature, flags, compression, lengths of name and extra field
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED, _PATCHED, _STRONGLY_ENCRYPTED, _UTF8 = 0x01, 0x20, 0x40, 0x800
_STORED, _DEFLATED = 0, 8
_INPUT, _OUTPUT = 16 * 1024, 256 * 1024  # bytes at a time; what is not yet inflated is copied with every piece
_SMALLEST = 22  # bytes: an end of central directory alone
_MAX_DEPTH = 100  # directories in each other: who walks them holds a descriptor and a frame of the stack for each
_MAX_PATH = 4000  # bytes; with /var/task/ before it, below the kernel's PATH_MAX
FILE, PROGRAM = 0o444, 0o555  # modes as sealed; directories are as programs
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Refused(Exception):
    def __init__(self, status: UnpackStatus) -> None:
        self.status = status


class _Package(mmap.mmap):
    """A package as the file that zipfile knows: no position that another extractor of it shares."""

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:  # type: ignore[override]
        """Like a file's: says where it is, and fails as zipfile expects."""
        try:
            super().seek((0, self.tell(), len(self))[whence] + position)
        except ValueError:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
        return self.tell()


def extract(
    package: int, tree: int, max_bytes: int, max_entries: int, part: int = 0, of: int = 1
) -> tuple[UnpackStatus, int]:
    """Unpack one of some equal parts of the zip of a descriptor below the directory of another: how it ended, and the
    size of all files in bytes. Other parts may be unpacked meanwhile."""
    try:
        return UnpackStatus.OK, _extract(package, tree, max_bytes, max_entries, part, of)
    except _Refused as refused:
        return refused.status, 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return UnpackStatus.DISK_FULL, 0
        # A position before the zip's first byte is EINVAL; without errno it is zipfile's.
        return (UnpackStatus.CORRUPT if error.errno in (None, errno.EINVAL) else UnpackStatus.FAILED), 0
    except Exception:  # whatever a parser says of what a stranger wrote
        return UnpackStatus.CORRUPT, 0


def _extract(package: int, tree: int, max_bytes: int, max_entries: int, part: int, of: int) -> int:
    if os.fstat(package).st_size < _SMALLEST:
        raise _Refused(UnpackStatus.NOT_A_ZIP)
    file = _Package(package, 0, prot=mmap.PROT_READ)
    entries, ends = _directory(file, max_entries)
    size = sum(entry.file_size for entry in entries if not entry.is_dir())
    if size > max_bytes:
        raise _Refused(UnpackStatus.TOO_LARGE)
    writer = _Writer(tree)
    # Not closed by name: an error's traceback holds slices of it, and closing would put a BufferError in its place.
    data = memoryview(file)
    for entry in entries[len(entries) * part // of : len(entries) * (part + 1) // of]:
        parts = _checked_name(entry)
        if entry.is_dir():
            writer.directory(parts)
            continue
        target = writer.file(parts, PROGRAM if (entry.external_attr >> 16) & 0o111 else FILE)
        _write_file(target, entry, data[entry.header_offset : ends[entry.header_offset]])
        os.close(target)
    return size


def _directory(file: _Package, max_entries: int) -> tuple[list[zipfile.ZipInfo], dict[int, int]]:
    """The entries, and by its offset where each has to be over: no two may share a byte."""
    if not zipfile.is_zipfile(file):
        raise _Refused(UnpackStatus.NOT_A_ZIP)
    with zipfile.ZipFile(file) as archive:
        entries, directory = archive.infolist(), archive.start_dir
    if not entries:
        raise _Refused(UnpackStatus.EMPTY)
    if len(entries) > max_entries:
        raise _Refused(UnpackStatus.TOO_MANY_ENTRIES)
    begins = sorted(entry.header_offset for entry in entries)
    ends = dict(zip(begins, [*begins[1:], directory], strict=False))
    if len(ends) != len(begins) or begins[:1] < [0]:
        raise _Refused(UnpackStatus.CORRUPT)
    return entries, ends


def _checked_name(entry: zipfile.ZipInfo) -> list[str]:
    name = entry.orig_filename
    if name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/"):
        raise _Refused(UnpackStatus.ABSOLUTE_NAME)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in (name.replace("\\", "/").split("/") if "\\" in name else parts):
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
    if entry.flag_bits & (_ENCRYPTED | _PATCHED | _STRONGLY_ENCRYPTED):
        raise _Refused(UnpackStatus.CORRUPT)
    return parts


class _Writer:
    """Makes directories and files below a tree. One directory stays open: entries mostly share theirs."""

    def __init__(self, tree: int) -> None:
        self._tree = tree
        self._made = {""}
        self._path, self._directory = "", tree

    def directory(self, parts: list[str]) -> None:
        """Make a directory, and those that it is in, where they are not there."""
        path = "/".join(parts)
        if path in self._made:
            return
        self.directory(parts[:-1])
        parent = self._enter("/".join(parts[:-1]))
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:  # of another part, or a file of that name
            if not stat.S_ISDIR(os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode):
                raise _Refused(UnpackStatus.DUPLICATE_NAME) from None
        self._made.add(path)

    def file(self, parts: list[str], mode: int) -> int:
        """Make a file; its descriptor, to write."""
        path = "/".join(parts[:-1])
        if path not in self._made:
            self.directory(parts[:-1])
        try:
            return os.open(parts[-1], _NEW, mode, dir_fd=self._enter(path))
        except FileExistsError:
            raise _Refused(UnpackStatus.DUPLICATE_NAME) from None

    def _enter(self, path: str) -> int:
        """The open directory of a path, reached beneath the tree and through no link (openat2)."""
        if path != self._path:
            directory = linux.open_beneath(self._tree, path, os.O_PATH | os.O_DIRECTORY) if path else self._tree
            if self._directory != self._tree:
                os.close(self._directory)
            self._path, self._directory = path, directory
        return self._directory


def _write_file(target: int, entry: zipfile.ZipInfo, data: memoryview) -> None:
    """Write what the bytes from an entry's local header on hold: exactly what the central directory says of it."""
    signature, flags, compression, name_length, extra_length = _LOCAL.unpack_from(data)
    begin = _LOCAL.size + name_length + extra_length
    name = bytes(data[_LOCAL.size : _LOCAL.size + name_length]).decode("utf-8" if flags & _UTF8 else "cp437")
    packed = data[begin : begin + entry.compress_size]
    if signature != _LOCAL_SIGNATURE or name != entry.orig_filename or compression != entry.compress_type:
        raise _Refused(UnpackStatus.CORRUPT)
    if len(packed) != entry.compress_size:
        raise _Refused(UnpackStatus.CORRUPT)
    checksum = written = 0
    for piece in _unpacked(packed, compression):
        written += len(piece)
        if written > entry.file_size:
            break
        checksum = zlib.crc32(piece, checksum)
        if os.write(target, piece) != len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if written != entry.file_size or checksum != entry.CRC:
        raise _Refused(UnpackStatus.CORRUPT)


def _unpacked(packed: memoryview, compression: int) -> Iterator[bytes | memoryview]:
    if compression == _STORED:
        yield from (packed[at : at + _OUTPUT] for at in range(0, len(packed), _OUTPUT))
        return
    if compression != _DEFLATED:
        raise _Refused(UnpackStatus.CORRUPT)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for at in range(0, len(packed), _INPUT):
        piece: bytes | memoryview = packed[at : at + _INPUT]
        while piece:
            yield inflater.decompress(piece, _OUTPUT)
            piece = inflater.unconsumed_tail
    if not inflater.eof:
        raise _Refused(UnpackStatus.CORRUPT)
