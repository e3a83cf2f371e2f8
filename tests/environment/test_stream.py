"""A streamed answer between a runtime and a client of which neither is trusted to keep up or to stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sandboxd.environment.stream import Stream


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 10))


def nothing() -> None:
    """Called when there is room again."""


def test_pieces_come_as_they_are_written_and_end() -> None:
    async def scene() -> None:
        stream, seen = Stream(1000), bytearray()

        async def read() -> None:
            async for piece in stream.pieces():
                seen.extend(piece)

        reading = asyncio.create_task(read())
        for number in range(10):
            assert stream.write(b"%d" % number, nothing)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert seen.endswith(b"%d" % number)
        stream.end()
        await reading
        assert seen == b"0123456789"

    play(scene)


def test_a_reader_that_is_slow_holds_the_writer() -> None:
    async def scene() -> None:
        stream, rooms = Stream(1 << 30), []
        assert not stream.write(bytes(100_000), lambda: rooms.append(1))
        pieces = stream.pieces()
        assert len(await anext(pieces)) == 65_536
        assert rooms == [1]
        stream.end()
        assert sum([len(piece) async for piece in pieces]) == 100_000 - 65_536

    play(scene)


def test_a_reader_that_went_away_holds_nobody() -> None:
    async def scene() -> None:
        stream, rooms = Stream(1 << 30), []
        assert not stream.write(bytes(100_000), lambda: rooms.append(1))
        stream.close()
        assert rooms == [1]
        assert all(stream.write(bytes(100_000), nothing) for _ in range(100))
        assert not stream._buffer

    play(scene)


def test_a_limit_ends_it() -> None:
    async def scene() -> None:
        stream = Stream(10)
        assert stream.write(b"0123456789", nothing) and not stream.too_large
        assert stream.write(b"x", nothing) and stream.too_large
        stream.end()
        assert [piece async for piece in stream.pieces()] == [b"0123456789"]

    play(scene)
