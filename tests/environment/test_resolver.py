"""The resolver inside an environment: what it makes of any message, and what it asks of whom.

Its upstream is a DNS server on a loopback address of the test's own; addresses are opened by the test.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.environment.resolver import LONGEST, SHORTEST, Resolver
from sandboxd.environment.upstream import NoAnswer, Upstream
from sandboxd.errors import StepFailed
from sandboxd.model.egress import HostRule
from sandboxd.model.network import Network
from tests.support.nameserver import NameServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="listens at port 53")

SERVER, SILENT = "127.83.0.1", "127.83.0.2"
HOSTS = (HostRule("*.x.org", 80), HostRule("a.x.org", 443), HostRule("b.org", 80))
NETWORK = Network(hosts=HOSTS, denied_hosts=(HostRule("*.not.x.org", 0), HostRule("b.x.org", 443)))
Opened = list[tuple[tuple[str, ...], tuple[int, ...], int]]


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    made = NameServer(SERVER)
    yield made
    made.close()


@pytest.fixture
def names(server: NameServer) -> NameServer:
    server.records, server.asked = {}, []
    return server


def with_resolver(
    use: Callable[[Resolver], Awaitable[None]], opened: Opened | None = None, error: Exception | None = None
) -> None:
    """Run with a resolver whose sockets nobody uses."""

    async def open_addresses(addresses: Sequence[IPv4Address], ports: Sequence[int], seconds: int) -> None:
        if error is not None:
            raise error
        if opened is not None:
            opened.append((tuple(map(str, addresses)), tuple(ports), seconds))

    async def work() -> None:
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.create_server(("127.0.0.1", 0))
        resolver = Resolver(NETWORK, Upstream((SERVER,)), open_addresses, udp.detach(), tcp.detach())
        try:
            await use(resolver)
        finally:
            resolver.close()

    asyncio.run(work())


async def ask(resolver: Resolver, name: str, kind: str = "A") -> dns.message.Message:
    return dns.message.from_wire(await resolver.answer(dns.message.make_query(name, kind).to_wire()))


def test_any_message_has_an_answer_or_none(names: NameServer) -> None:
    question = dns.message.make_query("a.x.org", "A").to_wire()

    @settings(max_examples=500, deadline=None)
    @given(st.lists(st.binary(max_size=512) | st.builds(_changed, st.just(question), st.data()), max_size=20))
    def run(datagrams: list[bytes]) -> None:
        async def use(resolver: Resolver) -> None:
            for datagram in datagrams:
                answer = await resolver.answer(datagram)
                assert not answer or answer[:2] == datagram[:2]

        with_resolver(use)

    run()


def _changed(data: bytes, draw: st.DataObject) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(0, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    return bytes(changed) + draw.draw(st.binary(max_size=40))


@pytest.mark.parametrize(("ttl", "told"), [(0, SHORTEST), (1, SHORTEST), (60, 60), (2**31 - 1, LONGEST)])
def test_an_address_is_open_at_the_ports_of_its_name_for_as_long_as_it_counts(
    names: NameServer, ttl: int, told: int
) -> None:
    opened: Opened = []
    names.records["a.x.org"] = ["a.x.org 3000 CNAME b.org", f"b.org {ttl} A 8.8.8.8"]

    async def use(resolver: Resolver) -> None:
        answer = await ask(resolver, "A.x.ORG")
        assert answer.answer[0].ttl == told
        assert answer.answer[0].to_text() == f"A.x.ORG. {told} IN A 8.8.8.8"

    with_resolver(use, opened)
    assert opened == [(("8.8.8.8",), (80, 443), told + 1)]
    assert names.asked == ["a.x.org"], "in lower case: letters' case could carry what the function knows"


def test_a_name_that_is_denied_is_asked_of_nobody(names: NameServer) -> None:
    opened: Opened = []
    for name in ("a.not.x.org", "b.x.org"):
        names.records[name] = [f"{name} 60 A 8.8.8.8"]

    async def use(resolver: Resolver) -> None:
        assert (await ask(resolver, "a.not.x.org")).rcode() == dns.rcode.REFUSED
        assert (await ask(resolver, "b.x.org")).answer

    with_resolver(use, opened)
    assert [ports for _, ports, _ in opened] == [(80,)] and names.asked == ["b.x.org"]


def test_what_cannot_be_opened_is_not_told(names: NameServer) -> None:
    names.records["a.x.org"] = ["a.x.org 60 A 8.8.8.8"]

    async def use(resolver: Resolver) -> None:
        answer = await ask(resolver, "a.x.org")
        assert answer.rcode() == dns.rcode.SERVFAIL and not answer.answer

    with_resolver(use, error=StepFailed("open addresses", 28))


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_garbage_from_upstream_is_heard_by_nobody(names_of_module: NameServer, garbage: bytes) -> None:
    names_of_module.records = {"a.x.org": ["a.x.org 60 A 8.8.8.8"]}
    names_of_module.before = lambda question: [garbage, question.id.to_bytes(2) + garbage]

    async def use() -> None:
        found = await Upstream((SERVER,)).ask("a.x.org")
        assert found.addresses == (IPv4Address("8.8.8.8"),)

    asyncio.run(use())
    names_of_module.before = lambda question: []


@pytest.fixture(scope="module")
def names_of_module(server: NameServer) -> NameServer:
    return server


def test_the_next_server_is_asked_where_one_does_not_know(names: NameServer) -> None:
    names.records["a.x.org"] = ["a.x.org 60 A 8.8.8.8"]

    async def use() -> None:
        assert (await Upstream((SILENT, SERVER)).ask("a.x.org")).exists, "nobody listens at the first"
        with pytest.raises(NoAnswer):
            await Upstream((SILENT,)).ask("a.x.org")
        with pytest.raises(NoAnswer):
            await Upstream((), Path("/nonexistent")).ask("a.x.org")

    asyncio.run(use())


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    upstream = Upstream((), file)
    assert upstream.servers() == ()
    file.write_text(
        "# nameserver 1.1.1.1\nsearch x.org\nnameserver 10.0.0.2\nnameserver\nnameserver x\nnameserver ::1 y\n"
    )
    assert upstream.servers() == ("10.0.0.2", "::1")
    new = tmp_path / "new"
    new.write_text("".join(f"nameserver 10.0.0.{number}\n" for number in range(9)))
    new.rename(file)
    assert upstream.servers() == ("10.0.0.0", "10.0.0.1", "10.0.0.2")
    file.unlink()
    assert upstream.servers() == ("10.0.0.0", "10.0.0.1", "10.0.0.2"), "while it is being replaced"
    assert Upstream(("9.9.9.9",), file).servers() == ("9.9.9.9",)
