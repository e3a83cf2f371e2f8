"""The queue of asynchronous events: a database of its own, whose commits are shared.

Room: service. May: write rows. May not: keep a payload in memory, or decide when an event is tried.

Many wait for the same fsync: whatever is asked for while one commit is under way goes into the next. Memory holds two
numbers for each target, whatever the number of events.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sandboxd.model.event import Event
from sandboxd.store.database import Database

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_AROUND = 512  # bytes that a row counts beyond its payload
_COMMITTED_AT_ONCE = 1024
_FORGOTTEN_AT_ONCE = 1000  # others get a turn in between

MIGRATIONS = (
    (
        """
        CREATE TABLE events (
            id             INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of arrival
            target         TEXT NOT NULL,
            due            REAL NOT NULL,
            created        REAL NOT NULL,
            request_id     TEXT NOT NULL,
            client_context TEXT NOT NULL,
            trace_id       TEXT NOT NULL,
            attempts       INTEGER NOT NULL,
            failures       INTEGER NOT NULL,
            size           INTEGER NOT NULL,
            payload        BLOB NOT NULL  -- last: what is read without it is read without its pages
        ) STRICT
        """,
        "CREATE INDEX events_due ON events (target, due, size)",
    ),
)
_COLUMNS = tuple(field.name for field in dataclasses.fields(Event))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM events"  # noqa: S608  # names of fields
_INSERT = (
    "INSERT INTO events (target, due, created, request_id, client_context, trace_id, attempts, failures, size, payload)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclasses.dataclass(slots=True)
class Held:
    """What waits for a target, what is being tried included: events, and the bytes that they count."""

    events: int = 0
    size: int = 0


class EventQueue:
    """Every event that was accepted and is not over. For the event loop's thread."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)
        self._pending: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None
        rows: Iterable[Any] = self._database.read("SELECT target, count(*), sum(size) FROM events GROUP BY target")
        self.held = {str(target): Held(int(events), int(size)) for target, events, size in rows}
        self.size = sum(held.size for held in self.held.values())

    async def add(self, event: Event) -> None:
        """Keep an event; it is on disk when this returns. Raises DiskFull."""
        await self._run(lambda c: _insert(c, event))
        self._count(event.target, 1, _size(event))

    async def due(self, target: str, now: float, limit: int, busy: frozenset[int]) -> tuple[list[Event], float | None]:
        """Up to `limit` events that are due and not `busy`, the one that waits longest first; when the next one is."""

        def work(connection: sqlite3.Connection) -> tuple[list[Event], float | None]:
            rows = connection.execute(
                "SELECT id, due FROM events WHERE target = ? ORDER BY due LIMIT ?", (target, limit + len(busy) + 1)
            )
            waiting = [(number, due) for number, due in rows if number not in busy]
            found = [number for number, due in waiting[:limit] if due <= now]
            events = [Event(*connection.execute(f"{_SELECT} WHERE id = ?", (number,)).fetchone()) for number in found]
            return events, waiting[len(found)][1] if len(found) < len(waiting) else None

        return await self._run(work)

    async def finish(self, event: Event, followers: Iterable[Event] = ()) -> bool:
        """Forget an event and keep, in the same step, what follows from it; False, and nothing kept, where it was
        forgotten before. Raises DiskFull."""
        following = list(followers)

        def work(connection: sqlite3.Connection) -> bool:
            if not connection.execute("DELETE FROM events WHERE id = ?", (event.id,)).rowcount:
                return False
            for follower in following:
                _insert(connection, follower)
            return True

        if not await self._run(work):
            return False
        self._count(event.target, -1, -_size(event))
        for follower in following:
            self._count(follower.target, 1, _size(follower))
        return True

    async def put_off(self, event: Event) -> None:
        """Keep when an event is due again, and what it has been through. Raises DiskFull."""
        row = (event.due, event.attempts, event.failures, event.id)
        await self._run(
            lambda c: c.execute("UPDATE events SET due = ?, attempts = ?, failures = ? WHERE id = ?", row).rowcount
        )

    async def shed(self, target: str, size: int, busy: frozenset[int]) -> int:
        """Forget the oldest events of a target, of so many bytes in all; how many they were."""

        def work(connection: sqlite3.Connection) -> list[int]:
            gone: list[tuple[int, int]] = []
            rows = connection.execute("SELECT id, size FROM events NOT INDEXED WHERE target = ? ORDER BY id", (target,))
            for number, bytes_ in rows:
                if sum(bytes_ for _, bytes_ in gone) >= size:
                    break
                if number not in busy:
                    gone.append((number, bytes_))
            connection.executemany("DELETE FROM events WHERE id = ?", ((number,) for number, _ in gone))
            return [bytes_ for _, bytes_ in gone]

        gone = await self._run(work)
        self._count(target, -len(gone), -sum(gone))
        return len(gone)

    async def forget(self, arn: str) -> int:
        """Forget every event for a function, by whatever qualifier; how many they were. Raises DiskFull."""
        # ";" is the character behind ":".
        whose = "target = ?1 OR (target > ?1 || ':' AND target < ?1 || ';')"
        some = f"DELETE FROM events WHERE id IN (SELECT id FROM events WHERE {whose} LIMIT ?2) RETURNING target, size"  # noqa: S608
        forgotten = 0
        while gone := await self._run(lambda c: c.execute(some, (arn, _FORGOTTEN_AT_ONCE)).fetchall()):
            for target, size in gone:
                self._count(target, -1, -size)
            forgotten += len(gone)
        return forgotten

    async def settle_clock(self, now: float, longest: float) -> None:
        """Let nothing wait longer than `longest` from now on, should the host's clock have been set back."""
        await self._run(lambda c: c.execute("UPDATE events SET due = ? WHERE due > ?", (now, now + longest)).rowcount)
        await self._run(lambda c: c.execute("UPDATE events SET created = ? WHERE created > ?", (now, now)).rowcount)

    async def flush(self) -> None:
        """Return when all that was asked for is done."""
        while self._committing is not None:
            await self._committing

    def close(self) -> None:
        """Close the file; nothing may be under way."""
        self._database.close()

    def _count(self, target: str, events: int, size: int) -> None:
        held = self.held.setdefault(target, Held())
        held.events += events
        held.size += size
        self.size += size
        if not held.events:
            del self.held[target]

    async def _run(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending.append((work, future))
        if self._committing is None:
            self._committing = loop.create_task(self._commit())
        return await future

    async def _commit(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:_COMMITTED_AT_ONCE], self._pending[_COMMITTED_AT_ONCE:]
            try:
                results = await self._database.write(functools.partial(_each, [work for work, _ in batch]))
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
        self._committing = None


def _each(works: list[Work[Any]], connection: sqlite3.Connection) -> list[Any]:
    return [work(connection) for work in works]


def _insert(connection: sqlite3.Connection, event: Event) -> None:
    connection.execute(
        _INSERT,
        (
            event.target, event.due, event.created, event.request_id, event.client_context, event.trace_id,
            event.attempts, event.failures, _size(event), event.payload,
        ),
    )  # fmt: skip


def _size(event: Event) -> int:
    return len(event.payload) + _AROUND
