"""One connection cannot take more than its turn: of the loop's time, of memory, of answers that it never reads."""

import asyncio
import contextlib
import gc
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from sandboxd.http import Budget, CutShort, Handler, HttpLimits, Request, Response, Streaming, serve
from sandboxd.http.values import Admission

MIB = 1024 * 1024
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def echo(request: Request) -> Response:
    return Response(200, request.body)


def with_server(
    work: Callable[[tuple[str, int]], Awaitable[None]],
    limits: HttpLimits,
    budget: Budget | None = None,
    handler: Handler = echo,
    streaming: Streaming | None = None,
    admission: Admission | None = None,
) -> None:
    async def run() -> None:
        door = socket.create_server(("127.0.0.1", 0))
        address = door.getsockname()
        budgeted = budget or Budget(64 * MIB)
        server = await serve(door, handler, limits, budgeted, streaming=streaming, admission=admission)
        try:
            await asyncio.wait_for(work(address), 30)
        finally:
            server.abort()

    uvloop.run(run())


def answer_to(data: bytes, limits: HttpLimits, handler: Handler = echo, admission: Admission | None = None) -> bytes:
    """Everything that the server says to these bytes before it closes, or until it has been silent for a moment."""
    said = bytearray()

    async def work(address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := await asyncio.wait_for(reader.read(MIB), 0.5):
                said.extend(piece)
        writer.close()

    with_server(work, limits, handler=handler, admission=admission)
    return bytes(said)


def test_a_body_of_many_reads_arrives_whole() -> None:
    body = bytes(range(256)) * (5 * MIB // 256)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert answer_to(head + body, HttpLimits(body=6 * MIB)).partition(b"\r\n\r\n")[2] == body


def test_an_answer_to_head_has_no_body() -> None:
    head = b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    first, _, second = answer_to(head + GET, HttpLimits(body=5)).partition(b"\r\n\r\n")
    assert b"Content-Length: 5" in first and second.startswith(b"HTTP/1.1 200 OK")
    assert answer_to(head.replace(b"5", b"6"), HttpLimits(body=5)).endswith(b"\r\n\r\n")


def test_repeated_headers_are_joined_unless_they_must_not_be() -> None:
    def show(request: Request) -> Response:
        return Response(200, f"{request.headers['x-a']}|{request.headers['cookie']}".encode())

    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nCookie: a=1\r\nx-a: 2,3\r\nCOOKIE: b=2\r\n"
    assert answer_to(head + b"\r\n", HttpLimits(body=0), show).endswith(b"1,2,3|a=1; b=2")
    for again in (b"Host: y", b"Authorization: x\r\nAuthorization: y"):
        assert answer_to(head + again + b"\r\n\r\n", HttpLimits(body=0), show).startswith(b"HTTP/1.1 400")


def test_each_cookie_is_a_header() -> None:
    said = answer_to(GET, HttpLimits(body=0), lambda request: Response(200, b"", {"A": "b"}, cookies=("c=1", "d=2")))
    assert b"\r\nA: b\r\nSet-Cookie: c=1\r\nSet-Cookie: d=2\r\n" in said


@pytest.mark.parametrize(("chunks", "status"), [(2, b"200"), (3, b"413")])
def test_a_head_says_how_large_its_body_may_be(chunks: int, status: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = (b"8000\r\n" + b"x" * 32_768 + b"\r\n") * chunks + b"0\r\n\r\n"
    # What one head says is no word on the next.
    large = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\n\r\n" + b"x" * 65_000
    said = answer_to(head + body + large, HttpLimits(body=MIB), admission=lambda request: 65_536)
    assert said.startswith(b"HTTP/1.1 " + status)
    assert said.count(b"HTTP/1.1 200 OK") == (2 if status == b"200" else 0)


def test_what_is_known_to_be_cut_short_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Cut:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"begun"
            raise CutShort("by its maker")

        def close(self) -> None:
            pass

    said = answer_to(GET, HttpLimits(body=0), lambda request: Response(200, chunks=Cut()))
    assert said.endswith(b"5\r\nbegun\r\n")
    assert not caplog.records


def test_a_few_requests_at_once_are_all_answered() -> None:
    assert answer_to(GET * 32, HttpLimits(body=0)).count(b"200 OK") == 32


def test_a_flood_of_requests_at_once_is_refused() -> None:
    said = answer_to(GET * 1000, HttpLimits(body=0))
    assert said.count(b"200 OK") == 32
    assert b"400 Bad Request" in said


@pytest.mark.parametrize(("count", "status"), [(100, b"200"), (600, b"431")])
def test_a_header_costs_more_than_its_bytes(count: int, status: bytes) -> None:
    fields = b"".join(b"a%d:\r\n" % i for i in range(count))
    assert answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n", HttpLimits(body=0))[9:12] == status


def test_what_was_refused_is_not_kept() -> None:
    async def work(address: tuple[str, int]) -> None:
        gc.disable()  # memory that only the collector would find counts as kept
        before = tracemalloc.get_traced_memory()[0]
        clients = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * MIB)
            assert (await reader.readuntil(b"\r\n")).split()[1] == b"431"
            clients.append(writer)
        kept = tracemalloc.get_traced_memory()[0] - before
        for writer in clients:
            writer.transport.abort()
        assert kept < MIB, kept

    tracemalloc.start()
    try:
        with_server(work, HttpLimits(body=0))
    finally:
        tracemalloc.stop()
        gc.enable()


BEGUN = b"GET / HTTP/1.1\r\n"
SMALL_FIELDS = b"".join(b"a%d:%d\r\n" % (number, number) for number in range(1000, 1100))
WAITING = {
    "small fields": BEGUN + SMALL_FIELDS,
    "a long field": BEGUN + b"x: " + b"y" * 15_000,
    "a long target": b"GET /" + b"y" * 15_000,
    "a body to come": BEGUN + SMALL_FIELDS + b"Content-Length: 5\r\n\r\n",
    "a small body in part": BEGUN + b"Content-Length: 60000\r\n\r\n" + b"z" * 50_000,
    "another request behind one": GET + BEGUN + b"x: " + b"y" * 15_000,
}


@pytest.mark.parametrize("what", WAITING)
def test_all_that_waits_for_its_end_is_in_the_budget(what: str) -> None:
    budget = Budget(64 * MIB)

    async def work(address: tuple[str, int]) -> None:
        clients = [socket.create_connection(address) for _ in range(100)]
        await asyncio.sleep(0.1)
        before = tracemalloc.get_traced_memory()[0]
        for client in clients:
            client.sendall(WAITING[what])
        await asyncio.sleep(0.1)
        kept = tracemalloc.get_traced_memory()[0] - before
        for client in clients:
            client.close()
        assert MIB < kept < 1.25 * budget.used, (kept, budget.used)

    tracemalloc.start()
    try:
        with_server(work, HttpLimits(body=60_000), budget)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size", "status"), [(1, b"400"), (100, b"200")])
def test_chunks_are_no_crumbs(size: int, status: bytes) -> None:
    chunk = b"%x\r\n" % size + b"x" * size + b"\r\n"
    data = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 5000 + b"0\r\n\r\n"
    assert answer_to(data, HttpLimits(body=MIB))[9:12] == status


def test_who_asks_without_reading_is_ended() -> None:
    body = bytes(256 * 1024)
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def work(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address, limit=1)
        with pytest.raises(ConnectionError):
            for _ in range(400):  # 100 MiB of answers, of which a kernel keeps a few
                writer.write(request)
                await writer.drain()

    with_server(work, HttpLimits(body=MIB, discard=0))


class Endless:
    """A body without end, that counts what it has given."""

    def __init__(self) -> None:
        self.given, self.closed = 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.given += 65_536
            yield bytes(65_536)
            await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True


def test_a_streamed_body_is_made_no_faster_than_it_is_read() -> None:
    body = Endless()

    async def work(address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address, limit=1)
        writer.write(GET * 2)
        assert b"chunked" in await reader.read(4096)
        await asyncio.sleep(0.3)
        held = body.given
        assert held < 32 * MIB  # what kernel and transport keep
        await asyncio.sleep(0.3)
        assert body.given == held and not body.closed
        writer.transport.abort()
        while not body.closed:
            await asyncio.sleep(0.01)

    with_server(work, HttpLimits(body=0), handler=lambda request: Response(200, chunks=body))


def test_a_streamed_body_that_nobody_reads_is_ended() -> None:
    body = Endless()

    async def work(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address, limit=1)
        writer.write(GET)
        while not body.closed:
            await asyncio.sleep(0.01)
        writer.transport.abort()

    limits = HttpLimits(body=0, idle_seconds=0.2)
    with_server(work, limits, handler=lambda request: Response(200, chunks=body))


class Slow:
    """Takes one piece, and no more until it is told to."""

    def __init__(self) -> None:
        self.taken, self.aborted = 0, False
        self.go_on: Callable[[], None] | None = None

    def write(self, data: bytes, go_on: Callable[[], None]) -> bool:
        self.taken, self.go_on = self.taken + len(data), go_on
        return False

    def abort(self) -> None:
        self.aborted = True


def test_a_body_that_is_taken_as_it_comes() -> None:
    sinks: list[Slow] = []

    def streaming(request: Request) -> Slow:
        sinks.append(Slow())
        return sinks[-1]

    async def work(address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + (b"%x\r\n" % MIB + bytes(MIB) + b"\r\n") * 20)
        await asyncio.sleep(0.3)
        (sink,) = sinks
        held = sink.taken
        assert held < 2 * MIB  # a few reads, far from all
        while sink.taken < 20 * MIB:
            assert sink.go_on is not None
            sink.go_on()
            await asyncio.sleep(0.001)
        writer.write(b"0\r\nx-last: word\r\n\r\n")
        sink.go_on()
        assert b"word" in await reader.readuntil(b"word")
        writer.write(head + b"5\r\nhel")
        await asyncio.sleep(0.1)
        writer.transport.abort()
        assert sinks[1].go_on is not None
        sinks[1].go_on()  # who does not read does not notice
        while not sinks[1].aborted:
            await asyncio.sleep(0.01)
        assert not sink.aborted

    def answer(request: Request) -> Response:
        assert request.sink is sinks[0] and request.body == b""
        return Response(200, request.headers["x-last"].encode())

    with_server(work, HttpLimits(body=MIB, request_seconds=0.2), handler=answer, streaming=streaming)


def test_a_flood_leaves_others_their_turn() -> None:
    over = threading.Event()

    def flood(address: tuple[str, int]) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(address) as client:
                client.settimeout(1)
                while not over.is_set():
                    client.sendall(GET * 5000)
                    client.recv(MIB)

    async def work(address: tuple[str, int]) -> None:
        flooders = [threading.Thread(target=flood, args=(address,)) for _ in range(6)]
        for thread in flooders:
            thread.start()
        try:
            reader, writer = await asyncio.open_connection(*address)
            waited = []
            for _ in range(20):
                begun = time.monotonic()
                writer.write(GET)
                await reader.readuntil(b"\r\n\r\n")
                waited.append(time.monotonic() - begun)
            assert sorted(waited)[10] < 0.5
            writer.close()
        finally:
            over.set()
            await asyncio.to_thread(lambda: [thread.join() for thread in flooders])

    with_server(work, HttpLimits(body=0))
