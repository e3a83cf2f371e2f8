"""What InvokeWithResponseStream may answer, and what is no answer."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.api.stream import message
from sandboxd.cli.context import Unreachable
from sandboxd.cli.stream import messages
from sandboxd.errors import ApiError
from tests.cli.conftest import Daemon, Run
from tests.cli.test_client import peer

ROUTE = "POST /2021-11-15/functions/f/response-streaming-invocations"
CHUNK = message("PayloadChunk", "application/octet-stream", b"one")
END = message("InvokeComplete", "application/json", b"{}")
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@given(payloads=st.lists(st.binary(max_size=300), max_size=4), cuts=st.lists(st.integers(0, 1500), max_size=5))
def test_events_come_out_as_they_went_in_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(message("PayloadChunk", "application/octet-stream", one) for one in payloads) + END
    borders = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[begin:end] for begin, end in itertools.pairwise(borders)]
    assert list(messages(pieces)) == [*(("PayloadChunk", one) for one in payloads), ("InvokeComplete", b"{}")]


@given(st.binary(max_size=100))
def test_anything_else_is_an_error_and_nothing_worse(data: bytes) -> None:
    try:
        list(messages([data, CHUNK[:-1]]))
    except ValueError:
        return
    raise AssertionError("the last message was not complete")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>" + b"x" * 20, "the answer is no event stream"),
        (CHUNK + END[:-3], "the answer is no event stream: the last message is not complete"),
        (CHUNK + message("InvokeComplete", "application/json", b"{"), "the answer is no event stream"),
        (CHUNK, "the answer ended before it was complete"),
        (b"", "the answer ended before it was complete"),
    ],
)
def test_an_answer_that_is_none(daemon: Daemon, run: Run, body: bytes, words: str) -> None:
    daemon.answer(ROUTE, body)
    result = run("invoke", "f", "--stream")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"sandboxd: {words}") and result.stderr.count("\n") == 1


def test_pieces_are_given_on_as_they_come_until_the_daemon_goes(tmp_path: Path) -> None:
    with peer(tmp_path, HEAD, b"3\r\none\r\n", b"5\r\ntw") as client:
        pieces = client.stream("InvokeWithResponseStream", "/x", b"", {}, 60)
        assert next(pieces) == b"one"
        with pytest.raises(Unreachable, match="closed the connection"):
            next(pieces)


@pytest.mark.parametrize("size", [b"x", b"-1", b""])
def test_pieces_without_a_size(tmp_path: Path, size: bytes) -> None:
    with (
        peer(tmp_path, HEAD, size + b"\r\none\r\n") as client,
        pytest.raises(Unreachable, match="did not answer in HTTP"),
    ):
        list(client.stream("InvokeWithResponseStream", "/x", b"", {}, 60))


def test_a_refusal_instead_of_a_stream(tmp_path: Path) -> None:
    head = b"HTTP/1.1 404 X\r\nx-amzn-ErrorType: ResourceNotFoundException\r\nContent-Length: 16\r\n\r\n"
    with peer(tmp_path, head, b'{"message":"no"}') as client, pytest.raises(ApiError, match="operation: no"):
        list(client.stream("InvokeWithResponseStream", "/x", b"", {}, 60))
