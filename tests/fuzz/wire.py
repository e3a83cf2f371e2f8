"""Requests as bytes, made up around valid ones, and what comes back of them."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from hypothesis import strategies as st

NAMES = (b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Expect", b"Content-Type", b"Upgrade")
VALUES = (
    b"", b" ", b"0", b"-1", b"+5", b"5, 5", b"99999999999999999999", b"0x10", b"\xb2", b"chunked", b"identity, chunked",
    b"chunked, identity", b"xchunked", b"close", b"keep-alive", b"upgrade", b"100-continue", b"h2c", b"a\x00b",
    b"a\x0bb", b"\xff\xfe", b"a\r b", b"a\n b", b"x" * 9000, b"text/plain\r\n folded: yes", b"a\r\nInjected: 1",
)  # fmt: skip
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%", b"%00", b"%2f", b"%2e%2e/", b"%c0%af", b"%ff", b"?", b"#",
    b"//", b"../", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/9.9", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80", b"A" * 5000,
    b"{", b"[" * 3000, b'"', b"1e999", b"NaN", b"9" * 5000, b"\\ud800", b"\\u0000",
)  # fmt: skip
METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get", b"")


@dataclass(frozen=True)
class Wire:
    """One request, not yet bytes."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    framing: str = "length"  # or "chunked", "none", "both", "short", "long", "bare"

    def encode(self) -> bytes:
        """Its bytes: sound HTTP unless `framing` says otherwise."""
        end = b"\n" if self.framing == "bare" else b"\r\n"
        headers = [(b"Host", b"localhost"), *self.headers]
        body = self.body
        length = {"short": len(body) // 2, "long": len(body) + 10}.get(self.framing, len(body))
        if self.framing in ("chunked", "both"):
            headers.append((b"Transfer-Encoding", b"chunked"))
            halves = [half for half in (body[: len(body) // 2], body[len(body) // 2 :]) if half]
            body = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
        if self.framing not in ("chunked", "none"):
            headers.append((b"Content-Length", b"%d" % length))
        lines = [b"%s %s HTTP/1.1" % (self.method, self.target), *(b"%s: %s" % header for header in headers)]
        return end.join([*lines, b"", b""]) + body


FRAMINGS = st.sampled_from(["length"] * 6 + ["chunked", "none", "both", "short", "long", "bare"])
EXTRA_HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=2).map(tuple)


@st.composite
def scrambled(draw: st.DrawFn, sound: bytes) -> bytes:
    """The bytes of a request with pieces put in, taken out, doubled or changed."""
    data = bytearray(sound)
    for at, kind in draw(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 99)), min_size=1, max_size=3)):
        place = at % (len(data) + 1)
        if kind < len(PIECES):
            data[place:place] = PIECES[kind]
        elif kind < 60:
            del data[place : place + kind - 35]
        elif kind < 75:
            data[place:place] = data[place : place + 2 * kind]
        else:
            data[place : place + 1] = bytes((at * 7 % 256,))
    return bytes(data)


@dataclass
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class NotHttp(AssertionError):
    """What came back is no sequence of sound answers."""


def split_answers(data: bytes) -> list[Answer]:
    """The answers in what a connection gave until its end. (HEAD is asked elsewhere: its answers tell by no bytes.)"""
    answers = []
    while data:
        head, found, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if not found or len(words) < 3 or words[0] != "HTTP/1.1" or "\n" in head.decode("latin-1").replace("\r\n", ""):
            raise NotHttp(f"{head[:200]!r}")
        headers = dict(line.split(": ", 1) for line in lines)
        answer = Answer(int(words[1]), {name.lower(): value for name, value in headers.items()})
        if answer.status == 100:
            continue
        if answer.headers.get("transfer-encoding") == "chunked":
            answer.body, data = _unchunked(data)
            answers.append(answer)
            continue
        length = 0 if answer.status == 204 else int(answer.headers["content-length"])
        answer.body, data = data[:length], data[length:]
        if len(answer.body) != length:
            raise NotHttp(f"{length} bytes promised, {len(answer.body)} came")
        answers.append(answer)
    return answers


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    """A chunked body, and what comes behind it."""
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        count = int(size, 16) if found else -1
        if count < 0 or data[count : count + 2] != b"\r\n":
            raise NotHttp(f"chunk {size[:40]!r} is not whole")
        body, data = body + data[:count], data[count + 2 :]
        if not count:
            return body, data


def _is_unchunked(data: bytes) -> bool:
    try:
        _unchunked(data)
    except NotHttp:
        return False
    return True


class Line:
    """A connection that is kept as long as the other end keeps it. `connect` makes a socket."""

    def __init__(self, connect) -> None:  # type: ignore[no-untyped-def]
        self._connect = connect
        self._sock: socket.socket | None = None

    def ask(self, data: bytes) -> Answer:
        """The one answer to one sound request, on the connection of the request before where that still stands."""
        for fresh in (self._sock is None, True):
            if fresh:
                self.close()
                self._sock = self._connect()
            assert self._sock is not None
            try:
                self._sock.sendall(data)
                received = self._until_whole()
            except (BrokenPipeError, ConnectionResetError):
                received = b""
            if received:
                answer = split_answers(received)[0]
                if answer.headers.get("connection") == "close":
                    self.close()
                return answer
        raise NotHttp("closed without an answer")

    def _until_whole(self) -> bytes:
        assert self._sock is not None
        data = b""
        while True:
            while data.startswith(b"HTTP/1.1 100 ") and b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
            if b"\r\n\r\n" in data:
                top, _, rest = data.partition(b"\r\n\r\n")
                lines = top.lower().split(b"\r\n")
                length = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
                if _is_unchunked(rest) if b"transfer-encoding: chunked" in lines else len(rest) >= length:
                    return data
            more = self._sock.recv(1 << 20)
            if not more:
                return data
            data += more

    def last(self, data: bytes) -> bytes:
        """All that comes back of bytes that may be anything, after which nothing more is sent; in bounded time."""
        self.close()
        received = b""
        with self._connect() as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while more := sock.recv(1 << 20):
                    received += more
            except (BrokenPipeError, ConnectionResetError):
                pass
        return received

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
