"""sandboxd/cli/client.py: what an answer may look like and what it may not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandboxd.cli.client import Client, function_path
from sandboxd.cli.context import Unreachable
from sandboxd.errors import ApiError


@contextmanager
def peer(tmp_path: Path, *pieces: bytes, read: int = 65_536) -> Iterator[Client]:
    """A server that reads once, sends these pieces and closes."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(BrokenPipeError, ConnectionResetError):  # a client may have heard enough
                connection.recv(read)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Client(path)
        thread.join()


def test_answer_in_pieces(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Amz-Thing:  v \r\ncontent-LENGTH: 5\r\n"
    with peer(tmp_path, b"HTT", b"P/1.1 " + head[9:], b"\r", b"\nhe", b"llo") as client:
        answer = client.request("GET", "/x")
    assert (answer.status, answer.headers["x-amz-thing"], answer.body) == (200, "v", b"hello")


def test_large_answer(tmp_path: Path) -> None:
    body = bytes(range(256)) * 4096 * 6
    with peer(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body) as client:
        assert client.request("GET", "/x").body == body


def test_answer_without_body(tmp_path: Path) -> None:
    with peer(tmp_path, b"HTTP/1.1 204 No Content\r\n\r\n") as client:
        assert client.call("Op", "DELETE", "/x") == {}


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([], "closed the connection"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le"], "closed the connection"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], "closed the connection"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "did not answer in HTTP"),
        ([b"HTTP/1.1 abc\r\n\r\n"], "did not answer in HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"], "did not answer in HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], "did not answer in HTTP"),
        ([b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 30_000], "headers of more than 65536 bytes"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"], "did not answer in JSON"),
    ],
)
def test_what_is_no_answer(tmp_path: Path, pieces: list[bytes], reason: str) -> None:
    with peer(tmp_path, *pieces) as client, pytest.raises(Unreachable, match=reason) as caught:
        client.call("Op", "GET", "/x")
    assert caught.value.exit_code == 125


def test_silence_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen(1)
        with pytest.raises(Unreachable, match="does not answer"):
            Client(tmp_path / "api.sock").call("Op", "GET", "/x", timeout=0.05)


def test_not_running(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="not running"):
        Client(tmp_path / "api.sock").call("Op", "GET", "/x")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "api.sock"))
    with pytest.raises(Unreachable, match="not running"):
        Client(tmp_path / "api.sock").call("Op", "GET", "/x")


def test_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="AF_UNIX path too long"):
        Client(tmp_path / ("x" * 200)).call("Op", "GET", "/x")


def test_refusal_before_the_request_was_read(tmp_path: Path) -> None:
    refusal = b'{"Message":"too large"}'
    head = b"HTTP/1.1 413 X\r\nx-amzn-ErrorType: RequestTooLargeException:http://x\r\nContent-Length: %d\r\n\r\n"
    with (
        peer(tmp_path, head % len(refusal) + refusal, read=10) as client,
        pytest.raises(ApiError) as caught,
    ):
        client.call("CreateFunction", "POST", "/x", {"Zip": "x" * 10_000_000})
    assert (caught.value.code, caught.value.status) == ("RequestTooLargeException", 413)


def test_refusals_in_both_of_awss_shapes(tmp_path: Path) -> None:
    for member in ("Message", "message"):
        body = f'{{"{member}": "no"}}'.encode()
        head = b"HTTP/1.1 404 X\r\nx-amzn-ErrorType: ResourceNotFoundException\r\nContent-Length: %d\r\n\r\n"
        directory = tmp_path / member
        directory.mkdir()
        with peer(directory, head % len(body) + body) as client, pytest.raises(ApiError) as caught:
            client.call("Invoke", "GET", "/x")
        assert caught.value.message == (
            "An error occurred (ResourceNotFoundException) when calling the Invoke operation: no"
        )


def test_refusal_that_is_no_json(tmp_path: Path) -> None:
    with (
        peer(tmp_path, b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\nnot HTTP\n") as client,
        pytest.raises(ApiError) as caught,
    ):
        client.call("Invoke", "GET", "/x")
    assert caught.value.message == "An error occurred (400) when calling the Invoke operation: not HTTP"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("f", "/2015-03-31/functions/f/code"),
        ("f:$LATEST", "/2015-03-31/functions/f%3A%24LATEST/code"),
        ("../../x", "/2015-03-31/functions/..%2F..%2Fx/code"),
        ("a b\r\nX: y", "/2015-03-31/functions/a%20b%0D%0AX%3A%20y/code"),
    ],
)
def test_names_cannot_leave_their_place(name: str, path: str) -> None:
    assert function_path(name, "/code") == path
