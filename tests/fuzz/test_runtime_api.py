"""The Runtime API: whatever a runtime says, in whatever order, it gets an answer that is none of ours to regret."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import threading
from collections.abc import Iterator

import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sandboxd.environment.runtime_api import Answer as Posted
from sandboxd.environment.runtime_api import Event, InitError, RuntimeApi
from sandboxd.http import Budget, Server
from tests.conftest import Deployed
from tests.fuzz.conftest import Fuzz, settled
from tests.fuzz.wire import EXTRA_HEADERS, FRAMINGS, METHODS, Answer, Line, Wire, scrambled, split_answers
from tests.support.daemon import Daemon

LIMIT = 64 * 1024
BUDGET = 1 << 20
BASE = b"/2018-06-01/runtime/"
KNOWN = {200, 202, 400, 403, 404, 405, 413, 431, 503}


class Ear:
    """Hears what the environment would hear."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers: list[Posted] = []
        self.init_errors: list[InitError] = []
        self.in_time = True

    def runtime_asked(self) -> None:
        self.asked += 1

    def runtime_answered(self, answer: Posted) -> bool:
        self.answers.append(answer)
        return self.in_time

    def runtime_failed_to_start(self, error: InitError) -> None:
        self.init_errors.append(error)


class Doors:
    """Real doors of real RuntimeApis, one after another, on a loop of their own."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.budget = Budget(BUDGET)
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._server: Server | None = None

    def call(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def renew(self) -> None:
        """A door that nobody has met."""
        self.shut()
        self.ear = Ear()
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        self.address = listening.getsockname()

        async def open_door() -> None:
            self.api = RuntimeApi(self.ear, LIMIT)
            self._server = await self.api.serve(listening.detach(), self.budget)

        self.call(open_door())

    def shut(self) -> None:
        async def abort() -> None:
            assert self._server is not None
            self._server.abort()
            while self._server.connections:
                await asyncio.sleep(0)

        if self._server is not None:
            self.call(abort())
            self._server = None

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def close(self) -> None:
        self.shut()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def deliver(self, number: str) -> None:
        """Hand an event to the runtime that waits for one."""

        async def hand() -> None:
            self.api.deliver(Event(number, 1, "arn:x", "Root=1", "", b"{}"))

        self.call(hand())

    def waits(self) -> bool:
        async def ask() -> bool:
            return self.api.waiting

        return bool(self.call(ask()))


@pytest.fixture
def doors(caplog: pytest.LogCaptureFixture) -> Iterator[Doors]:
    made = Doors()
    yield made
    made.close()
    assert made.budget.used == 0, "bytes that nobody waits for any more are counted"
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING], caplog.text


TARGETS = st.sampled_from(
    [BASE + path for path in (
        b"invocation/next", b"invocation/r1/response", b"invocation/r1/error", b"invocation/r0/response", b"init/error",
        b"invocation//response", b"invocation/%00/response", b"invocation/" + b"r" * 129 + b"/error", b"",
        b"restore/next",
        b"invocation/next?x=1", b"invocation/next/", b"../runtime/invocation/next",
    )] + [b"/", b"*", b"http://x/", b"x:443"]
)  # fmt: skip
BODIES = st.sampled_from([b"", b"{}", b"\xff\0", b"[" * 500, b"x" * LIMIT, b"x" * (LIMIT + 101), b"x" * (4 * LIMIT)])
TYPES = st.sampled_from(
    [b"", b"Runtime.Good", b"Runtime.\xff", b"x" * 2000, b"Function.A\x7f", b"streaming", b"buffered"]
)
OWN_HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"Lambda-Runtime-Function-Error-Type", b"Lambda-Runtime-Function-Response-Mode",
                         b"Lambda-Runtime-Function-XRay-Error-Cause", b"Content-Type"]),
        TYPES,
    ),
    max_size=2,
).map(tuple)  # fmt: skip
REQUESTS = st.builds(
    lambda method, target, own, extra, body, framing: Wire(method, target, own + extra, body, framing),
    st.sampled_from((*METHODS, b"POST", b"POST", b"GET")), TARGETS, OWN_HEADERS, EXTRA_HEADERS, BODIES, FRAMINGS,
)  # fmt: skip


def judge(answers: list[Answer]) -> None:
    for answer in answers:
        assert answer.status in KNOWN, answer


def test_garbage(fuzz: Fuzz, doors: Doors) -> None:
    """Requests of wrong kinds, broken ones, and bytes: before there is an event, and while one is out."""
    doors.renew()

    def body(requests: list[Wire], cut: bytes | None, in_flight: bool) -> None:
        line = Line(doors.connect)
        if in_flight and not doors.ear.answers and not doors.ear.init_errors and not doors.ear.asked:
            waiting = doors.connect()
            waiting.sendall(Wire(b"GET", BASE + b"invocation/next").encode())
            while not doors.waits():
                pass
            doors.deliver("r1")
            assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
            waiting.close()
        # Behind a request for an event another one waits, and is not read on, until there is one.
        alone = next((wire for wire in requests if wire.target.startswith(BASE + b"invocation/next")), None)
        data = cut if cut is not None else b"".join(wire.encode() for wire in ([alone] if alone else requests))
        received = line.last(data)
        judge(split_answers(received))
        if doors.ear.asked or doors.ear.answers or doors.ear.init_errors:
            assert len(doors.ear.answers) <= 1 and len(doors.ear.init_errors) <= 1
            doors.renew()

    sound = Wire(
        b"POST", BASE + b"invocation/r1/response", ((b"Content-Type", b"application/json"),), b'{"a": 1}'
    ).encode()
    cuts = st.none() | st.none() | scrambled(sound) | st.binary(max_size=200)
    fuzz(body, st.lists(REQUESTS, min_size=1, max_size=2), cuts, st.booleans(), shrink=False)
    doors.renew()
    assert split_answers(Line(doors.connect).last(Wire(b"GET", b"/").encode()))[0].status == 404


class Turns(RuleBasedStateMachine):
    """A runtime that does things in any order, against what the documentation says of each."""

    doors: Doors

    def __init__(self) -> None:
        super().__init__()
        self.doors.renew()
        self.line = Line(self.doors.connect)
        self.waiting: socket.socket | None = None
        self.state = "started"
        self.events = 0
        self.answered = 0

    def teardown(self) -> None:
        self.line.close()
        if self.waiting is not None:
            self.waiting.close()

    def post(self, path: str, body: bytes = b"{}") -> int:
        return self.line.ask(Wire(b"POST", BASE + path.encode(), (), body).encode()).status

    @precondition(lambda self: self.waiting is None)
    @rule()
    def next(self) -> None:
        request = Wire(b"GET", BASE + b"invocation/next").encode()
        if self.state in ("running", "failed"):
            assert self.line.ask(request).status == 403
            return
        self.waiting = self.doors.connect()
        self.waiting.sendall(request)
        while not self.doors.waits():
            pass
        self.state = "ready"

    @precondition(lambda self: self.waiting is not None)
    @rule()
    def next_again(self) -> None:
        assert self.line.ask(Wire(b"GET", BASE + b"invocation/next").encode()).status == 403

    @precondition(lambda self: self.state == "ready" and self.waiting is not None)
    @rule()
    def event(self) -> None:
        assert self.waiting is not None
        self.events += 1
        self.doors.deliver(f"r{self.events}")
        answer = split_answers(self.waiting.recv(65536))[0]
        assert (answer.status, answer.headers["lambda-runtime-aws-request-id"]) == (200, f"r{self.events}")
        self.waiting.close()
        self.waiting, self.state = None, "running"

    @rule(kind=st.sampled_from(["response", "error"]), size=st.sampled_from([0, 2, LIMIT + 101]))
    def answer(self, kind: str, size: int) -> None:
        status = self.post(f"invocation/r{self.events}/{kind}", b"x" * size)
        if self.state == "running":
            assert status == (413 if size > LIMIT else 202)
            self.answered += 1
            self.state = "answered"
        elif self.state == "answered":
            assert status == 403
        else:
            assert status == (413 if size > LIMIT and status == 413 else 400)

    @rule(number=st.sampled_from(["r0", "r99", "x", "%00", "r1%2f"]), kind=st.sampled_from(["response", "error"]))
    def answer_to_nothing(self, number: str, kind: str) -> None:
        assert self.post(f"invocation/{number}/{kind}") == 400

    @rule()
    def init_error(self) -> None:
        status = self.post("init/error")
        assert status == (202 if self.state == "started" else 403)
        if self.state == "started":
            self.state = "failed"

    @rule(data=scrambled(Wire(b"POST", BASE + b"invocation/x/response", (), b"{}").encode()))
    def garbage(self, data: bytes) -> None:
        before = self.doors.ear.asked, len(self.doors.ear.init_errors)
        judge(split_answers(self.line.last(data)))
        assert before == (self.doors.ear.asked, len(self.doors.ear.init_errors))

    @invariant()
    def the_environment_heard_what_happened(self) -> None:
        ear = self.doors.ear
        assert len(ear.answers) == self.answered
        assert len(ear.init_errors) == (self.state == "failed")
        assert self.doors.waits() == (self.waiting is not None)


def test_any_order(doors: Doors, cases: int) -> None:
    Turns.doors = doors
    steps = 20
    machine = functools.partial(run_state_machine_as_test, Turns)
    chosen = settled(lambda: None, max(1, cases // steps))
    machine(settings=chosen._hypothesis_internal_use_settings)


ATTACK = """
import random, socket
chosen = random.Random({seed})
base = b"/2018-06-01/runtime/"
sound = [b"POST " + base + b"invocation/x/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}",
         b"POST " + base + b"init/error HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}",
         b"GET " + base + b"invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"]
pieces = [b"\\r\\n", b"\\n", b"\\0", b"%00", b"../", b"Transfer-Encoding: chunked\\r\\n", b"\\xff" * 9, b"A" * 5000]
seen = {{}}
for _ in range({count}):
    data = bytearray(chosen.choice(sound))
    for _ in range(chosen.randrange(4)):
        at = chosen.randrange(len(data))
        data[at:at + chosen.randrange(3)] = chosen.choice(pieces) if chosen.random() < .6 else chosen.randbytes(3)
    got = b""
    with socket.create_connection(("127.0.0.1", 9001), 5) as line:
        try:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            while more := line.recv(65536):
                got += more
        except (BrokenPipeError, ConnectionResetError):
            pass
    status = got[9:12].decode() or "closed"
    seen[status] = seen.get(status, 0) + 1
result = seen
"""


def test_from_inside(daemon: Daemon, deployed: Deployed) -> None:
    """A function abuses its own door while it runs, and its answer comes all the same."""
    name = deployed("evaluate", Timeout=60)
    for number in range(3):
        seen = daemon.call(name, {"code": ATTACK.format(seed=number, count=100)})
        assert sum(seen.values()) == 100
        assert set(seen) <= {str(status) for status in KNOWN if status not in (200, 202)} | {"closed"}, seen
    assert daemon.call(name, {"code": "result = 1"}) == 1
