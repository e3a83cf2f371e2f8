"""The resolver inside an environment: answers for the hosts that its policy names, and opens what it answers.

Room: service. May: serve the two sockets that the builder passed out, whose descriptors are the environment's identity;
ask upstream; ask the builder to open addresses. May not: tell of a name that the policy does not name, nor wait for a
function's convenience: it is a hostile client, and is read only as fast as it may ask.

An address is open before the answer that tells it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from ipaddress import IPv4Address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from sandboxd.environment.upstream import Upstream
from sandboxd.errors import SandboxdError
from sandboxd.model.egress import is_closed, is_host
from sandboxd.model.network import Network
from sandboxd.privsep.messages import MAX_ADDRESSES

SHORTEST, LONGEST = 5, 300  # seconds that an answer counts, whatever its records say
QUESTIONS_PER_SECOND, BURST = 20.0, 100
_IN_FLIGHT = 8
_MAX_QUESTION = 512  # bytes
_QUESTIONS_PER_CONNECTION = 4  # libc asks for A and AAAA by one
_CONNECTION_SECONDS = 15.0
_GRACE = 1  # second: who uses an answer in its last moment still has to connect

OpenAddresses = Callable[[Sequence[IPv4Address], Sequence[int], int], Awaitable[None]]


class Resolver:
    """One environment's. `open_addresses` opens addresses at ports for some seconds, and raises where it does not."""

    def __init__(self, network: Network, upstream: Upstream, open_addresses: OpenAddresses, udp: int, tcp: int) -> None:
        """Serve both sockets, owned by the resolver from now on."""
        self._network, self._upstream, self._open_addresses = network, upstream, open_addresses
        self._udp, self._tcp = socket.socket(fileno=udp), socket.socket(fileno=tcp)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._allowance, self._counted_at = float(BURST), time.monotonic()
        self._reading = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._read_on()

    def close(self) -> None:
        """Answer nothing more, and give the sockets back."""
        self._closed = True
        self._read_on()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        for sock in (self._udp, self._tcp):
            sock.close()

    # reading: what is asked too fast waits in the environment's own sockets, or is dropped there

    def _read_on(self) -> None:
        """Read where another question may be taken; else see that it is looked at again."""
        now = time.monotonic()
        self._allowance = min(float(BURST), self._allowance + (now - self._counted_at) * QUESTIONS_PER_SECOND)
        self._counted_at = now
        reading = not self._closed and self._allowance >= 1 and len(self._tasks) < _IN_FLIGHT
        if reading != self._reading:
            self._reading = reading
            for sock, reader in ((self._udp, self._on_datagram), (self._tcp, self._on_connection)):
                if reading:
                    self._loop.add_reader(sock.fileno(), reader)
                else:
                    self._loop.remove_reader(sock.fileno())
        if self._allowance < 1 and self._timer is None and not self._closed:
            self._timer = self._loop.call_later(1 / QUESTIONS_PER_SECOND, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._read_on()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._read_on()

    def _on_datagram(self) -> None:
        self._allowance -= 1  # in any case: who provokes errors is not to be read without end either
        with contextlib.suppress(OSError):
            question, peer = self._udp.recvfrom(_MAX_QUESTION)
            self._begin(self._serve_datagram(question, peer))
        self._read_on()

    def _on_connection(self) -> None:
        self._allowance -= 1
        with contextlib.suppress(OSError):
            connection, _ = self._tcp.accept()
            connection.setblocking(False)
            self._begin(self._serve_connection(connection))
        self._read_on()

    async def _serve_datagram(self, question: bytes, peer: Any) -> None:
        answer = await self.answer(question)
        if answer:
            with contextlib.suppress(OSError):  # it has gone, or reads nothing
                self._udp.sendto(answer, peer)

    async def _serve_connection(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_CONNECTION_SECONDS):
                receive = functools.partial(_receive, self._loop, connection)
                for _ in range(_QUESTIONS_PER_CONNECTION):
                    size = int.from_bytes(await receive(2))
                    answer = await self.answer(await receive(size)) if size <= _MAX_QUESTION else b""
                    if not answer:
                        return
                    await self._loop.sock_sendall(connection, len(answer).to_bytes(2) + answer)

    # answering

    async def answer(self, question: bytes) -> bytes:
        """The answer to one message; nothing where it is no question."""
        try:
            message = dns.message.from_wire(question)
            answer = dns.message.make_response(message, recursion_available=True)
        except (dns.exception.DNSException, ValueError):
            return b""
        answer.set_rcode(await self._fill(message, answer))
        return answer.to_wire()

    async def _fill(self, question: dns.message.Message, answer: dns.message.Message) -> dns.rcode.Rcode:
        if question.opcode() != dns.opcode.QUERY or len(question.question) != 1:
            return dns.rcode.NOTIMP
        asked = question.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        ports = self._network.ports_of(name) if is_host(name) else []
        if not ports or asked.rdclass != dns.rdataclass.IN:
            return dns.rcode.REFUSED
        if asked.rdtype == dns.rdatatype.AAAA:
            return dns.rcode.NOERROR  # there is no way out by IPv6
        if asked.rdtype != dns.rdatatype.A:
            return dns.rcode.NOTIMP
        try:
            found = await self._upstream.ask(name)
            addresses = found.addresses[:MAX_ADDRESSES]
            if any(map(is_closed, found.addresses)):
                return dns.rcode.REFUSED  # the whole of it: who mixes them means to rebind
            ttl = min(max(found.ttl, SHORTEST), LONGEST)
            if addresses:
                await self._open_addresses(addresses, ports, ttl + _GRACE)
                answer.answer.append(dns.rrset.from_text_list(asked.name, ttl, "IN", "A", [*map(str, addresses)]))
        except SandboxdError:  # NoAnswer, or the builder opens no more
            return dns.rcode.SERVFAIL
        return dns.rcode.NOERROR if found.exists else dns.rcode.NXDOMAIN


async def _receive(loop: asyncio.AbstractEventLoop, connection: socket.socket, size: int) -> bytes:
    """So many bytes; EOFError where the peer ends before."""
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(connection, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
