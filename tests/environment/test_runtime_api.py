"""The Runtime API against clients that cheat: the test itself is the runtime, on raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandboxd.environment.environment import ASK_SECONDS, Environment, NotDelivered
from sandboxd.environment.lifecycle import State
from sandboxd.model.invocation import InvocationResult, Outcome
from tests.environment.loopback import Stage, make_invocation, run

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Runtime:
    """One connection to a Runtime API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, stage: Stage, number: int = 1) -> Runtime:
        return cls(*await asyncio.open_connection(*stage.builder.addresses[number], limit=1 << 24))

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, path: str, body: bytes = b"", *headers: str) -> None:
        lines = [f"POST /2018-06-01/runtime/{path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", 0))), 10)
        return int(first.split()[1]), headers, body

    async def refused(self) -> dict[str, str]:
        status, _, body = await self.receive()
        return {"status": status, **json.loads(body)}  # type: ignore[dict-item]

    async def closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), 10) == b""
        except ConnectionError:
            return True


Play = Callable[[Stage, Environment, Runtime], Awaitable[None]]


def play(tmp_path: Path, scene: Play, timeout: int = 5, **limits: int) -> None:
    """Run a scene in which the test is the runtime of an environment that is in its init phase."""

    async def main() -> None:
        async with Stage(tmp_path, command=None, **limits) as stage:
            environment = stage.environment(stage.function(timeout=timeout))
            starting = asyncio.ensure_future(environment.start(10))
            while environment.state is not State.INIT:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            runtime = await Runtime.connect(stage)
            try:
                await scene(stage, environment, runtime)
            finally:
                await runtime.close()
                await environment.destroy()
                await asyncio.wait([starting])
                starting.exception()

    run(main())


async def in_flight(
    environment: Environment, runtime: Runtime, payload: bytes = b"{}"
) -> tuple[str, asyncio.Future[InvocationResult]]:
    """An invocation that was handed out and waits for its answer: its id, and its end."""
    while environment.state is State.INIT:
        runtime.send(NEXT)
        await asyncio.sleep(0.01)
    running = asyncio.ensure_future(environment.run(make_invocation(environment.function, payload)))
    status, headers, body = await runtime.receive()
    assert (status, body) == (200, payload)
    return headers["lambda-runtime-aws-request-id"], running


def test_the_turns_of_a_runtime(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        before = time.time()
        number, running = await in_flight(environment, runtime, b'{"a": 1}')
        runtime.post(f"invocation/{number}/response", b"[1]", "Content-Type: application/x-mine")
        assert await runtime.receive() == (
            202,
            {"content-type": "application/json", "content-length": "16"},
            b'{"status":"OK"}\n',
        )
        result = await running
        assert (result.payload, result.content_type) == (b"[1]", "application/x-mine")
        runtime.send(NEXT)
        await asyncio.sleep(0.02)
        call = make_invocation(environment.function)
        running = asyncio.ensure_future(environment.run(call))
        _, headers, _ = await runtime.receive()
        assert headers["lambda-runtime-aws-request-id"] == call.request_id
        assert headers["lambda-runtime-invoked-function-arn"] == call.invoked_arn
        assert headers["lambda-runtime-trace-id"].startswith("Root=1-")
        assert headers["content-type"] == "application/json"
        assert "lambda-runtime-client-context" not in headers
        assert before + 5 <= int(headers["lambda-runtime-deadline-ms"]) / 1000 <= time.time() + 5
        runtime.post(f"invocation/{call.request_id}/error", b'{"errorType":"X"}')
        assert (await runtime.receive())[0] == 202
        assert (await running).outcome is Outcome.HANDLED

    play(tmp_path, scene)


def test_out_of_turn_changes_nothing(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        wrong = {"status": 400, "errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}
        for path in ("invocation/none/response", "invocation/none/error"):  # before there is an invocation
            runtime.post(path, b"1")
            assert await runtime.refused() == wrong
        number, running = await in_flight(environment, runtime)
        other = await Runtime.connect(stage)
        other.send(NEXT)  # while one is out
        refused = await other.refused()
        assert (refused["status"], refused["errorType"]) == (403, "InvalidStateTransition")
        assert refused["errorMessage"] == (
            "State transition from Running to Ready failed for runtime. Error: State transition is not allowed"
        )
        other.post("init/error", b"{}")  # long after init
        assert (await other.refused())["errorType"] == "InvalidStateTransition"
        other.post("invocation/00000000-0000-4000-8000-000000000000/response", b"1")
        assert await other.refused() == wrong
        other.post(f"invocation/{number}/response", b"1", "Lambda-Runtime-Function-Response-Mode: odd")
        assert (await other.refused())["errorType"] == "InvalidFunctionResponseMode"
        assert not running.done()
        runtime.post(f"invocation/{number}/response", b"2")
        assert (await runtime.receive())[0] == 202
        for kind in ("response", "error"):  # twice
            other.post(f"invocation/{number}/{kind}", b"3")
            assert (await other.refused())["errorType"] == "InvalidStateTransition"
        assert (await running).payload == b"2"
        runtime.send(NEXT)
        await asyncio.sleep(0.02)
        other.post(f"invocation/{number}/response", b"4")  # of an invocation that is over
        assert await other.refused() == wrong
        other.send(NEXT)  # a second one beside that which waits
        assert (await other.refused())["errorType"] == "InvalidStateTransition"
        running = asyncio.ensure_future(environment.run(make_invocation(environment.function)))
        _, headers, _ = await runtime.receive()
        other.post(f"invocation/{headers['lambda-runtime-aws-request-id']}/response", b"5")
        assert (await other.receive())[0] == 202  # which connection does not matter, as at AWS
        assert (await running).payload == b"5"
        await other.close()

    play(tmp_path, scene)


def test_what_is_not_there(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        for method, path, status in (
            ("GET", "/2018-06-01/runtime/restore/next", 404),
            ("POST", "/2018-06-01/runtime/restore/error", 404),
            ("GET", "/2018-06-01/runtime/../runtime/invocation/next", 404),
            ("GET", "/2020-01-01/extension/register", 404),
            ("GET", "/", 404),
            ("POST", "/2018-06-01/runtime/invocation/next", 405),
            ("GET", "/2018-06-01/runtime/init/error", 405),
            ("GET", "/2018-06-01/runtime/invocation/x/response", 405),
        ):
            runtime.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            assert (await runtime.receive())[0] == status, path
        assert environment.state is State.INIT

    play(tmp_path, scene)


def test_an_init_error_ends_the_init_phase_once(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        runtime.post("init/error", b'{"errorType":"Mine"}', "Lambda-Runtime-Function-Error-Type: Runtime.Mine")
        assert (await runtime.receive())[0] == 202
        runtime.post("init/error", b"{}")
        assert (await runtime.refused())["status"] == 403
        runtime.send(NEXT)
        assert (await runtime.refused())["status"] == 403
        result = await environment.run(make_invocation(environment.function))
        assert result.payload == b'{"errorType":"Mine"}'
        assert b"Status: error\tError Type: Runtime.Mine\n" in result.log_tail

    play(tmp_path, scene)


@pytest.mark.parametrize("named", ["Runtime.Mine\tStatus: x", "x" * 5000, "", "Zeile"])
def test_an_error_type_reaches_the_log_in_no_other_form(tmp_path: Path, named: str) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        runtime.post("init/error", b"{}", f"Lambda-Runtime-Function-Error-Type: {named}")
        await runtime.receive()
        result = await environment.run(make_invocation(environment.function))
        assert b"Error Type: Runtime.Unknown\nSTART" in result.log_tail

    play(tmp_path, scene)


def test_an_error_without_a_body_is_made_of_its_type(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        runtime.post(f"invocation/{number}/error", b"", "Lambda-Runtime-Function-Error-Type: Function.Odd")
        assert json.loads((await running).payload) == {"errorType": "Function.Odd"}

    play(tmp_path, scene)


def test_an_answer_in_chunks_that_grows_too_large(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        runtime.send(
            f"POST /2018-06-01/runtime/invocation/{number}/response HTTP/1.1\r\nHost: x\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(100):  # a client that reads only when it has sent everything
            runtime.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await runtime.writer.drain()
        runtime.send(b"0\r\n\r\n")
        refused = await runtime.refused()
        assert refused == {
            "status": 413, "errorType": "RequestEntityTooLarge",
            "errorMessage": "Exceeded maximum allowed payload size (1000100 bytes).",
        }  # fmt: skip
        assert json.loads((await running).payload)["errorType"] == "Function.ResponseSizeTooLarge"
        assert await runtime.closed()
        again = await Runtime.connect(stage)  # the environment lives
        again.send(NEXT)
        number, running = await in_flight(environment, again)
        again.post(f"invocation/{number}/response", b"1")
        assert (await running).payload == b"1"
        await again.close()

    play(tmp_path, scene, sync_payload_bytes=1_000_000)


def test_an_oversized_answer_out_of_turn_changes_nothing(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        for path, status in ((f"invocation/{number}x/response", 400), ("init/error", 413)):
            other = await Runtime.connect(stage)
            other.post(path, b"x" * 2_000_000)
            assert (await other.refused())["status"] == status
            await other.close()
        assert not running.done()
        runtime.post(f"invocation/{number}/response", b"1")
        assert (await running).payload == b"1"

    play(tmp_path, scene, sync_payload_bytes=1_000_000)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    ],
)
def test_garbage_is_refused_and_hurts_nobody(tmp_path: Path, garbage: bytes) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        other = await Runtime.connect(stage)
        other.send(garbage)
        assert (await other.receive())[0] in (400, 404)  # 404: what was HTTP after all
        assert await other.closed()
        await other.close()
        number, running = await in_flight(environment, runtime)
        runtime.post(f"invocation/{number}/response", b"1")
        assert (await running).payload == b"1"

    play(tmp_path, scene)


@pytest.mark.parametrize("shape", ["one line", "many lines", "endless target", "tiny pieces"])
def test_headers_without_end_are_refused(tmp_path: Path, shape: str) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        start = b"GET /x HTTP/1.1\r\nHost: x\r\n"
        try:
            if shape == "one line":
                runtime.send(start + b"X: ")
                for _ in range(64):
                    runtime.send(b"x" * 65_536)
                    await runtime.writer.drain()
            elif shape == "many lines":
                runtime.send(start)
                for number in range(20_000):
                    runtime.send(b"X-%d: %s\r\n" % (number, b"x" * 100))
                    await runtime.writer.drain()
            elif shape == "endless target":
                runtime.send(b"GET /")
                for _ in range(64):
                    runtime.send(b"x" * 65_536)
                    await runtime.writer.drain()
            else:
                runtime.send(start + b"X: ")
                for _ in range(1500):
                    runtime.send(b"x")
                    await asyncio.sleep(0.0005)
        except ConnectionError:
            return
        assert (await runtime.refused())["status"] == 431

    play(tmp_path, scene)


def test_connections_are_few(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        address = stage.builder.addresses[1]
        crowd = await asyncio.to_thread(lambda: [socket.create_connection(address) for _ in range(40)])
        await asyncio.sleep(0.05)
        alive = 0
        for sock in crowd:
            sock.setblocking(False)
            try:
                assert sock.recv(1) == b""
            except BlockingIOError:
                alive += 1
            except ConnectionResetError:
                pass
            sock.close()
        assert alive == 7
        runtime.post(f"invocation/{number}/response", b"1")
        assert (await running).payload == b"1"

    play(tmp_path, scene)


def test_an_answer_byte_by_byte_counts_when_it_is_whole(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        body = b'"' + b"slow" * 60 + b'"'
        request = (
            f"POST /2018-06-01/runtime/invocation/{number}/response HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for byte in request.encode() + body:
            assert not running.done()
            runtime.send(bytes((byte,)))
            await asyncio.sleep(0.0005)
        assert (await running).payload == body

    play(tmp_path, scene)


def test_half_an_answer_times_out_and_takes_no_memory_with_it(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        runtime.send(
            f"POST /2018-06-01/runtime/invocation/{number}/response HTTP/1.1\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        runtime.send(b"x" * 999)
        assert (await running).outcome is Outcome.TIMED_OUT
        runtime.send(b"x")
        assert stage.ground.budget.used > 0
        await environment.destroy()
        await asyncio.sleep(0.01)
        assert stage.ground.budget.used == 0

    play(tmp_path, scene, timeout=1)


def test_one_environment_takes_no_more_of_the_host_than_its_share(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        crowd = [await Runtime.connect(stage) for _ in range(6)]
        for one in crowd:
            head = b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 900000\r\n\r\n"
            one.send(head + b"x" * 800_000)
            await one.writer.drain()
        await asyncio.sleep(0.1)
        assert 0 < stage.ground.budget.used <= 1_000_100 + (1024 + 64) * 1024
        for one in crowd:
            await one.close()

    play(tmp_path, scene, sync_payload_bytes=1_000_000)


def test_a_large_body_for_a_wrong_request_is_refused_before_it_comes(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        _, running = await in_flight(environment, runtime)
        for length in ("Content-Length: 900000", "Transfer-Encoding: chunked"):
            other = await Runtime.connect(stage)
            other.send(f"POST /2018-06-01/runtime/invocation/wrong/response HTTP/1.1\r\n{length}\r\n\r\n".encode())
            assert (await other.refused())["errorType"] == "InvalidRequestID"
            other.send(b"10000\r\n" + b"x" * 65_536)
            await asyncio.sleep(0.02)
            assert stage.ground.budget.used == 0
            await other.close()
        assert not running.done()
        running.cancel()

    play(tmp_path, scene, sync_payload_bytes=1_000_000)


def test_headers_count_in_the_budget_while_their_request_waits(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        for sent in (b"", b"\r\n\r\n"):
            other = await Runtime.connect(stage)
            other.send(NEXT[:-2] + b"Big: " + b"x" * 900_000 + sent)
            await asyncio.sleep(0.1)
            assert 900_000 < stage.ground.budget.used < 950_000
            await other.close()
            await asyncio.sleep(0.02)
            assert stage.ground.budget.used == 0

    play(tmp_path, scene)


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        runtime.post(f"invocation/{number}/response", b"1")
        runtime.send(NEXT)
        runtime.post("init/error", b"{}")
        assert (await runtime.receive())[0] == 202
        await running
        later = asyncio.ensure_future(environment.run(make_invocation(environment.function)))
        assert (await runtime.receive())[0] == 200
        assert (await runtime.receive())[0] == 403
        later.cancel()

    play(tmp_path, scene)


def test_a_runtime_that_lets_its_connection_go_may_ask_again(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        runtime.post(f"invocation/{number}/response", b"1")
        await running
        await runtime.receive()
        runtime.send(NEXT)
        await asyncio.sleep(0.02)
        await runtime.close()
        await asyncio.sleep(0.02)
        running = asyncio.ensure_future(environment.run(make_invocation(environment.function)))
        await asyncio.sleep(0.02)
        other = await Runtime.connect(stage)
        other.send(NEXT)
        _, headers, _ = await other.receive()
        other.post(f"invocation/{headers['lambda-runtime-aws-request-id']}/response", b"2")
        assert (await running).payload == b"2"
        await other.close()

    play(tmp_path, scene)


def test_a_runtime_that_never_asks_again_loses_the_event_but_not_the_invocation(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        number, running = await in_flight(environment, runtime)
        runtime.post(f"invocation/{number}/response", b"1")
        await running
        began = time.monotonic()
        with pytest.raises(NotDelivered):
            await environment.run(make_invocation(environment.function))
        assert time.monotonic() - began == pytest.approx(ASK_SECONDS, abs=0.3)
        assert stage.lost == []
        while stage.lost != [1]:  # its own time runs on until it asks
            await asyncio.sleep(0.05)
        assert time.monotonic() - began < 2.5

    play(tmp_path, scene, timeout=2)


def test_a_runtime_that_asks_and_goes_before_its_first_event(tmp_path: Path) -> None:
    async def scene(stage: Stage, environment: Environment, runtime: Runtime) -> None:
        runtime.send(NEXT)
        await asyncio.sleep(0.02)
        await runtime.close()
        await asyncio.sleep(0.02)
        assert environment.state is State.IDLE
        result = await environment.run(make_invocation(environment.function))
        assert result.outcome is Outcome.TIMED_OUT

    play(tmp_path, scene, timeout=1)
