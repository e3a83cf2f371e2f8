"""`sandboxd invoke`: what stands on which stream, and the exit codes."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.cli.conftest import Daemon, Run

ROUTE = "POST /2015-03-31/functions/hello/invocations"
LOG = "START RequestId: 1 Version: $LATEST\nhi\nEND RequestId: 1\n"


def test_result_and_nothing_else(daemon: Daemon, run: Run) -> None:
    daemon.answer(ROUTE, b'{"a":  1}', x_amz_executed_version="$LATEST")
    result = run("invoke", "hello", "--payload", '{"x": "\u00fc"}')
    assert (result.exit_code, result.stdout, result.stderr) == (0, '{"a":  1}\n', "")
    [request] = daemon.requests
    assert request.body == '{"x": "\u00fc"}'.encode()
    assert "x-amz-log-type" not in request.headers
    assert "x-amz-invocation-type" not in request.headers


@pytest.mark.parametrize("body", ["null", '"\u65e5\u672c"', "[1e400]", '"line\\n"', "\U0001f600"])
def test_result_is_not_touched(daemon: Daemon, run: Run, body: str) -> None:
    daemon.answer(ROUTE, body.encode())
    assert run("invoke", "hello").stdout_bytes == body.encode() + b"\n"


def test_six_megabytes(daemon: Daemon, run: Run) -> None:
    body = b'"' + b"x" * (6 * 1024 * 1024 - 2) + b'"'
    daemon.answer(ROUTE, body)
    assert run("invoke", "hello").stdout_bytes == body + b"\n"


def test_log_goes_to_standard_error(daemon: Daemon, run: Run) -> None:
    daemon.answer(ROUTE, b"1", x_amz_log_result=base64.b64encode(LOG.encode()).decode())
    result = run("invoke", "hello", "--log")
    assert (result.stdout, result.stderr) == ("1\n", LOG)
    assert daemon.requests[0].headers["x-amz-log-type"] == "Tail"


def test_function_error_is_printed_and_exit_code_1(daemon: Daemon, run: Run) -> None:
    error = b'{"errorMessage": "no", "errorType": "ValueError", "stackTrace": []}'
    daemon.answer(ROUTE, error, x_amz_function_error="Unhandled")
    result = run("invoke", "hello")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (1, error + b"\n", "")


def test_dry_run(daemon: Daemon, run: Run) -> None:
    daemon.answer(ROUTE, status=204)
    result = run("invoke", "hello", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")
    assert daemon.requests[0].headers["x-amz-invocation-type"] == "DryRun"


def test_refusal_is_one_line_and_exit_code_1(daemon: Daemon, run: Run) -> None:
    text = "Function not found: arn:aws:lambda:us-east-1:123456789012:function:hello"
    daemon.refuse(ROUTE, "ResourceNotFoundException", text, 404)
    result = run("invoke", "hello")
    line = f"sandboxd: An error occurred (ResourceNotFoundException) when calling the Invoke operation: {text}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line)


def test_payload_from_file_and_standard_input(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    daemon.answer(ROUTE, b"1")
    file = tmp_path / "event.json"
    file.write_bytes(b' {"big": 123456789012345678901234567890}\n')
    assert run("invoke", "hello", "--payload", f"@{file}").exit_code == 0
    assert run("invoke", "hello", "-p", "-", input=file.read_bytes()).exit_code == 0
    assert [request.body for request in daemon.requests] == [file.read_bytes()] * 2


def test_numbers_of_any_size_pass(daemon: Daemon, run: Run) -> None:
    daemon.answer(ROUTE, b"1")
    payload = b"[" + b"1" * 10_000 + b", 1e999, -0.0]"
    assert run("invoke", "hello", "-p", "-", input=payload).exit_code == 0
    assert daemon.requests[0].body == payload


def test_no_payload(daemon: Daemon, run: Run) -> None:
    daemon.answer(ROUTE, b"1")
    assert run("invoke", "hello").exit_code == 0
    assert run("invoke", "hello", "--payload", "-", input=b"").exit_code == 0
    assert [request.body for request in daemon.requests] == [b"", b""]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("{", "not JSON in UTF-8"),
        ("hello", "not JSON in UTF-8"),
        ("{'a': 1}", "not JSON in UTF-8"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "not JSON in UTF-8"),
        ("@/nonexistent/event.json", "/nonexistent/event.json: No such file"),
        ("@/", "/: Is a directory"),
    ],
)
def test_bad_payload_is_usage(daemon: Daemon, run: Run, payload: str, words: str) -> None:
    result = run("invoke", "hello", "--payload", payload)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert daemon.requests == []


def test_payload_in_another_encoding_is_usage(daemon: Daemon, run: Run) -> None:
    result = run("invoke", "hello", "-p", "-", input='{"a": 1}'.encode("utf-16"))
    assert (result.exit_code, daemon.requests) == (2, [])


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("hello:7", "/2015-03-31/functions/hello%3A7/invocations"),
        ("hello:$LATEST", "/2015-03-31/functions/hello%3A%24LATEST/invocations"),
        (
            "arn:aws:lambda:us-east-1:123456789012:function:hello",
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Ahello/invocations",
        ),
    ],
)
def test_qualified_names_and_arns(daemon: Daemon, run: Run, name: str, target: str) -> None:
    daemon.answer(f"POST {target}", b"1")
    assert run("invoke", name).exit_code == 0


def test_control_characters_of_a_log_do_not_reach_a_pipe_changed(daemon: Daemon, run: Run) -> None:
    daemon.answer(ROUTE, b"1", x_amz_log_result=base64.b64encode(b"\x1b[31mred\n").decode())
    assert run("invoke", "hello", "--log").stderr == "\x1b[31mred\n"
