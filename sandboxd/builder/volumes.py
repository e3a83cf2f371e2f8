"""/tmp of an environment: a sparse ext4 image without journal on a loop device, gone with its last mount.

Room: root, parent side. A volume is a template's few hundred written kilobytes copied into an unlinked file, so that a
crash leaves no file. Templates are mke2fs's, one per size, made in memory by a child that stays in the host's mount
tree, where that program is (growing a mounted template instead takes CAP_SYS_RESOURCE, which not every host's root
has).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess

import prctl

from sandboxd.builder import linux
from sandboxd.errors import StepFailed

MIB = 1024 * 1024
TEMPLATE_MB = 512
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_BLOCK = 4096
_MAX_TEMPLATES = 64  # of some 100 kB each: functions may ask for ten thousand sizes


class Volumes:
    """Makes volumes below one directory of the host, held by descriptor, while its disk has `floor_mb` MB free."""

    def __init__(self, directory: str, floor_mb: int) -> None:
        self._floor = floor_mb * MIB
        os.makedirs(directory, 0o700, exist_ok=True)
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._templates: dict[int, list[tuple[int, bytes]]] = {}
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                prctl.set_proctitle("sandboxd: templates")
                linux.keep_only((0, 1, 2, theirs.fileno()))
                _make_templates(socket.socket(fileno=3))
            finally:
                os._exit(1)
        theirs.close()
        self._template(TEMPLATE_MB)
        self._control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)

    def make(self, size_mb: int, owner: int) -> int:
        """A detached mount of a new, empty volume whose root belongs to `owner`. Raises StepFailed, OSError."""
        disk = os.fstatvfs(self._directory)
        if disk.f_bavail * disk.f_frsize < self._floor:  # a volume is sparse: those that exist still grow
            raise StepFailed("tmp volume", errno.ENOSPC, f"less than {self._floor // MIB} MB are free (disk_floor)")
        image = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
        try:
            os.ftruncate(image, size_mb * MIB)
            for offset, data in self._template(size_mb):
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

    def close(self) -> None:
        """End the maker of templates; what was mounted lives on."""
        self.channel.close()
        os.waitpid(self._pid, 0)
        os.close(self._directory)
        os.close(self._control)

    def _template(self, size_mb: int) -> list[tuple[int, bytes]]:
        """The written parts of a fresh filesystem of a size, as (offset, bytes)."""
        if size_mb not in self._templates:
            self.channel.send(struct.pack("I", size_mb))
            answer, descriptors, _, _ = socket.recv_fds(self.channel, 4096, 1)
            if not descriptors:
                raise StepFailed("tmp volume", 0, answer.decode(errors="replace") or "the maker of templates ended")
            try:
                self._templates[size_mb] = _extents(descriptors[0])
            finally:
                os.close(descriptors[0])
            if len(self._templates) > _MAX_TEMPLATES:
                del self._templates[next(size for size in self._templates if size != TEMPLATE_MB)]
        return self._templates[size_mb]

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


def _make_templates(requests: socket.socket) -> None:
    """The child: a size in, a memfd with a fresh filesystem out, or a text that says why not."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while request := requests.recv(4):
        file = os.memfd_create("template")
        try:
            os.ftruncate(file, struct.unpack("I", request)[0] * MIB)
            _make_filesystem(file)
            socket.send_fds(requests, [b"+"], [file])
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", b"") or str(error).encode()
            requests.send(b"mke2fs: " + detail.strip()[:4000])
        finally:
            os.close(file)


def _make_filesystem(file: int) -> None:
    # In a sparse file inode tables are zero as they are: told so, the kernel does not write them behind every mount.
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-O", "^has_journal,^resize_inode",
               "-E", "lazy_itable_init=0,nodiscard", f"/proc/self/fd/{file}"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, pass_fds=[file])


def _extents(file: int) -> list[tuple[int, bytes]]:
    """What a sparse file has that is not zero, block by block, neighbours in one."""
    extents: list[tuple[int, bytes]] = []
    end, size = 0, os.fstat(file).st_size
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind this
                break
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        data = os.pread(file, end - start, start)
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
