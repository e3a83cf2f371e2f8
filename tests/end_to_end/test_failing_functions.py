"""Functions that fail in every way a function can: AWS's words for each, and the daemon goes on."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support.daemon import Answer, Daemon
from tests.support.places import TIME_FACTOR


def failed(answer: Answer) -> dict[str, Any]:
    """The error object of an answer that is a function's error."""
    assert (answer.status, answer.headers.get("x-amz-function-error")) == (200, "Unhandled"), answer
    assert dict(answer.json) == answer.json
    return dict(answer.json)


def request_id(answer: Answer) -> str:
    return answer.headers["x-amzn-requestid"]


def test_the_handler_raises(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("raises")
    answers = [daemon.invoke(name, {"order": 7}) for _ in range(2)]
    error = failed(answers[0])
    assert error["errorMessage"] == "order 7 is refused: ünïcode ✓"
    assert error["errorType"] == "OrderRefused"
    assert error["requestId"] == request_id(answers[0])
    assert [re.sub(r"\s+", " ", line) for line in error["stackTrace"]] == [
        ' File "/var/task/app.py", line 10, in handler check(event["order"]) ',
        ' File "/var/task/app.py", line 6, in check raise OrderRefused(f"order {order} is refused: ünïcode ✓") ',
    ]
    assert "[ERROR] OrderRefused: order 7 is refused: ünïcode ✓" in answers[0].log
    assert "Init Duration" not in answers[1].log, "an error of the handler leaves the environment in use"


def test_the_handler_raises_through_the_command_line(daemon: Daemon, deployed: Deployed) -> None:
    done = daemon.cli("invoke", deployed("raises"), "--payload", '{"order": 7}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["errorType"] == "OrderRefused"
    assert done.stderr == ""


INIT_FAILURES = {
    "handler_missing": ("Runtime.HandlerNotFound", "Handler 'not_there' missing on module 'app'"),
    "module_missing": ("Runtime.ImportModuleError", "Unable to import module 'not_there': No module named 'not_there'"),
    "syntax_error": ("Runtime.UserCodeSyntaxError", "Syntax error in module 'app': expected ':' (app.py, line 1)"),
    "raises_at_import": ("RuntimeError", "no configuration"),
}


@pytest.mark.parametrize("function", INIT_FAILURES)
def test_the_function_cannot_be_loaded(daemon: Daemon, deployed: Deployed, function: str) -> None:
    name = deployed(function)
    kind, message = INIT_FAILURES[function]
    for _ in range(2):
        error = failed(daemon.invoke(name, {}))
        assert (error["errorType"], error["errorMessage"]) == (kind, message)
    eventually_no_environment(daemon, name)


def test_a_handler_that_names_no_function(daemon: Daemon, deployed: Deployed) -> None:
    error = failed(daemon.invoke(deployed("hello", Handler="app"), {}))
    assert error["errorType"] == "Runtime.MalformedHandlerName"
    assert error["errorMessage"] == "Bad handler 'app': not enough values to unpack (expected 2, got 1)"


@pytest.mark.parametrize("code", [1, 7, 255])
def test_the_runtime_exits(daemon: Daemon, deployed: Deployed, code: int) -> None:
    name = deployed("exits")
    answer = daemon.invoke(name, {"code": code})
    assert failed(answer) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id(answer)} Error: Runtime exited with error: exit status {code}",
    }
    eventually_no_environment(daemon, name)


def test_the_runtime_exits_without_a_reason(daemon: Daemon, deployed: Deployed) -> None:
    answer = daemon.invoke(deployed("exits"), {"code": 0})
    assert failed(answer) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id(answer)} Error: Runtime exited without providing a reason",
    }


def test_the_runtime_exits_while_it_starts(daemon: Daemon, deployed: Deployed) -> None:
    answer = daemon.invoke(deployed("exits_at_import"), {})
    error = failed(answer)
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Error: Runtime exited with error: exit status 7")


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "segmentation fault"), (signal.SIGABRT, "aborted")],
)
def test_the_runtime_dies_of_a_signal(daemon: Daemon, deployed: Deployed, number: signal.Signals, words: str) -> None:
    answer = daemon.invoke(deployed("kills_itself"), {"signal": int(number)})
    error = failed(answer)
    assert error["errorType"] == "Runtime.ExitError"
    assert re.fullmatch(
        rf"RequestId: {request_id(answer)} Error: Runtime exited with error: signal: {words}( \(core dumped\))?",
        error["errorMessage"],
    ), error


def test_out_of_memory(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("memory_hog")
    answer = daemon.invoke(name, {"mb": 300})
    assert failed(answer) == {
        "errorType": "Runtime.OutOfMemory",
        "errorMessage": f"RequestId: {request_id(answer)} Error: Runtime exited with error: signal: killed",
    }
    assert "Memory Size: 128 MB\tMax Memory Used: 128 MB" in answer.log
    eventually_no_environment(daemon, name)
    assert daemon.call(name, {"mb": 20}) == {"mb": 20}


def test_out_of_memory_of_a_child_process_is_the_functions_own_matter(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("memory_hog", MemorySize=1024)
    assert daemon.call(name, {"mb": 300}) == {"mb": 300}


def test_timeout(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("never_returns", Timeout=1)
    answer = daemon.invoke(name, {})
    assert failed(answer) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request_id(answer)} Error: Task timed out after 1.00 seconds",
    }
    assert "still here\n" in answer.log
    report = next(line for line in answer.log.splitlines() if line.startswith("REPORT "))
    duration = float(re.search(r"\tDuration: ([0-9.]+) ms", report)[1])
    assert 1000 <= duration < 1000 + 500 * TIME_FACTOR
    assert "Status: timeout" in report


def test_a_timed_out_function_does_not_go_on(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("evaluate", Timeout=1)
    code = "import time\nopen('/tmp/x', 'w').write('x')\ntime.sleep(1.5)\nopen('/tmp/y', 'w').write('y')"
    failed(daemon.invoke(name, {"code": code}))
    assert "y" not in daemon.call(name, {"code": "import os; result = os.listdir('/tmp')"})


def test_every_failure_leaves_the_others_alone(daemon: Daemon, deployed: Deployed) -> None:
    counter, exits = deployed("counter"), deployed("exits")
    first = daemon.call(counter)
    failed(daemon.invoke(exits, {"code": 1}))
    assert daemon.call(counter) == {**first, "count": 2}


def test_a_result_that_is_not_json(daemon: Daemon, deployed: Deployed) -> None:
    error = failed(daemon.invoke(deployed("evaluate"), {"code": "result = {1, 2}"}))
    assert error["errorType"] == "Runtime.MarshalError"
    assert error["errorMessage"].startswith("Unable to marshal response: Object of type set is not JSON serializable")


def eventually_no_environment(daemon: Daemon, name: str) -> None:
    eventually(lambda: not daemon.environments(name))
