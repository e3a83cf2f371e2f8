"""One environment with AWS's real runtime client inside, as an ordinary process."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from sandboxd.environment.environment import Environment, InitFailed, NotDelivered
from sandboxd.environment.lifecycle import State
from sandboxd.environment.sandbox import EnvironmentEnded
from sandboxd.errors import StepFailed
from sandboxd.http import Request, Response
from sandboxd.model.function import FunctionVersion, Policy
from sandboxd.model.invocation import InvocationResult, Outcome
from tests.environment.loopback import Stage, make_invocation, run

SIX_MB = 6 * 1024 * 1024


async def invoke(stage: Stage, code: str, payload: bytes = b"{}", **settings: object) -> InvocationResult:
    environment = await started(stage, stage.function(code, **settings))
    return await environment.run(make_invocation(environment.function, payload))


async def started(stage: Stage, function: FunctionVersion) -> Environment:
    environment = stage.environment(function)
    try:
        await environment.start(stage.config.limits.init_seconds)
    except InitFailed:
        await environment.destroy()
        environment = stage.environment(function)
        await environment.start(function.timeout, phase="invoke")
    return environment


async def until(stage: Stage, condition: object) -> None:
    for _ in range(400):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not come about")


def test_cold_then_warm(tmp_path: Path) -> None:
    code = (
        "N = 0\nprint('loaded')\ndef handler(event, context):\n    global N\n    N += 1\n"
        "    print('n', N)\n    return N\n"
    )

    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function(code))
            cold_call = make_invocation(environment.function)
            cold = await environment.run(cold_call)
            warm = await environment.run(make_invocation(environment.function))
            assert (cold.payload, warm.payload) == (b"1", b"2")
            assert cold.outcome is Outcome.OK
            assert cold.function_error is None
            number = re.escape(cold_call.request_id)
            assert re.fullmatch(
                rf"START RequestId: {number} Version: \$LATEST\nn 1\nEND RequestId: {number}\n"
                rf"REPORT RequestId: {number}\tDuration: \d+\.\d\d ms\tBilled Duration: 100 ms\tMemory Size: 128 MB\t"
                r"Max Memory Used: 36 MB\tInit Duration: \d+\.\d\d ms\t\n",
                cold.log_tail.decode(),
            )
            assert b"Init Duration" not in warm.log_tail
            log = stage.log(environment.function)
            assert re.match(
                r"INIT_START Runtime Version: python:3\.13\tRuntime Version ARN: "
                r"arn:aws:lambda:us-east-1::runtime:0{64}\nloaded\nSTART ",
                log,
            )
            await asyncio.sleep(0.05)
            assert stage.builder.inits_ended == [1]

    run(main())


def test_the_current_profile_bills_the_init_phase_by_the_millisecond(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            config = stage.config
            object.__setattr__(config, "limits_profile", "current")
            object.__setattr__(config.limits, "billing_ms", 1)
            result = await invoke(stage, "def handler(event, context): return 1")
            line = result.log_tail.decode()
            duration, billed, init = re.search(
                r"Duration: ([\d.]+) ms\tBilled Duration: (\d+) ms.*Init Duration: ([\d.]+) ms", line
            ).groups()  # type: ignore[union-attr]
            assert float(duration) + float(init) <= int(billed) < float(duration) + float(init) + 1.02

    run(main())


def test_the_context_object_is_complete(tmp_path: Path) -> None:
    code = (
        "import os\ndef handler(event, c):\n    return dict(id=c.aws_request_id, arn=c.invoked_function_arn,"
        " name=c.function_name, version=c.function_version, memory=c.memory_limit_in_mb, group=c.log_group_name,"
        " stream=c.log_stream_name, left=c.get_remaining_time_in_millis(), custom=c.client_context.custom,"
        " identity=c.identity.cognito_identity_id, trace=os.environ['_X_AMZN_TRACE_ID'], event=event)\n"
    )

    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function(code, timeout=7))
            context = '{"custom":\r\n{"wörd": "✓"}}'
            call = make_invocation(
                environment.function, '"grüße ✓"'.encode(), client_context=context, trace_id="Root=1-2-3;Sampled=1"
            )
            said = json.loads((await environment.run(call)).payload)
            assert said.pop("left") in range(6500, 7001)
            assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", said.pop("stream"))
            assert said == {
                "id": call.request_id, "arn": call.invoked_arn, "name": "hello", "version": "$LATEST", "memory": "128",
                "group": "/aws/lambda/hello", "custom": {"wörd": "✓"}, "identity": None,
                "trace": "Root=1-2-3;Sampled=1", "event": "grüße ✓",
            }  # fmt: skip
            said = json.loads(
                (await environment.run(make_invocation(environment.function, client_context='{"custom":{}}'))).payload
            )
            assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", said["trace"])

    run(main())


def test_a_handler_that_raises(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function("def handler(event, context):\n    return {}['✗']\n"))
            for _ in range(2):
                call = make_invocation(environment.function)
                result = await environment.run(call)
                assert (result.outcome, result.function_error) == (Outcome.HANDLED, "Unhandled")
                error = json.loads(result.payload)
                assert (error["errorType"], error["errorMessage"]) == ("KeyError", "'✗'")
                assert error["requestId"] == call.request_id
                assert "in handler" in error["stackTrace"][0]
                log = result.log_tail.decode()
                assert "[ERROR] KeyError: '✗'\nTraceback (most recent call last):\n" in log
                assert "Status:" not in log

    run(main())


def test_an_error_whose_trace_is_a_header_of_hundreds_of_kilobytes(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.setrecursionlimit(20000)\ndef deeper(n):\n    if n: deeper(n - 1)\n"
        "    else: raise ValueError('deep')\ndef handler(event, context):\n    deeper(4000)\n"
    )

    async def main() -> None:
        async with Stage(tmp_path) as stage:
            result = await invoke(stage, code)
            assert json.loads(result.payload)["errorMessage"] == "deep"
            assert result.outcome is Outcome.HANDLED

    run(main())


@pytest.mark.parametrize(
    ("code", "handler", "error_type", "message", "reported"),
    [
        ("import nowhere", "app.handler", "Runtime.ImportModuleError", "No module named 'nowhere'", None),
        ("def handler(:", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'", None),
        ("x = 1", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'", None),
        ("x = 1", "gone.handler", "Runtime.ImportModuleError", "No module named 'gone'", None),
        ("x = 1", "handler", "Runtime.MalformedHandlerName", "Bad handler 'handler'", None),
        ("raise ValueError('at import')", "app.handler", "ValueError", "at import", "Runtime.Unknown"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_loaded(
    tmp_path: Path, code: str, handler: str, error_type: str, message: str, reported: str | None
) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function(code, handler=handler))
            result = await environment.run(make_invocation(environment.function))
            assert (result.outcome, result.function_error) == (Outcome.FAILED, "Unhandled")
            error = json.loads(result.payload)
            assert error["errorType"] == error_type
            assert message in error["errorMessage"]
            log = result.log_tail.decode()
            kind = re.escape(reported or error_type)
            ended = rf"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: %s\tStatus: error\tError Type: {kind}\n"
            assert re.search(ended % "invoke", log)
            assert re.search(ended % "init", stage.log(environment.function))
            assert re.search(rf"REPORT RequestId: .*\tStatus: error\tError Type: {kind}\n", log)
            assert message in log
            assert environment.state is State.BROKEN

    run(main())


@pytest.mark.parametrize("where", ["import", "invoke"])
@pytest.mark.parametrize(
    ("death", "reason"),
    [
        ("os._exit(1)", "Runtime exited with error: exit status 1"),
        ("os._exit(255)", "Runtime exited with error: exit status 255"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.kill(os.getpid(), 15)", "Runtime exited with error: signal: terminated"),
        ("os.kill(os.getpid(), 31)", "Runtime exited with error: signal: bad system call"),
    ],
)
def test_a_runtime_that_dies(tmp_path: Path, where: str, death: str, reason: str) -> None:
    last_words = (
        f"import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nprint('last words')\n{death}\n"
    )
    code = (
        "def handler(event, context):\n    " + last_words.replace("\n", "\n    ") if where == "invoke" else last_words
    )

    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function(code))
            call = make_invocation(environment.function)
            result = await environment.run(call)
            assert (result.outcome, result.function_error) == (Outcome.FAILED, "Unhandled")
            assert json.loads(result.payload) == {
                "errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {call.request_id} Error: {reason}",
            }  # fmt: skip
            log = result.log_tail.decode()
            assert "last words\n" in log
            assert f"RequestId: {call.request_id} Error: {reason}\nRuntime.ExitError\nEND RequestId: " in log
            assert log.endswith("\tStatus: error\tError Type: Runtime.ExitError\n")
            assert environment.state is State.BROKEN
            assert stage.lost == []

    run(main())


def test_out_of_memory_is_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            stage.builder.kill_as_out_of_memory = True
            result = await invoke(stage, "import os\ndef handler(event, context): os.kill(os.getpid(), 9)")
            error = json.loads(result.payload)
            assert error["errorType"] == "Runtime.OutOfMemory"
            assert error["errorMessage"].endswith(" Error: Runtime exited with error: signal: killed")
            assert b"\tMax Memory Used: 128 MB\tInit" in result.log_tail
            assert result.log_tail.endswith(b"\tStatus: error\tError Type: Runtime.OutOfMemory\n")

    run(main())


def test_a_timeout(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            code = "import time\ndef handler(event, context):\n    print('slow')\n    time.sleep(60)\n"
            environment = await started(stage, stage.function(code, timeout=1))
            call = make_invocation(environment.function)
            result = await environment.run(call)
            assert (result.outcome, result.function_error) == (Outcome.TIMED_OUT, "Unhandled")
            assert json.loads(result.payload) == {
                "errorType": "Sandbox.Timedout",
                "errorMessage": f"RequestId: {call.request_id} Error: Task timed out after 1.00 seconds",
            }
            assert re.search(
                rf"slow\n\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z {call.request_id} "
                r"Task timed out after 1\.00 seconds\n\n"
                r"END RequestId: .*\nREPORT RequestId: .*\tDuration: 1000\.00 ms\tBilled Duration: 1000 ms\t"
                r".*\tStatus: timeout\n$",
                result.log_tail.decode(),
            )
            assert environment.state is State.BROKEN

    run(main())


def test_an_init_phase_that_takes_too_long_is_run_again_in_the_invocation(tmp_path: Path) -> None:
    code = "import time\ntime.sleep(1.5)\ndef handler(event, context): return context.get_remaining_time_in_millis()\n"

    async def main() -> None:
        async with Stage(tmp_path, init_seconds=1) as stage:
            function = stage.function(code, timeout=4)
            first = stage.environment(function)
            with pytest.raises(InitFailed):
                await first.start(1)
            await first.destroy()
            second = stage.environment(function)
            await second.start(function.timeout, phase="invoke")
            result = await second.run(make_invocation(function))
            assert 1500 < int(result.payload) < 2500
            log = stage.log(function)
            assert re.search(r"INIT_REPORT Init Duration: 10\d\d\.\d\d ms\tPhase: init\tStatus: timeout\n", log)
            duration = float(re.search(r"\tDuration: ([\d.]+) ms", log)[1])  # type: ignore[index]
            assert 1500 < duration < 2500
            assert "Init Duration" not in log.rpartition("\nREPORT ")[2]

    run(main())


def test_an_init_phase_that_never_ends_times_out_with_its_invocation(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            function = stage.function("import time\ntime.sleep(60)", timeout=1)
            environment = stage.environment(function)
            await environment.start(function.timeout, phase="invoke")
            result = await environment.run(make_invocation(function))
            assert result.outcome is Outcome.TIMED_OUT
            assert b"Task timed out after 1.00 seconds" in result.payload
            assert re.search(
                rb"INIT_REPORT Init Duration: 10\d\d\.\d\d ms\tPhase: invoke\tStatus: timeout\nSTART ", result.log_tail
            )

    run(main())


@pytest.mark.parametrize("size", [SIX_MB - 2, SIX_MB + 98])
def test_six_megabytes_come_back_whole(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            result = await invoke(stage, f"def handler(event, context): return 'é' + 'x' * {size - 2}")
            assert len(result.payload) == size + 2
            assert result.outcome is Outcome.OK

    run(main())


@pytest.mark.parametrize("size", [SIX_MB + 101, SIX_MB + 70_000, 50 * 1024 * 1024])
def test_an_answer_that_is_too_large(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function(f"def handler(event, context): return 'x' * {size - 2}"))
            result = await environment.run(make_invocation(environment.function))
            assert json.loads(result.payload) == {
                "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
                "errorType": "Function.ResponseSizeTooLarge",
            }
            assert (result.outcome, result.function_error) == (Outcome.HANDLED, "Unhandled")
            assert environment.state is State.ANSWERED
            # That AWS's Python client was told so by a 413, and not by a lost connection, is what it dies with.
            await until(stage, lambda: stage.lost == [1])
            assert "Failed to post invocation response" in stage.log(environment.function)
            assert "Http response code: 413" in stage.log(environment.function)

    run(main())


def test_a_quiet_environment_is_frozen_and_thawed_for_the_next_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function("def handler(event, context): return 1"))
            await environment.run(make_invocation(environment.function))
            environment.rest()
            await asyncio.sleep(0.02)
            assert environment.state is State.IDLE
            await environment.run(make_invocation(environment.function))
            environment.rest()
            await asyncio.sleep(0.04)
            assert environment.state is State.IDLE  # quiet is counted from the last invocation
            await until(stage, lambda: environment.state is State.FROZEN)
            assert stage.builder.freeze_file(1).read_text() == "1"
            assert environment.row()["IdleSeconds"] > 0
            await environment.run(make_invocation(environment.function))
            assert stage.builder.freeze_file(1).read_text() == "0"

    run(main())


def test_one_made_ahead_that_dies_costs_no_invocation(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = stage.environment(stage.function("def handler(event, context): return 1"), ahead=True)
            await environment.start(60)
            assert environment.memory > 0
            stage.builder.processes[1].kill()
            await until(stage, lambda: stage.lost == [1])
            with pytest.raises(NotDelivered):
                await environment.run(make_invocation(environment.function))

    run(main())


def test_a_runtime_that_dies_idle_is_told_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function("def handler(event, context): return 1"))
            await environment.run(make_invocation(environment.function))
            stage.builder.processes[1].kill()
            await until(stage, lambda: stage.lost == [1])
            with pytest.raises(NotDelivered):
                await environment.run(make_invocation(environment.function))

    run(main())


def test_a_flood_of_output_is_dropped_and_counted(tmp_path: Path) -> None:
    code = (
        "import os\ndef handler(event, context):\n    block = b'x' * 1023 + b'\\n'\n"
        "    for _ in range(1024): os.write(1, block * 256)\n    print('the end')\n"
    )

    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function(code, timeout=60))
            turns = 0
            running = asyncio.ensure_future(environment.run(make_invocation(environment.function)))
            while not running.done():
                await asyncio.sleep(0.001)
                turns += 1
            result = await running
            assert result.outcome is Outcome.OK
            assert turns > 50  # others had their turn meanwhile
            dropped = re.findall(
                r"^\[sandboxd\] (\d+) bytes of output were dropped", stage.log(environment.function), re.M
            )
            kept = stage.log(environment.function).count("x")
            assert sum(map(int, dropped)) + kept * 1024 // 1023 == pytest.approx(256 << 20, rel=0.01)
            assert kept < 16 << 20
            assert len(result.log_tail) == 4096
            assert b"END RequestId" in result.log_tail

    run(main())


def test_the_tail_is_the_last_four_kilobytes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            code = "def handler(event, c):\n    for n in range(3000): print('line ünï', n)\n"
            code += "    print('no newline', end='')"
            result = await invoke(stage, code)
            assert len(result.log_tail) == 4096
            assert "line ünï 2999\nno newline\nEND RequestId" in result.log_tail.decode(errors="replace")

    run(main())


def test_no_tail_unless_asked_for_and_the_report_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function("def handler(event, context): print('said')"))
            for _ in range(3):
                result = await environment.run(make_invocation(environment.function, tail=False))
                assert result.log_tail == b""
            await asyncio.sleep(0.01)
            log = stage.log(environment.function)
            assert re.findall("START|said|END|REPORT", log.partition("\n")[2]) == ["START", "said", "END", "REPORT"] * 3

    run(main())


def test_the_process_environment_reaches_the_function(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            code = "import os\ndef handler(event, context): return os.environ.get('GREETING')"
            result = await invoke(stage, code, variables=(("GREETING", "grüße"), ("TZ", "CET")))
            assert json.loads(result.payload) == "grüße"
            assert stage.builder.environs[1]["TZ"] == ":UTC"

    run(main())


def test_the_invoke_door_knows_its_function(tmp_path: Path) -> None:
    code = (
        "import os, http.client\ndef handler(event, context):\n"
        "    c = http.client.HTTPConnection('127.0.0.1', event)\n    c.request('GET', '/x')\n"
        "    r = c.getresponse()\n    return [r.status, r.read().decode(), os.environ['AWS_ENDPOINT_URL_LAMBDA']]\n"
    )

    async def handler(function: FunctionVersion, request: Request) -> Response:
        return Response(200, f"{function.name} {request.target}".encode())

    async def main() -> None:
        stage = Stage(tmp_path)
        stage.door_handler = handler
        async with stage:
            environment = await started(stage, stage.function(code, policy=Policy(invoke=True)))
            port = stage.builder.addresses[-1][1]
            result = await environment.run(make_invocation(environment.function, str(port).encode()))
            assert json.loads(result.payload) == [200, "hello /x", "http://127.0.0.1:9002"]

    run(main())


def test_a_sandbox_that_cannot_be_built(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            stage.builder.failure = StepFailed("seccomp", 22)
            environment = stage.environment(stage.function("x = 1"))
            with pytest.raises(StepFailed, match="seccomp"):
                await environment.start(10)
            await environment.destroy()
            assert stage.builder.destroyed == []
            assert environment.state is State.DEAD

    run(main())


def test_destroying_at_any_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            code = "import time\ndef handler(event, context): time.sleep(60)"
            for turns in (1, 2, 5, 50, 300):
                environment = stage.environment(stage.function(code))
                starting = asyncio.ensure_future(environment.start(10))
                for _ in range(turns):
                    await asyncio.sleep(0.001 if turns > 5 else 0)
                await environment.destroy()
                await environment.destroy()
                await asyncio.wait([starting])
                assert isinstance(starting.exception(), EnvironmentEnded | None)
                assert environment.state is State.DEAD
            assert stage.builder.destroyed == stage.builder.bound == [1, 2, 3, 4, 5]

    run(main())


def test_destroying_under_an_invocation_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stage(tmp_path) as stage:
            environment = await started(stage, stage.function("import time\ndef handler(event, c): time.sleep(60)"))
            running = asyncio.ensure_future(environment.run(make_invocation(environment.function)))
            await asyncio.sleep(0.05)
            await environment.destroy()
            with pytest.raises(EnvironmentEnded):
                await running

    run(main())
