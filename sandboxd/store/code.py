"""Packages of functions and layers: the zips as uploaded, and through the builder their unpacked, sealed form.

Room: service. May: write `service_dir/zips`, ask the builder. May not: open a zip.

A package is known by the SHA-256 of its zip. The zip is durable before the builder unpacks it and goes after the
builder was told to remove it, so whatever is interrupted leaves a zip that names what the next start has to remove.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from sandboxd.errors import PackageRejected
from sandboxd.model.layer import Unzipped
from sandboxd.model.limits import Limits

_ZIP = ".zip"
_UNPACKED_AT_ONCE = 16  # each holds a descriptor here and another in the builder, which unpacks two
_WRITTEN_AT_ONCE, _READ_AT_ONCE = 1 << 20, 1 << 18  # bytes of a package that comes or goes in pieces
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Unpacker(Protocol):
    """The builder, as far as code is concerned (privsep.client.Client)."""

    async def unpack(self, code_digest: bytes, package: int, *, max_bytes: int, max_entries: int) -> Unzipped: ...

    def remove_code(self, code_digest: bytes) -> None: ...


class Package:
    """A zip on its way to somebody, a piece at a time (an http.Chunks)."""

    def __init__(self, descriptor: int) -> None:
        self._file, self._lock = io.FileIO(descriptor), threading.Lock()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await asyncio.to_thread(self._read):
            yield piece

    def close(self) -> None:
        """Nobody reads any further. A thread that does would find another's file behind the number."""
        with self._lock:
            self._file.close()

    def _read(self) -> bytes:
        with self._lock:
            return b"" if self._file.closed else self._file.read(_READ_AT_ONCE)


class Code:
    """Every package. `in_use` tells of a digest whether any version of a function or a layer is made from it."""

    def __init__(
        self, directory: Path, unpacked_dir: Path, builder: Unpacker, limits: Limits, in_use: Callable[[str], bool]
    ) -> None:
        self._unpacked_dir, self._builder, self._limits, self.in_use = unpacked_dir, builder, limits, in_use
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._sealed: dict[str, Unzipped] = {}  # unpacked, as far as this process has seen
        self._held: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        self._turns = asyncio.Semaphore(_UNPACKED_AT_ONCE)

    @contextlib.asynccontextmanager
    async def hold(self, package: bytes) -> AsyncIterator[str]:
        """Keep a package, durable and unpacked, for the length of the block; its digest in hex.

        What nothing is made from at the end of the block is removed. Raises PackageRejected.
        """
        digest = await asyncio.to_thread(lambda: hashlib.sha256(package).hexdigest())
        with self.keep((digest,)):
            await self._seal(digest, lambda: self._write(digest, package))
            yield digest

    @contextlib.asynccontextmanager
    async def hold_pieces(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, int]]:
        """`hold` for a package that comes in pieces, none of which stays in memory; its digest and size in bytes."""
        name = f"{secrets.token_hex(16)}.part"
        with contextlib.ExitStack() as kept:
            try:
                digest, size = await self._receive(name, pieces)
                kept.enter_context(self.keep((digest,)))
                await self._seal(digest, lambda: self._rename(name, digest))
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._directory)
            yield digest, size

    @contextlib.contextmanager
    def keep(self, digests: Iterable[str]) -> Iterator[None]:
        """Let none of these packages go before the end of the block."""
        kept = tuple(digests)
        self._held.update(kept)
        try:
            yield
        finally:
            for digest in kept:
                self._held[digest] -= 1
                if not self._held[digest]:
                    del self._held[digest]
                    self._locks.pop(digest, None)
                self.drop_unused(digest)

    def unzipped(self, digest: str) -> Unzipped:
        """What a package takes that is held, or that something is made from."""
        return self._sealed[digest]

    def drop_unused(self, digest: str) -> None:
        """Remove a package, unless something is made from it or a request holds it."""
        if digest in self._held or self.in_use(digest):
            return
        self._sealed.pop(digest, None)
        self._builder.remove_code(bytes.fromhex(digest))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(digest + _ZIP, dir_fd=self._directory)

    def read(self, digest: str) -> Package:
        """The zip as it was uploaded. Raises FileNotFoundError."""
        return Package(self._open(digest))

    async def recover(self, wanted: Mapping[str, Unzipped]) -> dict[str, str]:
        """Bring the packages into the state that these digests, with what they take, ask for; by digest what became of
        those that cannot be."""
        zips = set()
        for name in os.listdir(self._directory):
            digest = name.removesuffix(_ZIP)
            if _DIGEST.fullmatch(digest) and digest != name:
                zips.add(digest)
            else:  # a write that was cut short
                os.unlink(name, dir_fd=self._directory)
        unpacked = await asyncio.to_thread(self._list_unpacked)
        for digest in (zips | (unpacked or set())) - wanted.keys():
            self.drop_unused(digest)
        failures = {}
        for digest, unzipped in wanted.items():
            if unpacked is None or digest not in unpacked:
                try:
                    await self._unpack(digest)
                except FileNotFoundError:
                    failures[digest] = "is lost"
                    continue
                except PackageRejected as error:
                    failures[digest] = f"cannot be unpacked: {error}"
                    continue
            self._sealed[digest] = unzipped
        return failures

    def close(self) -> None:
        """Give back the directory's descriptor."""
        os.close(self._directory)

    async def _seal(self, digest: str, put: Callable[[], None]) -> None:
        """Have a package unpacked; `put` makes its zip, durable, on a thread."""
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if digest not in self._sealed:
                await asyncio.to_thread(put)
                await self._unpack(digest)

    async def _receive(self, name: str, pieces: AsyncIterator[bytes]) -> tuple[str, int]:
        hashed, size = hashlib.sha256(), 0
        with open(self._create(name), "wb", buffering=0) as file:

            def write(data: bytes) -> None:
                hashed.update(data)
                while data:
                    data = data[file.write(data) :]

            buffer = bytearray()
            async for piece in pieces:
                buffer += piece
                size += len(piece)
                if len(buffer) >= _WRITTEN_AT_ONCE:
                    await asyncio.to_thread(write, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(write, bytes(buffer))
            await asyncio.to_thread(os.fsync, file.fileno())
        return hashed.hexdigest(), size

    async def _unpack(self, digest: str) -> None:
        async with self._turns:
            descriptor = self._open(digest)
            try:
                self._sealed[digest] = await self._builder.unpack(
                    bytes.fromhex(digest),
                    descriptor,
                    max_bytes=self._limits.unzipped_bytes,
                    max_entries=self._limits.zip_entries,
                )
            finally:
                os.close(descriptor)

    def _open(self, digest: str) -> int:
        return os.open(digest + _ZIP, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)

    def _write(self, digest: str, package: bytes) -> None:
        name = f"{digest}.{secrets.token_hex(8)}"
        try:
            with open(self._create(name), "wb") as file:
                file.write(package)
                file.flush()
                os.fsync(file.fileno())
            self._rename(name, digest)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
            raise

    def _create(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._directory)

    def _rename(self, name: str, digest: str) -> None:
        os.rename(name, digest + _ZIP, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)

    def _list_unpacked(self) -> set[str] | None:
        """The digests that are unpacked, or None where the directory is closed to this room."""
        try:
            names = os.listdir(self._unpacked_dir)
        except FileNotFoundError:
            return set()
        except PermissionError:
            return None
        return set(filter(_DIGEST.fullmatch, names))
