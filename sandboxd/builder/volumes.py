"""/tmp of an environment: a sparse ext4 image without journal on a loop device, gone with its last mount.

Room: root, parent side. The template is made once (mke2fs); a volume is the template's few hundred written kilobytes
copied into an unlinked file, so that a crash leaves no file. A larger size is the template grown by the kernel's
own resize, which takes no program.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import tempfile

from sandboxd.builder import linux
from sandboxd.errors import StepFailed

MIB = 1024 * 1024
TEMPLATE_MB = 512
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_EXT4_IOC_RESIZE_FS = 0x40086610
_BLOCK = 4096


class Volumes:
    """Makes volumes below one directory of the host, held by descriptor."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._template = _template_extents(directory)
        self._control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)

    def make(self, size_mb: int, owner: int) -> int:
        """A detached mount of a new, empty volume whose root belongs to `owner`."""
        image = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
        try:
            os.ftruncate(image, size_mb * MIB)
            for offset, data in self._template:
                os.pwrite(image, data, offset)
            loop = self._attach(image)
        finally:
            os.close(image)
        try:
            mount = linux.new_mount(
                "ext4",
                linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOATIME,
                source=f"/dev/loop{_number(loop)}",
            )
        finally:
            os.close(loop)  # the mount holds the device; AUTOCLEAR ends it with the mount
        try:
            root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
            try:
                if size_mb > TEMPLATE_MB:
                    fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, struct.pack("Q", size_mb * MIB // _BLOCK))
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir("lost+found", dir_fd=root)
                os.fchmod(root, 0o700)
                os.fchown(root, owner, owner)
            finally:
                os.close(root)
        except BaseException:
            os.close(mount)
            raise
        return mount

    def _attach(self, image: int) -> int:
        # struct loop_config: fd, block_size, struct loop_info64 (lo_flags at 52 of 232 bytes), reserved
        info = bytearray(232)
        struct.pack_into("I", info, 52, _LO_FLAGS_AUTOCLEAR)
        config = struct.pack("II", image, _BLOCK) + bytes(info) + bytes(64)
        for _ in range(64):  # another process may take the free device between the two calls
            number = fcntl.ioctl(self._control, _LOOP_CTL_GET_FREE)
            try:
                loop = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # the node is made by devtmpfs a moment later
                continue
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, config)
                return loop
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:
                    raise
        raise StepFailed("tmp volume", errno.EBUSY, "no free loop device")


def _number(loop: int) -> int:
    return os.minor(os.fstat(loop).st_rdev)


def _template_extents(directory: str) -> list[tuple[int, bytes]]:
    """The written parts of a fresh filesystem, as (offset, bytes)."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".template-") as file:
        os.ftruncate(file.fileno(), TEMPLATE_MB * MIB)
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-O", "^has_journal",
                   "-E", "lazy_itable_init=1,nodiscard", file.name]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", b"") or str(error).encode()
            raise StepFailed("tmp volume", 0, f"mke2fs: {detail.decode(errors='replace').strip()}") from error
        extents: list[tuple[int, bytes]] = []
        end, size = 0, TEMPLATE_MB * MIB
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            data = os.pread(file.fileno(), end - start, start)
            extents += [
                (start + i, data[i : i + _BLOCK])
                for i in range(0, len(data), _BLOCK)
                if data[i : i + _BLOCK].count(0) != len(data[i : i + _BLOCK])
            ]
        return _merged(extents)


def _merged(extents: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    merged: list[tuple[int, bytes]] = []
    for offset, data in extents:
        if merged and merged[-1][0] + len(merged[-1][1]) == offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + data)
        else:
            merged.append((offset, data))
    return merged
