"""Egress by host name: what a name leads to opens for its time, and no name leads to what is closed.

The daemon and its DNS server run in a World: network namespaces of the test's own.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rcode
import pytest

from sandboxd.environment.resolver import BURST, QUESTIONS_PER_SECOND, SHORTEST
from tests.support import packages
from tests.support.nameserver import NameServer
from tests.support.network import HOST_PUBLIC, PUBLIC, NetworkedDaemon, World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

HELPERS = """
import errno, socket, time

def addresses(name):
    try:
        return sorted({info[4][0] for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return error.strerror

def connect(address, port):
    try:
        with socket.create_connection((address, port), 2) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect((address, port))
        try:
            sock.send(b"x")
            return sock.recv(100).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))

def ask(packets, count):
    answers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.53", 53))
        sock.settimeout(10)
        for packet in packets:
            sock.send(bytes.fromhex(packet))
        while len(answers) < count:
            answers.append(sock.recv(4096).hex())
    return answers
"""


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[NameServer]:
    with world.outside.entered():
        made = NameServer(PUBLIC[0])
    yield made
    made.close()


@pytest.fixture
def names(server: NameServer, world: World) -> NameServer:
    """The DNS server, which knows no name yet."""
    server.records, server.asked, server.before, server.silent = {}, [], lambda question: [], False
    world.listeners.heard.clear()
    return server


@pytest.fixture(scope="module")
def daemon(world: World, server: NameServer) -> Iterator[NetworkedDaemon]:
    """One whose host's /etc/resolv.conf names the DNS server."""
    made = NetworkedDaemon(world)
    file = made.base / "resolv.conf"
    file.write_text(f"nameserver {PUBLIC[0]}\n")
    made.under = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(file)]
    with made:
        made.deploy(packages.load("evaluate"), Timeout=60)
        yield made
        assert "Traceback" not in made.log(), made.log()


def run(daemon: NetworkedDaemon, code: str, **event: Any) -> Any:
    """What `result` is after the code has run in the function."""
    return daemon.call("evaluate", {"code": HELPERS + code, **event})


def test_a_name_opens_what_it_leads_to_and_nothing_else(
    world: World, daemon: NetworkedDaemon, names: NameServer
) -> None:
    names.records["api.example.org"] = ["api.example.org 60 A 203.0.113.6"]
    names.records["a.b.wild.org"] = ["a.b.wild.org 60 CNAME edge.org", "edge.org 60 A 8.8.8.8"]
    daemon.permit("evaluate", "api.example.org:80", "*.wild.org:81")
    result = run(
        daemon,
        """
before = connect("203.0.113.6", 80)
found = addresses("API.example.org"), addresses("a.b.wild.org")
result = [before, found, [connect(a, p) for a in ("203.0.113.6", "8.8.8.8", "203.0.113.5") for p in (80, 81)],
          datagram("203.0.113.6", 80), datagram("203.0.113.6", 81)]
""",
    )
    no = "EHOSTUNREACH"
    assert result == [
        no, [["203.0.113.6"], ["8.8.8.8"]],
        ["203.0.113.6:80 to 203.0.113.1", no, no, "8.8.8.8:81 to 203.0.113.1", no, no],
        "203.0.113.6:80 to 203.0.113.1", no,
    ]  # fmt: skip
    assert names.asked == ["api.example.org", "a.b.wild.org"]


def wire(name: str, kind: str = "A", **options: Any) -> str:
    return dns.message.make_query(name, kind, **options).to_wire().hex()


def rcodes(answers: list[str]) -> list[str]:
    messages = sorted((dns.message.from_wire(bytes.fromhex(answer)) for answer in answers), key=lambda m: m.id)
    return [dns.rcode.to_text(message.rcode()) + str(len(message.answer)) for message in messages]


def test_only_addresses_of_permitted_names_are_told(daemon: NetworkedDaemon, names: NameServer) -> None:
    names.records["api.example.org"] = ["api.example.org 60 A 203.0.113.6"]
    daemon.permit("evaluate", "api.example.org:80", "*.wild.org:81")
    questions = {
        wire("api.example.org", id=1): "NOERROR1",
        wire("api.example.org", "AAAA", id=2): "NOERROR0",
        wire("api.example.org", "TXT", id=3): "NOTIMP0",
        wire("api.example.org", "ANY", id=4): "NOTIMP0",
        wire("api.example.org", rdclass="CH", id=5): "REFUSED0",
        wire("secret.api.example.org", id=6): "REFUSED0",
        wire("example.org", id=7): "REFUSED0",
        wire("wild.org", id=8): "REFUSED0",
        wire(r"secret\\.wild.org", id=9): "REFUSED0",
        wire("nowhere.wild.org", id=10): "NXDOMAIN0",
        wire("secret.org", "AAAA", id=11): "REFUSED0",
        wire("api.example.org", use_edns=True, payload=4096, id=12): "NOERROR1",
    }
    garbage = ["", "00", "ff" * 512, "00" * 12, wire("a.wild.org")[:-6], names_as_answer()]
    code = "result = ask(event['packets'], event['count'])"
    answers = run(daemon, code, packets=[*garbage, *questions], count=1 + len(questions))
    assert rcodes(answers) == ["NOTIMP0", *questions.values()], "of the garbage one is a question, with no name"
    assert sorted(names.asked) == ["api.example.org", "api.example.org", "nowhere.wild.org"]


def names_as_answer() -> str:
    question = dns.message.make_query("a.wild.org", "A")
    return dns.message.make_response(question).to_wire().hex()


def test_the_resolver_by_tcp(daemon: NetworkedDaemon, names: NameServer) -> None:
    names.records["api.example.org"] = [f"api.example.org 60 A 8.8.4.{n}" for n in range(30)]
    daemon.permit("evaluate", "api.example.org:80")
    code = """
def conversation(data):
    with socket.create_connection(("127.0.0.53", 53)) as connection:
        connection.sendall(bytes.fromhex(data))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(4096):
            answer += more
    return answer.hex()
idle = [socket.create_connection(("127.0.0.53", 53)) for _ in range(6)]
result = [conversation(data) for data in event["conversations"]]
"""
    question = bytes.fromhex(wire("api.example.org"))
    framed = (len(question).to_bytes(2) + question).hex()
    answers = run(daemon, code, conversations=[framed, framed * 3, "ffff", "0000", "0040" + "00" * 10, ""])
    assert [len(answer) > 0 for answer in answers] == [True, True, False, False, False, False]
    message = dns.message.from_wire(bytes.fromhex(answers[0])[2:])
    assert len(message.answer[0]) == 12, "as many as fit into a datagram, whatever the way"
    assert len(answers[1]) == 3 * len(answers[0])


LEADS_NOWHERE = {
    "private": ["x.org 60 A 10.20.0.5"],
    "metadata": ["x.org 60 A 169.254.169.254"],
    "metadata of Azure": ["x.org 60 A 168.63.129.16"],
    "shared": ["x.org 60 A 100.100.100.200"],
    "loopback": ["x.org 60 A 127.0.0.1"],
    "this network": ["x.org 60 A 0.0.0.0"],
    "multicast": ["x.org 60 A 224.0.0.1"],
    "the router": ["x.org 60 A 10.210.0.2"],
    "mixed": ["x.org 60 A 203.0.113.6", "x.org 60 A 192.168.77.5"],
    "behind an alias": ["x.org 60 CNAME y.org", "y.org 60 A 10.20.0.5"],
    "alias in a circle": ["x.org 60 CNAME y.org", "y.org 60 CNAME x.org"],
    "no address": ["x.org 60 CNAME y.org"],
    "somebody else's": ["z.org 60 A 203.0.113.6"],
}


def test_a_name_that_leads_to_what_is_closed_opens_nothing(
    world: World, daemon: NetworkedDaemon, names: NameServer
) -> None:
    daemon.permit("evaluate", "x.org:80")
    code = """
found = addresses("x.org")
result = [found, [connect(address, 80) for address in event["addresses"]]]
"""
    for about, records in LEADS_NOWHERE.items():
        names.records["x.org"] = records
        led = [record.split()[3] for record in records if " A " in record]
        found, reached = run(daemon, code, addresses=led)
        assert isinstance(found, str), (about, found)
        assert not [answer for answer in reached if " to " in answer], about
        assert "opened" not in {row.split()[0] for row in daemon.permissions()}, about
    assert not world.listeners.heard


def test_a_name_that_changes_its_mind_opens_nothing_more(
    world: World, daemon: NetworkedDaemon, names: NameServer
) -> None:
    names.records["x.org"] = [["x.org 1 A 203.0.113.6"], ["x.org 1 A 10.20.0.5"], [f"x.org 1 A {HOST_PUBLIC}"]]
    daemon.permit("evaluate", "x.org:80")
    code = """
first = addresses("x.org"), connect("203.0.113.6", 80)
result = [first, [(addresses("x.org"), [connect(address, 80) for address in event["addresses"]]) for _ in range(2)]]
"""
    first, later = run(daemon, code, addresses=["10.20.0.5", HOST_PUBLIC])
    assert first == [["203.0.113.6"], "203.0.113.6:80 to 203.0.113.1"]
    assert [reached for _, reached in later] == [["EHOSTUNREACH"] * 2] * 2, (
        "the host's own address is closed by the router"
    )
    assert isinstance(later[0][0], str) and later[1][0] == [HOST_PUBLIC]
    assert set(world.listeners.heard) == {("tcp", "203.0.113.6", 80)}


def test_an_address_closes_with_its_answers_time_and_what_is_under_way_goes_on(
    world: World, daemon: NetworkedDaemon, names: NameServer
) -> None:
    names.records["x.org"] = ["x.org 1 A 203.0.113.6"]
    daemon.permit("evaluate", "x.org:7")
    with world.outside.entered():
        listening = socket.create_server(("203.0.113.6", 7))

    def echo() -> None:
        with listening, listening.accept()[0] as connection:
            while data := connection.recv(100):
                connection.sendall(data)

    threading.Thread(target=echo).start()
    code = """
addresses("x.org")
open_since = time.monotonic()
with socket.create_connection(("203.0.113.6", 7), 2) as flow:
    flow.settimeout(2)
    refused = ""
    while not refused and time.monotonic() < open_since + 20:
        time.sleep(0.25)
        try:
            socket.create_connection(("203.0.113.6", 7), 2).close()
        except OSError as error:
            refused = errno.errorcode[error.errno]
    seconds = time.monotonic() - open_since
    flow.sendall(b"still there")
    result = [refused, seconds, flow.recv(100).decode()]
"""
    refused, seconds, under_way = run(daemon, code)
    assert (refused, under_way) == ("EHOSTUNREACH", "still there")
    assert seconds > SHORTEST - 1, "not before its time"
    assert "opened" not in {row.split()[0] for row in daemon.permissions()}


def test_an_answer_to_another_question_is_none(daemon: NetworkedDaemon, names: NameServer) -> None:
    names.records["x.org"] = ["x.org 60 A 203.0.113.6"]
    evil = ["x.org 60 A 8.8.8.8"]

    def spoofed(question: dns.message.Message) -> list[bytes]:
        wrong_id = names.answer(question, evil)
        wrong_id.id ^= 1
        other = dns.message.make_query("y.org", "A", id=question.id)
        no_answer = dns.message.make_query("x.org", "A", id=question.id)
        return [wrong_id.to_wire(), names.answer(other, evil).to_wire(), no_answer.to_wire(), b"", b"\xff" * 40]

    names.before = spoofed
    daemon.permit("evaluate", "x.org:80")
    found, reached = run(daemon, "result = addresses('x.org'), connect('8.8.8.8', 80)")
    assert (found, reached) == (["203.0.113.6"], "EHOSTUNREACH")


def test_a_flood_of_questions_is_read_as_fast_as_one_may_ask(daemon: NetworkedDaemon, names: NameServer) -> None:
    names.records["x.org"] = ["x.org 60 A 203.0.113.6"]
    daemon.permit("evaluate", "x.org:80")
    code = """
sent, began = 0, time.monotonic()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect(("127.0.0.53", 53))
    while time.monotonic() < began + 1:
        sock.send(bytes.fromhex(event["packet"]))
        sent += 1
time.sleep(2)  # what the socket holds is read meanwhile
result = sent, addresses("x.org")
"""
    began = time.monotonic()
    sent, found = run(daemon, code, packet=wire("x.org"))
    most = BURST + QUESTIONS_PER_SECOND * (time.monotonic() - began) + 1
    assert sent > 10 * most and len(names.asked) <= most
    assert found == ["203.0.113.6"]


def test_a_silent_server_costs_its_time_and_no_more(daemon: NetworkedDaemon, names: NameServer) -> None:
    names.silent = True
    daemon.permit("evaluate", "*.x.org:80")
    packets = [wire(f"{number}.x.org", id=number) for number in range(1, 4)]
    assert rcodes(run(daemon, "result = ask(event['packets'], 3)", packets=packets)) == ["SERVFAIL0"] * 3


def test_more_addresses_than_an_environment_may_have_open(daemon: NetworkedDaemon, names: NameServer) -> None:
    for number in range(50):
        name = f"{number}.x.org"
        names.records[name] = [f"{name} 300 A 8.9.{number}.{last}" for last in range(12)]
    daemon.permit("evaluate", "*.x.org:80")
    found = run(daemon, "result = [addresses(f'{number}.x.org') for number in range(50)]")
    assert [isinstance(answer, list) for answer in found] == [True] * 42 + [False] * 8
    assert sum(row.startswith("opened ") for row in daemon.permissions()) == 2 * 42 * 12


def test_without_names_there_is_no_resolver(daemon: NetworkedDaemon, names: NameServer) -> None:
    for rules in ([], ["0.0.0.0/0:80"]):
        daemon.permit("evaluate", *rules)
        result = run(daemon, "result = [connect('127.0.0.53', 53), datagram('127.0.0.53', 53), addresses('x.org')]")
        assert result[:2] == ["ECONNREFUSED"] * 2 and isinstance(result[2], str)
    assert not names.asked
