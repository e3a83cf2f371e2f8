"""InvokeWithResponseStream with boto3: pieces as the function makes them, and every way in which they can end."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support.daemon import Daemon
from tests.support.places import TIME_FACTOR


@pytest.fixture
def streaming(deployed: Deployed) -> str:
    return deployed("streaming", Timeout=round(3 * TIME_FACTOR))


def events(daemon: Daemon, name: str, event: str, **members: Any) -> tuple[list[tuple[float, bytes]], dict[str, str]]:
    """The chunks with when they came, in seconds, and InvokeComplete."""
    answer = daemon.lambda_client.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event), **members)
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    began, chunks, complete = time.monotonic(), [], None
    for one in answer["EventStream"]:
        if "PayloadChunk" in one:
            chunks.append((time.monotonic() - began, one["PayloadChunk"]["Payload"]))
        else:
            complete = one["InvokeComplete"]
    assert complete is not None, chunks
    return chunks, complete


def whole(chunks: list[tuple[float, bytes]]) -> bytes:
    return b"".join(chunk for _, chunk in chunks)


def test_pieces_come_while_the_function_makes_them(daemon: Daemon, streaming: str) -> None:
    chunks, complete = events(daemon, streaming, "slowly", LogType="Tail")
    assert [chunk for _, chunk in chunks] == [b"one ", b"two ", b"three "]
    assert chunks[-1][0] - chunks[0][0] > 0.5
    assert "REPORT" in base64.b64decode(complete.pop("LogResult")).decode()
    assert complete == {}
    assert whole(events(daemon, streaming, "slowly")[0]) == b"one two three "
    eventually(lambda: [row["Invocations"] for row in daemon.environments(streaming)] == [2])


def test_an_answer_may_be_larger_than_a_whole_one_and_has_a_limit(daemon: Daemon, streaming: str) -> None:
    chunks, complete = events(daemon, streaming, "large")
    assert (len(whole(chunks)), complete) == (80 * 65_536, {})
    chunks, complete = events(daemon, streaming, "too large")
    assert len(whole(chunks)) <= 20 << 20
    assert json.loads(complete["ErrorDetails"])["errorType"] == "Function.ResponseSizeTooLarge"


def test_what_was_begun_can_end_badly(daemon: Daemon, streaming: str) -> None:
    chunks, complete = events(daemon, streaming, "failing")
    assert whole(chunks) == b"begun"
    assert complete["ErrorCode"] == "Unhandled"
    assert json.loads(complete["ErrorDetails"]) == {"errorType": "Late.Error", "errorMessage": "in the middle"}
    chunks, complete = events(daemon, streaming, "cut")
    assert whole(chunks) == b"half"
    assert json.loads(complete["ErrorDetails"])["errorType"] == "Runtime.TruncatedResponse"
    chunks, complete = events(daemon, streaming, "forever")
    assert whole(chunks).startswith(b"tick tick ")
    assert json.loads(complete["ErrorDetails"])["errorType"] == "Sandbox.Timedout"


def test_one_who_asks_for_a_whole_gets_it(daemon: Daemon, streaming: str, deployed: Deployed) -> None:
    assert daemon.invoke(streaming, "slowly").body == b"one two three "
    assert whole(events(daemon, streaming, "whole")[0]) == b'"whole"'
    hello = deployed("hello")
    chunks, complete = events(daemon, hello, {})
    assert (json.loads(whole(chunks)), complete) == ({"hello": "world"}, {})


def test_a_client_that_goes_away_leaves_the_function_to_its_end(daemon: Daemon, streaming: str) -> None:
    client = daemon.boto3()
    answer = client.invoke_with_response_stream(FunctionName=streaming, Payload=b'"large"')
    next(iter(answer["EventStream"]))
    answer["EventStream"].close()
    deadline = time.monotonic() + 20 * TIME_FACTOR
    while daemon.environments(streaming)[0]["State"] not in ("Idle", "Frozen"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert daemon.invoke(streaming, "whole").json == "whole"
    eventually(lambda: [row["Invocations"] for row in daemon.environments(streaming)] == [2])


def test_a_runtime_in_python_streams(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("streaming_python")
    chunks, complete = events(daemon, name, "word")
    assert (whole(chunks), complete) == (b'one "word"', {})
    chunks, complete = events(daemon, name, "fail")
    assert whole(chunks) == b'one "fail"'
    assert json.loads(complete["ErrorDetails"]) == {"errorType": "ValueError", "errorMessage": "in the middle"}
    assert daemon.invoke(name, "all").body == b'one "all"'


def test_what_does_not_come_to_run_is_an_error_of_http(daemon: Daemon) -> None:
    client = daemon.lambda_client
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke_with_response_stream(FunctionName="nobody", Payload=b"{}")
