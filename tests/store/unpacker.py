"""Unpacks in this process with zipfile: what the builder does in its own room, for tests that need no builder."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import zipfile
from pathlib import Path

from sandboxd.errors import PackageRejected
from sandboxd.model.layer import Unzipped


class InProcessUnpacker:
    """The two requests of privsep.client.Client that the store makes. `gate` holds unpacking up while it is cleared."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gate = asyncio.Event()
        self.gate.set()
        self.unpacked: list[str] = []

    async def unpack(self, code_digest: bytes, package: int, *, max_bytes: int, max_entries: int) -> Unzipped:
        await self.gate.wait()
        with open(os.dup(package), "rb") as file:
            data = file.read()
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
        except zipfile.BadZipFile:
            raise PackageRejected("NOT_A_ZIP") from None
        with archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if len(entries) > max_entries:
                raise PackageRejected("TOO_MANY_ENTRIES")
            if size > max_bytes:
                raise PackageRejected("TOO_LARGE")
            if any(".." in entry.filename.split("/") for entry in entries):
                raise PackageRejected("PARENT_NAME")
            archive.extractall(self.directory / code_digest.hex())
        self.unpacked.append(code_digest.hex())
        return Unzipped(size, sum(1 for _ in (self.directory / code_digest.hex()).rglob("*")))

    def remove_code(self, code_digest: bytes) -> None:
        shutil.rmtree(self.directory / code_digest.hex(), ignore_errors=True)
