"""AWS's words, letter by letter."""

from __future__ import annotations

import json
import os
import signal

import pytest

from sandboxd.environment import words
from sandboxd.environment.words import Report


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (lambda: os._exit(0), "Runtime exited without providing a reason"),
        (lambda: os._exit(1), "Runtime exited with error: exit status 1"),
        (lambda: os._exit(137), "Runtime exited with error: exit status 137"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "Runtime exited with error: signal: killed"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "Runtime exited with error: signal: terminated"),
        (lambda: os.kill(os.getpid(), signal.SIGSYS), "Runtime exited with error: signal: bad system call"),
        (lambda: os.kill(os.getpid(), 40), "Runtime exited with error: signal: signal 40"),
    ],
)
def test_how_a_process_ended(end: object, text: str) -> None:
    pid = os.fork()
    if pid == 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end()  # type: ignore[operator]
        signal.pause()
    assert words.exit_reason(os.waitpid(pid, 0)[1]) == text


def test_a_core_dump_is_told_as_go_tells_it() -> None:
    assert words.exit_reason(signal.SIGSEGV | 0x80) == (
        "Runtime exited with error: signal: segmentation fault (core dumped)"
    )


def test_report_lines() -> None:
    assert Report("id", 1.234, 100, 128, 35, 40.126).lines() == (
        "END RequestId: id\n"
        "REPORT RequestId: id\tDuration: 1.23 ms\tBilled Duration: 100 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 35 MB\tInit Duration: 40.13 ms\t\n"
    )
    assert (
        Report("id", 3000, 3000, 128, 35, status="timeout")
        .lines()
        .endswith("\tMax Memory Used: 35 MB\tStatus: timeout\n")
    )
    assert Report("id", 1, 100, 128, 128, status="error", error_type="Runtime.OutOfMemory").lines().endswith(
        "\tMax Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory\n"
    )  # fmt: skip


def test_init_lines() -> None:
    assert words.init_report(10009.333, "init", "timeout") == (
        "INIT_REPORT Init Duration: 10009.33 ms\tPhase: init\tStatus: timeout\n"
    )
    assert words.init_report(5, "invoke", "error", "Runtime.ExitError") == (
        "INIT_REPORT Init Duration: 5.00 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError\n"
    )
    assert words.init_start("python3.11", "eu-west-1", b"\xab" * 32).startswith(
        "INIT_START Runtime Version: python:3.11\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:abab"
    )
    assert words.init_start("nodejs22.x", "eu-west-1", b"").startswith("INIT_START Runtime Version: nodejs:22.x\t")


@pytest.mark.parametrize(
    ("duration", "init", "step", "init_is_billed", "billed"),
    [
        (0.0, None, 100, False, 100),
        (0.0, None, 1, True, 1),
        (99.99, None, 100, False, 100),
        (100.0, None, 100, False, 100),
        (100.01, 5000.0, 100, False, 200),
        (1.2, 40.12, 1, True, 42),
        (1.2, None, 1, True, 2),
        (3000.0, None, 1, True, 3000),
        (395.99, 265.72, 1, True, 662),  # this and the next were seen at AWS: the sum is rounded up, not its parts
        (1058.15, 1307.68, 1, True, 2366),
    ],
)
def test_billing(duration: float, init: float | None, step: int, init_is_billed: bool, billed: int) -> None:
    assert words.billed_ms(duration, init, step, init_is_billed) == billed


def test_error_bodies() -> None:
    assert json.loads(words.error_body(words.TIMED_OUT, "id", words.timed_out(3))) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: id Error: Task timed out after 3.00 seconds",
    }
    assert json.loads(words.response_too_large(6291556)) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }
