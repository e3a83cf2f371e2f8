"""The queue on disk: shared commits, little memory, order, and what a full disk leaves."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prctl
import psutil
import pytest

from sandboxd import landlock
from sandboxd.model.event import Event
from sandboxd.store.database import DiskFull
from sandboxd.store.events import EventQueue

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"


def event(number: int = 0, target: str = FUNCTION, due: float = 0.0, payload: bytes = b"{}") -> Event:
    return Event(target, due, due, f"request-{number}", payload, "context", "trace")


def run(path: Path, work: Callable[[EventQueue], Any]) -> Any:
    """Open the queue, do some work in a loop, and close."""

    async def main() -> Any:
        queue = EventQueue(path / "events.db")
        try:
            return await work(queue)
        finally:
            await queue.flush()
            queue.close()

    return asyncio.run(main())


def test_what_is_added_is_there_for_the_next_process(tmp_path: Path) -> None:
    async def add(queue: EventQueue) -> None:
        await queue.add(event(1, due=5.0, payload=b"[1]"))
        await queue.put_off(Event(FUNCTION, 5.0, 9.0, "request-1", b"", attempts=1, failures=2, id=1))

    async def find(queue: EventQueue) -> None:
        assert (queue.held[FUNCTION].events, queue.size) == (1, 3 + 512)
        assert await queue.due(FUNCTION, 8.0, 10, frozenset()) == ([], 9.0)
        expected = Event(FUNCTION, 5.0, 9.0, "request-1", b"[1]", "context", "trace", 1, 2, 1)
        assert await queue.due(FUNCTION, 9.0, 10, frozenset()) == ([expected], None)

    run(tmp_path, add)
    run(tmp_path, find)
    assert (tmp_path / "events.db").stat().st_mode & 0o777 == 0o600


def test_who_comes_at_one_time_shares_a_commit(tmp_path: Path) -> None:
    async def work(queue: EventQueue) -> int:
        commits = 0

        def count(statement: str) -> None:
            nonlocal commits
            commits += statement == "COMMIT"

        queue._database._connection.set_trace_callback(count)
        await asyncio.gather(*(queue.add(event(number)) for number in range(500)))
        assert queue.held[FUNCTION].events == 500
        return commits

    assert 1 <= run(tmp_path, work) <= 3


def test_the_one_that_waits_longest_first_and_none_that_is_busy(tmp_path: Path) -> None:
    async def work(queue: EventQueue) -> None:
        for number, due in enumerate((3.0, 1.0, 2.0, 9.0)):
            await queue.add(event(number, due=due))
        await queue.add(event(7, FUNCTION + "2"))
        found, following = await queue.due(FUNCTION, 5.0, 2, frozenset())
        assert ([e.request_id for e in found], following) == (["request-1", "request-2"], 3.0)
        found, following = await queue.due(FUNCTION, 5.0, 2, frozenset(e.id for e in found))
        assert ([e.request_id for e in found], following) == (["request-0"], 9.0)

    run(tmp_path, work)


def test_what_follows_comes_with_the_end_and_only_once(tmp_path: Path) -> None:
    async def work(queue: EventQueue) -> None:
        await queue.add(event(1))
        ((found,), _) = await queue.due(FUNCTION, 1.0, 1, frozenset())
        assert await queue.finish(found, [event(2, "queue"), event(3, "topic")])
        assert {target: held.events for target, held in queue.held.items()} == {"queue": 1, "topic": 1}
        assert not await queue.finish(found, [event(4, "queue")])
        assert queue.held["queue"].events == 1

    run(tmp_path, work)


def test_forgotten_with_every_qualifier_and_no_neighbour(tmp_path: Path) -> None:
    async def work(queue: EventQueue) -> None:
        targets = [FUNCTION, FUNCTION + ":1", FUNCTION + ":live", FUNCTION + "2", FUNCTION + "-x", FUNCTION[:-1]]
        for target in targets:
            await queue.add(event(target=target))
        assert await queue.forget(FUNCTION) == 3
        assert list(queue.held) == targets[3:]
        await asyncio.gather(*(queue.add(event(number)) for number in range(2500)))
        assert await queue.forget(FUNCTION) == 2500
        assert list(queue.held) == targets[3:]

    run(tmp_path, work)


def test_a_number_is_not_given_twice(tmp_path: Path) -> None:
    """An attempt that outlives its event must not end another's."""

    async def work(queue: EventQueue) -> None:
        await queue.add(event(1))
        ((first,), _) = await queue.due(FUNCTION, 1.0, 1, frozenset())
        await queue.forget(FUNCTION)
        await queue.add(event(2))
        assert not await queue.finish(first)
        assert queue.held[FUNCTION].events == 1

    run(tmp_path, work)


def test_a_full_disk_takes_nothing_and_forgets_nothing(tmp_path: Path) -> None:
    async def work(queue: EventQueue) -> None:
        await queue.add(event(1))
        (pages,) = queue._database.read("PRAGMA page_count")[0]
        queue._database.read(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DiskFull):
            await queue.add(event(2, payload=b"x" * 100_000))
        assert queue.held[FUNCTION].events == 1
        ((found,), _) = await queue.due(FUNCTION, 1.0, 1, frozenset())
        assert await queue.finish(found)

    run(tmp_path, work)


def fill(path: Path, due: float = 0.0) -> None:
    """A queue of 100,000 events for ten functions."""
    run(path, lambda queue: queue.flush())
    connection = sqlite3.connect(path / "events.db")
    columns = "target, due, created, request_id, client_context, trace_id, attempts, failures, size, payload"
    rows = ((f"{FUNCTION}{n % 10}", due + n, 0, f"r-{n}", "", "", 0, 0, 1512, b"x" * 1000) for n in range(100_000))
    with connection:
        connection.executemany(f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()


def test_a_hundred_thousand_events_cost_little_memory(tmp_path: Path) -> None:
    fill(tmp_path)
    process = psutil.Process()

    async def work(queue: EventQueue) -> int:
        assert sum(held.events for held in queue.held.values()) == 100_000
        for number in range(10):
            found, _ = await queue.due(f"{FUNCTION}{number}", 1e6, 16, frozenset())
            assert len(found) == 16
            for one in found:
                await queue.finish(one)
        return process.memory_info().rss

    before = process.memory_info().rss
    assert run(tmp_path, work) - before < 16 * 1024 * 1024


def test_many_rows_need_no_file_that_the_service_may_not_write(tmp_path: Path) -> None:
    fill(tmp_path, due=1e9)
    child = os.fork()
    if child == 0:
        done = 1
        try:
            prctl.set_no_new_privs(1)
            landlock.restrict({str(tmp_path): landlock.CHANGE})
            run(tmp_path, lambda queue: queue.settle_clock(1.0, 1.0))
            done = 0
        finally:
            os._exit(done)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
