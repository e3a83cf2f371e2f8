"""The client against servers that mean no good: what it holds and how long it waits is bounded, whatever they send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.model.endpoint import Endpoint
from sandboxd.services.s3 import S3, S3Object
from sandboxd.services.signed import ServiceError, Signed
from sandboxd.services.sqs import Sqs
from sandboxd.services.web import Answer, Web, trust
from tests.support.certificates import self_signed

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ask = Callable[[int], Coroutine[Any, Any, Any]]
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"


def meet(serve: Serve, ask: Ask, context: ssl.SSLContext | None = None) -> Any:
    """What comes of asking the server at a port."""

    async def main() -> Any:
        tasks = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await reader.readuntil(b"\r\n\r\n")
                await serve(reader, writer)
            writer.transport.abort()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        try:
            async with asyncio.timeout(60):
                return await ask(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    return asyncio.run(main())


def saying(*pieces: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return serve


def forever(head: bytes, piece: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0 if len(piece) > 1 else 0.01)

    return serve


def whole(limit: int = 1000, seconds: float = 30, tls: bool = False, context: ssl.SSLContext | None = None) -> Ask:
    async def ask(port: int) -> tuple[int, bytes]:
        web = Web(context, seconds)
        async with web.ask(Endpoint("localhost", port, "/", tls), "GET", "/", {}) as answer:
            return answer.status, await answer.body(limit)

    return ask


def neighbours(port: int, seconds: float = 30) -> Signed:
    return Signed(Web(None, seconds), Endpoint("127.0.0.1", port, "/"), "id", "secret")


async def fetch(port: int) -> bytes:
    async with S3(neighbours(port), "us-east-1").get(S3Object("bucket", "key")) as answer:
        return b"".join([piece async for piece in answer.pieces()])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 500 No\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
def test_answers(answer: bytes) -> None:
    assert meet(saying(answer), whole()) == (200, b"hello")
    assert meet(saying(*(answer[i : i + 1] for i in range(len(answer)))), whole()) == (200, b"hello")


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (saying(b""), "no HTTP answer"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Le"), "no HTTP answer"),
        (saying(b"220 smtp\r\n"), "is not HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "is not HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello"), "is not HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"), "breaks off"),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"), "breaks off"),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "is not HTTP"),
        (saying(b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "is not HTTP"),
        (forever(b"HTTP/1.1 200 OK\r\n", b"a: " + b"b" * 5000 + b"\r\n"), "no HTTP answer"),
        (forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 60_000), "larger than 1000 bytes"),
        (forever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n"), "larger than 1000 bytes"),
    ],
)
def test_what_is_no_answer(serve: Serve, reason: str) -> None:
    with pytest.raises(OSError, match=reason):
        meet(serve, whole())


PARTS = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 Go\r\n", b"HTTP/1.0 404 ", b"\r\n", b"\r\n\r\n", b"0\r\n", b"\0", b":",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: x\r\n", b"Connection: upgrade, close\r\n",
    b"5\r\nhello\r\n",
])  # fmt: skip


@given(st.lists(PARTS | st.binary(max_size=20), max_size=12))
def test_whatever_is_said_is_an_answer_or_an_error(pieces: list[bytes]) -> None:
    async def main() -> bytes:
        reader = asyncio.StreamReader()
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        answer = Answer(reader, 1)
        await answer.read_head()
        return await answer.body(1000)

    with contextlib.suppress(OSError):
        assert isinstance(asyncio.run(main()), bytes)


def test_an_endless_body_is_not_held(tmp_path: Path) -> None:
    async def ask(port: int) -> int:
        async with Web().ask(Endpoint("127.0.0.1", port, "/"), "GET", "/", {}) as answer:
            size = 0
            tracemalloc.start()
            async for piece in answer.pieces():
                size += len(piece)
                if size > 20_000_000:
                    break
            return tracemalloc.get_traced_memory()[1]

    try:
        assert meet(forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000), ask) < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"])
def test_silence_ends(head: bytes) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError, match=r"silent for 0\.3 s"):
        meet(silent, whole(seconds=0.3))


def test_a_head_that_drips_ends() -> None:
    with pytest.raises(TimeoutError):
        meet(forever(b"HTTP/1.1 200 OK\r\nA: ", b"x"), whole(seconds=0.3))


def test_no_redirect_is_followed_and_no_proxy_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    moved = b"HTTP/1.1 307 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ServiceError) as raised:
        meet(saying(moved), fetch)
    assert (raised.value.code, raised.value.status) == ("Http307", 307)


def test_an_error_of_s3_is_read_as_text_and_no_further() -> None:
    body = (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "boom">]><Error><Code>No&Such</Code><Code>NoSuchKey</Code>'
        b"<Message>it &lt;is&gt; &a; \x1b[2J gone\r\n</Message></Error>"
    )
    head = f"HTTP/1.1 404 No\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with pytest.raises(ServiceError) as raised:
        meet(saying(head + body), fetch)
    assert (raised.value.code, raised.value.message) == ("NoSuchKey", "it <is> &a; ?[2J gone??")
    with pytest.raises(OSError, match="larger than 65536 bytes"):
        meet(forever(b"HTTP/1.1 404 No\r\n\r\n", b"<Code>" * 1000), fetch)


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"no json", b"[" * 200_000, b'{"QueueUrl": 5}', b'{"QueueUrl": "%b"}' % (b"x" * 5000), b"{}", b"\xff",
    ],
)  # fmt: skip
def test_an_answer_that_is_none_of_sqs(body: bytes) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with pytest.raises(OSError):
        meet(saying(answer), lambda port: Sqs(neighbours(port)).receive(QUEUE))


@pytest.mark.parametrize("messages", [{}, "text", [1], [{"MessageId": "1"}], [{"MessageId": "1", "Body": "b"}] * 11])
def test_messages_that_are_none(messages: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"QueueUrl": "http://169.254.169.254/000000000000/q", "Messages": messages or [{}]}).encode()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    with pytest.raises(OSError, match="none of SQS's"):
        meet(serve, lambda port: Sqs(neighbours(port)).receive(QUEUE))


def test_certificates(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    answer = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert meet(answer, whole(tls=True, context=trust(certificate)), server) == (200, b"ok")
    stranger, _ = self_signed(tmp_path, "stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(answer, whole(tls=True, context=trust(stranger)), server)
    with pytest.raises(OSError, match="nothing to check"):
        meet(answer, whole(tls=True), server)

    async def by_address(port: int) -> None:
        endpoint = Endpoint("127.0.0.1", port, "/", True)
        async with Web(trust(certificate)).ask(endpoint, "GET", "/", {}):
            raise AssertionError("the certificate is localhost's")

    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        meet(answer, by_address, server)
    with pytest.raises(OSError):
        trust(tmp_path / "none.pem")
