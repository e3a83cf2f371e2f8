"""What the host's own resolvers say of a name: asked by UDP, one question at a time.

Room: service. May: ask the resolvers that the configuration or /etc/resolv.conf names. May not: believe what comes from
elsewhere, or to another question.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype

from sandboxd.errors import SandboxdError

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_SERVERS = 3  # as many as libc asks
_PORT = 53
_SECONDS = 2.0  # for each server
_PAYLOAD = 1232  # what passes every path unfragmented; it holds some 70 addresses, and nobody is passed more than a few
_SPENT = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)  # whatever else a server says, the next one may know better

# The service's user may not be able to read what is imported later; a type without a class of its own is opaque bytes.
dns.rdata.load_all_types(disable_dynamic_load=True)  # type: ignore[no-untyped-call]
_BACKEND = dns.asyncbackend.get_backend("asyncio")


class NoAnswer(SandboxdError):
    """No resolver knew, or none was there."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a name leads to. `ttl` in seconds, of the shortest record on the way; no addresses: it has none."""

    exists: bool
    addresses: tuple[IPv4Address, ...]
    ttl: int


class Upstream:
    """The resolvers of this host; those of the file where none are configured, as it reads now."""

    def __init__(self, configured: tuple[str, ...], file: Path = RESOLV_CONF) -> None:
        self._configured, self._file = configured, file
        self._seen: tuple[int, int] | None = None
        self._named: tuple[str, ...] = ()

    def servers(self) -> tuple[str, ...]:
        """Their addresses, in the order in which they are asked."""
        if self._configured:
            return self._configured
        with contextlib.suppress(OSError):
            status = self._file.stat()
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                self._named = _nameservers(self._file.read_text(errors="replace"))
                self._seen = status.st_ino, status.st_mtime_ns
        return self._named

    async def ask(self, name: str) -> Found:
        """The IPv4 addresses of a name. Raises NoAnswer."""
        for server in self.servers():
            with contextlib.suppress(OSError, NoAnswer, dns.exception.DNSException):
                answer = await _ask(server, name)
                if answer.rcode() in _SPENT:
                    return _read(answer)
        raise NoAnswer(name)


async def _ask(server: str, name: str) -> dns.message.Message:
    """One question to one server: a random id and port, and nothing is heard but a server's word on this question."""
    question = dns.message.make_query(name, dns.rdatatype.A, use_edns=0, payload=_PAYLOAD)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    # A connected socket hears no other address, and hears at once where no server listens.
    sock = await _BACKEND.make_socket(family, socket.SOCK_DGRAM, 0, None, (server, _PORT))  # type: ignore[no-untyped-call]
    async with sock:
        return await dns.asyncquery.udp(question, server, _SECONDS, sock=sock, ignore_errors=True)


def _read(answer: dns.message.Message) -> Found:
    if not isinstance(answer, dns.message.QueryMessage):
        raise NoAnswer("not an answer")
    chain = answer.resolve_chaining()
    addresses = tuple(IPv4Address(record.address) for record in chain.answer or ())
    return Found(answer.rcode() == dns.rcode.NOERROR, addresses, chain.minimum_ttl)


def _nameservers(text: str) -> tuple[str, ...]:
    found = []
    for words in map(str.split, text.splitlines()):
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(str(ip_address(words[1])))
    return tuple(found[:MAX_SERVERS])
