"""The SQLite database: one connection, one thread that writes, every write on disk when it returns.

Room: service. May: SQLite. May not: be read on the event loop (what is read there lives in memory).
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sandboxd.store.schema import MIGRATIONS, Migrations, migrate

T = TypeVar("T")
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


class DiskFull(OSError):
    """There is no room for a transaction, and nothing of it was done."""


class Database:
    """The database at `path`, made where missing, readable by its owner only."""

    def __init__(self, path: Path, migrations: Migrations = MIGRATIONS) -> None:
        # SQLite gives its -wal and -shm files the mode of the database.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            # The service has no directory for SQLite's temporary files: a large statement would fail.
            self._connection.execute("PRAGMA temp_store = MEMORY")
            migrate(self._connection, migrations)
        except BaseException:
            self._connection.close()
            raise
        self._writer = ThreadPoolExecutor(1, "store")

    def read(self, query: str) -> list[tuple[object, ...]]:
        """Every row of a query; for the start, before there is anything to block."""
        return self._connection.execute(query).fetchall()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction on the writer's thread; on disk when this returns, undone when it raises.

        Raises DiskFull.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transaction, work)

    def close(self) -> None:
        """Finish the writes under way and close."""
        self._writer.shutdown()
        self._connection.close()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in _FULL:
                raise DiskFull(errno.ENOSPC, "the database's disk is full") from error
            raise
        return result
