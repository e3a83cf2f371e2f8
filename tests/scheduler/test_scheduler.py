"""The scheduler with real environments: AWS's runtime client as ordinary processes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandboxd.environment.logs import Logs
from sandboxd.errors import ApiError, StepFailed
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import InvocationResult, Outcome
from sandboxd.privsep.client import BuilderGone
from sandboxd.scheduler.provisioned import Standing
from sandboxd.scheduler.scheduler import Scheduler
from tests.environment.loopback import IMAGE, LoopbackBuilder, make_config, make_function, make_invocation, no_door, run

COUNTER = (
    "import os, time\nN = 0\ndef handler(event, context):\n    global N\n    N += 1\n"
    "    time.sleep(event.get('sleep', 0))\n    if event.get('exit'): os._exit(1)\n    return [os.getpid(), N]\n"
)


class Play:
    """A scheduler with its builder."""

    def __init__(self, directory: Path, scheduler: Scheduler, builder: LoopbackBuilder, logs: Logs) -> None:
        self.directory, self.scheduler, self.builder, self.logs = directory, scheduler, builder, logs

    def function(self, code: str = COUNTER, **settings: Any) -> FunctionVersion:
        return make_function(self.directory, code, **settings)

    async def invoke(self, function: FunctionVersion, **event: Any) -> InvocationResult:
        return await self.scheduler.invoke(make_invocation(function, json.dumps(event).encode()))

    async def numbers(self, function: FunctionVersion, **event: Any) -> list[int]:
        result = await self.invoke(function, **event)
        assert result.outcome is Outcome.OK, result
        numbers: list[int] = json.loads(result.payload)
        return numbers

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.scheduler.environments())


def play(tmp_path: Path, scene: Callable[[Play], Awaitable[None]], keep_alive: float = 60, **limits: int) -> None:
    """Run a scene, drain, and see that nothing is left."""

    async def main() -> None:
        builder = LoopbackBuilder(tmp_path)
        logs = Logs(tmp_path / "logs", "000000000000")
        config = replace(make_config(tmp_path, **limits), keep_alive=keep_alive)
        scheduler = Scheduler(config, builder, logs, lambda runtime: IMAGE, no_door)
        builder.on_exited = scheduler.on_exited
        try:
            await scene(Play(tmp_path, scheduler, builder, logs))
        finally:
            await scheduler.drain(1)
            logs.close()
        assert scheduler.environments() == []
        assert sorted(builder.destroyed) == sorted(builder.bound)
        assert all(process.returncode is not None for process in builder.processes.values())

    run(main())


def test_one_environment_serves_one_after_another(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        first = await play.numbers(function)
        for expected in range(2, 30):
            assert await play.numbers(function) == [first[0], expected]
        [row] = play.scheduler.environments()
        assert row.pop("AgeSeconds") > 0
        assert row.pop("IdleSeconds") >= 0
        assert row.pop("State") in ("Idle", "Answered")
        assert row == {
            "Id": 1, "Account": "000000000000", "Function": "hello", "Version": "$LATEST", "MemorySize": 128,
            "Invocations": 29, "MemoryUsedMB": 36,
        }  # fmt: skip
        await play.until(lambda: play.scheduler.environments()[0]["State"] == "Frozen")
        assert await play.numbers(function) == [first[0], 30]
        play.scheduler.warm([function, replace(function, memory_size=512)])
        [(image, memory_mb, environ), *_] = play.builder.warmed
        assert len(play.builder.warmed) <= 2  # not for each, within a second
        assert (image, memory_mb) == (IMAGE, 0)
        assert b"AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001\0" in environ
        assert b"FUNCTION" not in environ

    play(tmp_path, scene)


def test_a_runtime_that_sizes_its_heap_is_booted_ahead_for_each_size(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        python = play.function()
        node = replace(python, runtime="nodejs22.x")
        play.scheduler.warm([python, python, node, replace(node, memory_size=512), node])
        told = b"AWS_LAMBDA_FUNCTION_MEMORY_SIZE="
        warmed = [(memory_mb, told in environ) for _, memory_mb, environ in play.builder.warmed]
        assert warmed == [(0, False), (128, True), (512, True), (128, True)]

    play(tmp_path, scene)


def test_at_the_same_time_in_environments_of_their_own(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function, other = play.function(), play.function(name="other")
        calls = [play.numbers(function, sleep=0.2), play.numbers(function, sleep=0.2), play.numbers(other, sleep=0.2)]
        answers = await asyncio.gather(*calls)
        assert len({pid for pid, _ in answers}) == 3
        assert {count for _, count in answers} == {1}
        newer = replace(function, revision_id="r2")
        assert (await play.numbers(newer))[1] == 1  # never across versions

    play(tmp_path, scene)


def test_the_account_s_limit(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        running = [asyncio.ensure_future(play.numbers(function, sleep=0.5)) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(ApiError) as raised:
            await play.invoke(function)
        error = raised.value
        assert (error.code, error.status, error.message) == ("TooManyRequestsException", 429, "Rate Exceeded.")
        assert (error.fault, error.members) == ("User", {"Reason": "ConcurrentInvocationLimitExceeded"})
        await asyncio.gather(*running)
        await play.numbers(function)

    play(tmp_path, scene, concurrency=2)


def test_after_a_failure_the_next_one_starts_cold(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function(timeout=1)
        assert (await play.numbers(function))[1] == 1
        assert (await play.invoke(function, exit=True)).outcome is Outcome.FAILED
        assert (await play.numbers(function))[1] == 1
        assert (await play.invoke(function, sleep=60)).outcome is Outcome.TIMED_OUT
        assert (await play.numbers(function))[1] == 1
        await play.until(lambda: play.builder.destroyed == [1, 2])

    play(tmp_path, scene)


def test_a_handler_error_keeps_the_environment(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function(COUNTER.replace("return", "if event.get('raise'): raise ValueError\n    return"))
        first = await play.numbers(function)
        assert (await play.invoke(function, **{"raise": True})).outcome is Outcome.HANDLED
        assert await play.numbers(function) == [first[0], 3]

    play(tmp_path, scene)


def test_keep_alive(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        await play.numbers(play.function())
        began = time.monotonic()
        await play.until(lambda: play.builder.destroyed == [1])
        assert 0.4 < time.monotonic() - began < 1.5
        assert play.scheduler.environments() == []

    play(tmp_path, scene, keep_alive=0.5)


def test_retirement_fails_nothing_in_flight(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        idle = await play.numbers(function)
        running = asyncio.ensure_future(play.numbers(function, sleep=0.3))
        await asyncio.sleep(0.1)
        starting = asyncio.ensure_future(play.numbers(function))
        await play.until(lambda: len(play.scheduler.environments()) == 2)
        play.scheduler.retire(function.key)
        play.scheduler.retire("unknown")
        assert await running == [idle[0], 2]
        assert (await starting)[1] == 1
        await play.until(lambda: play.builder.destroyed == [2, 1] or play.builder.destroyed == [1, 2])
        assert (await play.numbers(function))[1] == 1

    play(tmp_path, scene)


def test_a_runtime_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        await play.numbers(function)
        play.builder.processes[1].kill()
        await play.until(lambda: play.builder.destroyed == [1])
        assert (await play.numbers(function))[1] == 1
        play.builder.processes[2].kill()  # and at the moment of the next call: no loss, no error
        assert (await play.invoke(function)).outcome in (Outcome.OK, Outcome.FAILED)

    play(tmp_path, scene)


def test_a_runtime_that_does_not_ask_again_costs_no_invocation(tmp_path: Path) -> None:
    code = (
        "import awslambdaric.bootstrap, time\nfrom awslambdaric import lambda_runtime_client as c\n"
        "real = c.LambdaRuntimeClient.wait_next_invocation\nasked = 0\n"
        "def ask(self):\n    global asked\n    asked += 1\n    if asked == 2: time.sleep(60)\n    return real(self)\n"
        "c.LambdaRuntimeClient.wait_next_invocation = ask\ndef handler(event, context): return [asked, 0]\n"
    )

    async def scene(play: Play) -> None:
        function = play.function(code)
        assert await play.numbers(function) == [1, 0]
        assert await play.numbers(function) == [1, 0]  # in another one
        assert play.builder.bound == [1, 2]

    play(tmp_path, scene)


def test_an_init_phase_that_takes_too_long_is_run_again(tmp_path: Path) -> None:
    code = (
        "import os, time\nif not os.path.exists('once'):\n    open('once', 'w').close()\n    time.sleep(60)\n"
        "time.sleep(0.3)\ndef handler(event, context): return [0, context.get_remaining_time_in_millis()]\n"
    )

    async def scene(play: Play) -> None:
        numbers = await play.numbers(play.function(code))
        assert 4000 < numbers[1] < 4750  # of five seconds
        log = play.logs.read("000000000000", "hello", "$LATEST", 0, 10_000)[1].decode()
        assert log.count("INIT_START") == 2
        assert log.count("\tPhase: init\tStatus: timeout\n") == 1
        await play.until(lambda: play.builder.destroyed == [1])

    play(tmp_path, scene, init_seconds=1)


def test_an_init_phase_that_never_ends(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        result = await play.invoke(play.function("import time\ntime.sleep(60)", timeout=1))
        assert result.outcome is Outcome.TIMED_OUT
        assert b"Task timed out after 1.00 seconds" in result.payload
        await play.until(lambda: play.builder.destroyed == [1, 2])

    play(tmp_path, scene, init_seconds=1)


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (StepFailed("seccomp", 22), 500, "No execution environment: seccomp: Invalid argument"),
        (BuilderGone("the builder closed its end"), 503, "The service is starting again."),
        (BrokenPipeError(32, "Broken pipe"), 503, "The service is starting again."),
        (OSError(24, "Too many open files"), 500, "No execution environment: Too many open files"),
    ],
)
def test_what_cannot_be_built_is_an_error_and_leaves_nothing(
    tmp_path: Path, failure: Exception, status: int, text: str
) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        play.builder.failure = failure
        for _ in range(3):  # more than the limit: what failed counts no more
            with pytest.raises(ApiError) as raised:
                await play.invoke(function)
            error = raised.value
            assert (error.code, error.status, error.message, error.fault) == (
                "ServiceException",
                status,
                text,
                "Service",
            )
        play.builder.failure = None
        assert (await play.numbers(function))[1] == 1

    play(tmp_path, scene, concurrency=2)


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        def none(runtime: str) -> bytes:
            raise ApiError("ServiceException", f"no image of {runtime}", 500)

        play.scheduler._image_digest = none
        for _ in range(3):
            with pytest.raises(ApiError, match=r"no image of python3\.13"):
                await play.invoke(play.function())

    play(tmp_path, scene, concurrency=2)


def test_a_caller_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        for count in (1, 2, 3):  # while it starts, and while it runs
            call = asyncio.ensure_future(play.invoke(function, sleep=0.2))
            await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])
            await play.until(lambda: play.scheduler.environments()[0]["State"] == "Frozen")
            assert play.scheduler.environments()[0]["Invocations"] == count
        assert (await play.numbers(function))[1] == 4
        assert play.builder.bound == [1]

    play(tmp_path, scene)


def test_reserved(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function, other = play.function(), play.function(name="other")
        play.scheduler.allot("arn:aws:lambda:us-east-1:000000000000:function:hello", 1, {})
        running = asyncio.ensure_future(play.numbers(function, sleep=0.3))
        await play.until(lambda: play.scheduler.environments())
        with pytest.raises(ApiError) as raised:
            await play.invoke(function)
        error = raised.value
        assert (error.code, error.status, error.message) == ("TooManyRequestsException", 429, "Rate Exceeded.")
        assert error.members == {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}
        await asyncio.gather(running, play.numbers(other))
        play.scheduler.allot("arn:aws:lambda:us-east-1:000000000000:function:hello", None, {})
        await asyncio.gather(play.numbers(function, sleep=0.1), play.numbers(function, sleep=0.1))

    play(tmp_path, scene, concurrency=2)


def test_environments_ahead(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        play.scheduler.allot("arn:aws:lambda:us-east-1:000000000000:function:hello", None, {function: 2})
        await play.until(lambda: [row["State"] for row in play.scheduler.environments()] == ["Frozen"] * 2)
        assert play.scheduler.standing(function.key) == Standing(2, 2)
        assert {e["AWS_LAMBDA_INITIALIZATION_TYPE"] for e in play.builder.environs.values()} == {
            "provisioned-concurrency"
        }
        calls = [asyncio.ensure_future(play.numbers(function, sleep=0.2)) for _ in range(3)]
        await play.until(lambda: play.scheduler.standing(function.key) == Standing(2, 0))
        answers = await asyncio.gather(*calls)
        assert [count for _, count in answers] == [1, 1, 1]
        assert play.builder.environs[3]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
        play.builder.processes[1].kill()
        await play.until(lambda: play.builder.bound == [1, 2, 3, 4])
        await play.until(lambda: play.scheduler.standing(function.key) == Standing(2, 2))
        await play.until(lambda: 3 in play.builder.destroyed)  # grows old as ever, the others do not
        newer = replace(function, revision_id="r2")
        play.scheduler.retire(function.key)
        play.scheduler.allot("arn:aws:lambda:us-east-1:000000000000:function:hello", None, {newer: 1})
        await play.until(lambda: play.scheduler.standing(newer.key) == Standing(1, 1))
        assert len(play.scheduler.environments()) == 1
        assert play.builder.warmed

    play(tmp_path, scene, keep_alive=0.5)


def test_what_cannot_be_made_ahead_is_tried_again(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        play.builder.failure = StepFailed("seccomp", 22)
        play.scheduler.allot("arn:aws:lambda:us-east-1:000000000000:function:hello", None, {function: 1})
        await play.until(lambda: play.scheduler.standing(function.key).failing)
        play.builder.failure = None
        assert (await play.numbers(function))[1] == 1  # meanwhile it runs as ever
        await play.until(lambda: play.scheduler.standing(function.key) == Standing(1, 1))

    play(tmp_path, scene)


@pytest.mark.parametrize("turns", [0, 1, 20])
def test_a_stop_ends_what_is_being_made_ahead(tmp_path: Path, turns: int) -> None:
    async def scene(play: Play) -> None:
        play.scheduler.allot(
            "arn:aws:lambda:us-east-1:000000000000:function:hello",
            None,
            {play.function("import time\ntime.sleep(60)"): 3},
        )
        for _ in range(turns):
            await asyncio.sleep(0.01)
        await asyncio.wait_for(play.scheduler.drain(0), 10)

    play(tmp_path, scene)


def test_draining_lets_what_runs_end(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        function = play.function()
        running = asyncio.ensure_future(play.numbers(function, sleep=0.5))
        await asyncio.sleep(0.2)
        draining = asyncio.ensure_future(play.scheduler.drain(5))
        await asyncio.sleep(0)
        assert (await play.numbers(play.function(name="other")))[1] == 1, "what runs may invoke others itself"
        assert (await running)[1] == 1
        began = time.monotonic()
        await draining
        assert time.monotonic() - began < 1

    play(tmp_path, scene)


def test_draining_ends_what_takes_too_long(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        running = asyncio.ensure_future(play.numbers(play.function(), sleep=4))
        starting = asyncio.ensure_future(play.numbers(play.function("import time\ntime.sleep(4)", name="other")))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await play.scheduler.drain(0.2)
        assert time.monotonic() - began < 1
        for call in (running, starting):
            with pytest.raises(ApiError, match="stopped before the invocation ended") as raised:
                await call
            assert (raised.value.code, raised.value.status) == ("ServiceException", 500)

    play(tmp_path, scene)


def test_many_functions_at_once(tmp_path: Path) -> None:
    async def scene(play: Play) -> None:
        functions = [play.function(name=f"f{number}") for number in range(6)]

        async def client(function: FunctionVersion) -> None:
            for _ in range(40):
                await play.numbers(function)

        await asyncio.gather(*(client(function) for function in functions))
        assert len(play.builder.bound) == 6  # a client that waits for its answer never needs a second one

    play(tmp_path, scene)
