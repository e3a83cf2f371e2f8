"""Which code packages are being unpacked and removed, each by a child of its own (`builder/code.py`).

Room: root. May: fork, wait in the builder's event loop. May not: read a package.
"""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections import deque
from collections.abc import Callable

from sandboxd.builder import code
from sandboxd.builder.environment import Host
from sandboxd.errors import ProtocolViolation
from sandboxd.model.limits import Limits
from sandboxd.privsep import channel as door
from sandboxd.privsep.messages import Unpack, Unpacked, UnpackStatus

log = logging.getLogger("sandboxd.builder")

_MAX_UNPACKERS = 2
_MAX_UPLOADS = 64  # that wait for an unpacker: each holds a descriptor; the service has 16 on the way at most


class Packages:
    """The packages of one directory. `extractor` is the compiled filter of who reads them."""

    def __init__(
        self,
        directory: int,
        extractor: bytes,
        limits: Limits,
        host: Host,
        selector: selectors.BaseSelector,
        say: Callable[[Unpacked], None],
    ) -> None:
        self._directory, self._extractor, self._limits = directory, extractor, limits
        self._host, self._selector, self._say = host, selector, say
        self._uploads: deque[tuple[Unpack, int]] = deque()
        self._unpackers = 0
        self._removers: dict[int, str] = {}
        self._unwanted: deque[str] = deque()  # trees that no process could be had for yet

    def answer_unpack(self, message: Unpack, package: int) -> None:
        """Unpack it when its turn comes; the descriptor stays the caller's. Raises ProtocolViolation."""
        if message.max_bytes > self._limits.unzipped_bytes or message.max_entries > self._limits.zip_entries:
            raise ProtocolViolation("unpack: more than a package may have")
        if len(self._uploads) >= _MAX_UPLOADS:
            raise ProtocolViolation("unpack: too many at one time")
        self._uploads.append((message, os.dup(package)))
        self._start_unpackers()

    def _start_unpackers(self) -> None:
        while self._uploads and self._unpackers < _MAX_UNPACKERS:
            message, package = self._uploads.popleft()
            self._unpack(message, package)
            os.close(package)

    def _unpack(self, message: Unpack, package: int) -> None:
        name = message.code_digest.hex()
        if code.exists(self._directory, name):
            self._answer(message, UnpackStatus.OK)
            return
        reader, writer = os.pipe()
        slot = self._host.slots.take()
        uid = self._host.uid(slot)
        try:
            unpacker = os.fork()
        except OSError as error:
            log.warning("no unpacker: %s", error)
            door.close_all([reader, writer])
            self._host.slots.give_back(slot)
            self._answer(message, UnpackStatus.FAILED)
            return
        if unpacker == 0:
            limits = message.max_bytes, message.max_entries
            code.run_unpacker(self._directory, name, package, uid, *limits, writer, self._extractor)
        os.close(writer)
        self._unpackers += 1
        unfinished = code.temporary_name(name, unpacker)
        self._selector.register(
            reader, selectors.EVENT_READ, lambda: self._on_unpacked(message, reader, slot, unfinished)
        )

    def _on_unpacked(self, message: Unpack, reader: int, slot: int, unfinished: str) -> None:
        result = os.read(reader, code.RESULT.size)
        self._selector.unregister(reader)
        os.close(reader)
        self._host.slots.give_back(slot)
        self._unpackers -= 1
        status = UnpackStatus.FAILED
        if len(result) == code.RESULT.size:
            status = UnpackStatus(code.RESULT.unpack(result)[0])
        else:  # it was killed
            self._remove_tree(unfinished)
        self._answer(message, status)
        self._start_unpackers()

    def _answer(self, message: Unpack, status: UnpackStatus) -> None:
        """Say how it ended, and what a package that is in place takes."""
        size = files = 0
        if status is UnpackStatus.OK:
            try:
                size, files = code.contents(self._directory, message.code_digest.hex())
            except OSError as error:
                log.warning("a package that is not in place: %s", error)
                status = UnpackStatus.FAILED
        self._say(Unpacked(message.request_id, status, size, files))

    def answer_remove(self, digest: bytes) -> None:
        """Take a package out of sight, and have it removed."""
        name = digest.hex()
        gone = f".old-{name}-{time.monotonic_ns()}"
        try:
            os.rename(name, gone, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except FileNotFoundError:
            return
        self._remove_tree(gone)

    def _remove_tree(self, name: str) -> None:
        """Have a child remove a tree that is nobody's any more, and another where that one is killed."""
        self._unwanted.append(name)
        self._start_removers()

    def _start_removers(self) -> None:
        while self._unwanted:
            try:
                remover = os.fork()
            except OSError as error:
                log.warning("%s is removed later: %s", self._unwanted[0], error)
                return
            if remover == 0:
                try:
                    code.remove_tree(self._directory, self._unwanted[0])
                finally:
                    os._exit(0)
            self._removers[remover] = self._unwanted.popleft()

    def take_exit(self, pid: int, status: int) -> bool:
        """Whether the child that ended was one that removes a tree."""
        tree = self._removers.pop(pid, None)
        if tree is not None and os.WIFSIGNALED(status):
            self._unwanted.append(tree)
        self._start_removers()  # there may be room for a process now
        return tree is not None
