"""A small HTTP client that trusts nobody it talks to: what comes is bounded, and no redirect is followed.

Room: service. May: connect to endpoints that the configuration names, by IP, ask the host's resolvers for names.
May not: read files once privilege is given up (certificates are read before), heed proxies of the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from collections.abc import AsyncIterator, Mapping
from encodings import idna  # noqa: F401  # a host's name is encoded by it: nothing can be imported later
from pathlib import Path

import httptools

from sandboxd.model.endpoint import Endpoint

_HEAD_BYTES = 64 * 1024
_PIECE = 64 * 1024
SECONDS = 30.0  # that an endpoint may be silent
# Of Debian, of Fedora, of openSUSE, of Alpine.
_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """The block takes no longer than this. Raises OSError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"the endpoint was silent for {seconds:g} s") from None


class Answer:
    """An endpoint's answer, head first; the body is read by whoever wants it."""

    def __init__(self, reader: asyncio.StreamReader, seconds: float) -> None:
        self._reader, self._seconds = reader, seconds
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._head = self._complete = False
        self.headers: dict[str, str] = {}
        self.status = 0

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self._head:
            self._head, self.status = True, self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        if not self._complete:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self._complete = True

    async def read_head(self) -> None:
        """Read until status and headers are known. Raises OSError."""
        size = 0
        while not self._head:
            size += await self._feed()
            if size > _HEAD_BYTES + _PIECE:
                raise OSError(errno.EPROTO, "the endpoint sent no HTTP answer")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces of 64 KiB at most. Raises OSError where it breaks off."""
        while True:
            for piece in self._pieces:
                yield piece
            self._pieces.clear()
            if self._complete:
                return
            async with within(self._seconds):
                await self._feed()

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises OSError where it is larger than `limit` bytes."""
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise OSError(errno.EMSGSIZE, f"the endpoint's answer is larger than {limit} bytes")
        return bytes(found)

    async def _feed(self) -> int:
        data = await self._reader.read(_PIECE)
        if not data:
            if not self._head:
                raise OSError(errno.EPROTO, "the endpoint sent no HTTP answer")
            if "content-length" in self.headers or "transfer-encoding" in self.headers:
                raise OSError(errno.EPROTO, "the endpoint's answer breaks off")
            self._complete = True  # a body of no stated length ends with the connection
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:  # else it is what came behind the answer
                raise OSError(errno.EPROTO, f"the endpoint's answer is not HTTP: {error}") from None
        except httptools.HttpParserUpgrade:
            raise OSError(errno.EPROTO, "the endpoint's answer is not HTTP: it goes over to another protocol") from None
        return len(data)


class Web:
    """Asks endpoints, which may be silent for `seconds`. `trust` checks the certificates of those that speak TLS."""

    def __init__(self, trust: ssl.SSLContext | None = None, seconds: float = SECONDS) -> None:
        self._trust, self.seconds = trust, seconds

    @contextlib.asynccontextmanager
    async def ask(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        seconds: float | None = None,
    ) -> AsyncIterator[Answer]:
        """An answer whose head has come within `seconds`; each further piece may take as long. Raises OSError.

        The connection lives as long as the block. `target` and `headers` are the caller's to keep free of line breaks.
        """
        seconds = seconds or self.seconds
        if endpoint.tls and self._trust is None:
            raise OSError(errno.EPROTO, "there is nothing to check certificates by")
        async with within(seconds):
            reader, writer = await asyncio.open_connection(
                endpoint.host,
                endpoint.port,
                ssl=self._trust if endpoint.tls else None,
                server_hostname=endpoint.host if endpoint.tls else None,
            )
        try:
            standing = {"Host": endpoint.authority, "Content-Length": str(len(body)), "Connection": "close"}
            lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in (standing | dict(headers)).items())]
            answer = Answer(reader, seconds)
            async with within(seconds):
                writer.write("\r\n".join((*lines, "", "")).encode("latin-1") + body)
                await writer.drain()
                await answer.read_head()
            yield answer
        finally:
            writer.transport.abort()


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """What certificates are checked by: those in a file, or the host's own. Raises OSError.

    They are in memory when this returns: the host's directory of them would be read when one is met.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    path = ca_file or next((bundle for bundle in _BUNDLES if bundle.is_file()), None)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, "no certificates of this host were found: name a file of them as ca_file")
    context.load_verify_locations(path)
    return context
