"""The daemon's door for the command line: HTTP/1.1 over run_dir/api.sock on a plain socket.

Room: command line. May: connect to the daemon. May not: import http.client, which costs as much as the interpreter.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from sandboxd.cli.context import Unreachable
from sandboxd.errors import ApiError

FUNCTIONS = "/2015-03-31/functions"
ADMIN = "/sandboxd/v1"
_HEAD_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Asks the daemon, in an account or else in the configuration's, one connection for each request.

    Raises Unreachable where it cannot be reached.
    """

    def __init__(self, path: Path, account: str | None = None) -> None:
        self._path = path
        self._named = [] if account is None else [f"X-Sandboxd-Account: {account}"]

    def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Answer:
        """One request as it is; `timeout` in seconds for each wait on the socket."""
        with self._exchange(method, target, body, headers, timeout) as (status, named, door):
            return Answer(status, named, _whole(named, door))

    def stream(
        self, operation: str, target: str, body: bytes, headers: dict[str, str], timeout: float
    ) -> Iterator[bytes]:
        """The pieces of an answer as they come; raises ApiError where it is one, as `call` does."""
        with self._exchange("POST", target, body, headers, timeout) as (status, named, door):
            if status >= 400 or named.get("transfer-encoding") != "chunked":
                answer = Answer(status, named, _whole(named, door))
                check(operation, answer)
                yield answer.body
            else:
                yield from _chunks(door)

    @contextlib.contextmanager
    def _exchange(
        self, method: str, target: str, body: bytes, headers: dict[str, str] | None, timeout: float
    ) -> Iterator[tuple[int, dict[str, str], BinaryIO]]:
        """Send a request; the answer's status and headers, and where its body is to be read."""
        lines = [f"{method} {target} HTTP/1.1", "Host: sandboxd", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [*self._named, *(f"{name}: {value}" for name, value in (headers or {}).items())]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(timeout)
                door.connect(str(self._path))
                _send(door, head + body)
                with door.makefile("rb") as answer:
                    yield (*_head(answer), answer)
        except OSError as error:
            raise Unreachable(f"the daemon cannot be reached at {self._path}: {_reason(error)}") from None
        except ValueError as error:
            raise Unreachable(f"the daemon at {self._path} did not answer in HTTP: {error}") from None

    def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: object = None,
        query: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> dict[str, Any]:
        """One operation with JSON both ways; raises ApiError with a text as the aws CLI words it."""
        target = f"{path}?{urlencode(query)}" if query else path
        payload = b"" if body is None else json.dumps(body).encode()
        answer = self.request(method, target, payload, {"Content-Type": "application/json"}, timeout)
        check(operation, answer)
        try:
            document = json.loads(answer.body or b"{}")
        except ValueError as error:
            raise Unreachable(f"the daemon at {self._path} did not answer in JSON: {error}") from None
        return document if isinstance(document, dict) else {}

    def every(
        self, operation: str, path: str, member: str, query: dict[str, str] | None = None, timeout: float = 60
    ) -> list[Any]:
        """Every item of an operation that answers in pages; `member` holds a page's."""
        items: list[Any] = []
        marker: dict[str, str] = {}
        while True:
            page = self.call(operation, "GET", path, query=(query or {}) | marker, timeout=timeout)
            items += page.get(member, [])
            if not page.get("NextMarker"):
                return items
            marker = {"Marker": page["NextMarker"]}


def function_path(name: str, rest: str = "", since: str = "2015-03-31") -> str:
    """The path of a function's resource; the name may carry a qualifier or be an ARN. `since`: the API's date."""
    return f"/{since}/functions/{quote(name, safe='')}{rest}"


def check(operation: str, answer: Answer) -> None:
    """Raise the ApiError that an answer is, if it is one."""
    if answer.status < 400:
        return
    code = answer.headers.get("x-amzn-errortype", "").partition(":")[0] or str(answer.status)
    try:
        document = json.loads(answer.body)
        text = document.get("message") or document.get("Message") or ""
    except (ValueError, AttributeError):
        text = answer.body[:200].decode("utf-8", "replace").strip()
    line = f"An error occurred ({code}) when calling the {operation} operation: {text}"
    raise ApiError(code, line, answer.status)


def _send(door: socket.socket, request: bytes) -> None:
    try:
        door.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        # The daemon answers a request that it refuses for its size before it has read the whole: read that answer.
        return


def _head(door: BinaryIO) -> tuple[int, dict[str, str]]:
    lines: list[str] = []
    room = _HEAD_LIMIT
    while (line := _line(door, room)) != "":
        lines.append(line)
        room -= len(line) + 2
    status = lines[0].split(" ", 2)[1] if lines and lines[0].startswith("HTTP/1.1 ") else ""
    if not status.isdigit():
        raise ValueError(f"status line {''.join(lines[:1])[:80]!r}")
    pairs = (line.partition(":") for line in lines[1:])
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _line(door: BinaryIO, room: int) -> str:
    line = door.readline(max(room, 0))
    if not line.endswith(b"\n"):
        if len(line) >= room:
            raise ValueError(f"headers of more than {_HEAD_LIMIT} bytes")
        raise _broken_off()
    return line.decode("latin-1").rstrip("\r\n")


def _whole(headers: dict[str, str], door: BinaryIO) -> bytes:
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise ValueError(f"Content-Length {length[:80]!r}")
    return _exactly(door, int(length))


def _chunks(door: BinaryIO) -> Iterator[bytes]:
    while size := int(_line(door, _HEAD_LIMIT), 16):
        if size < 0:
            raise ValueError(f"a chunk of {size} bytes")
        yield _exactly(door, size)
        _line(door, _HEAD_LIMIT)


def _exactly(door: BinaryIO, size: int) -> bytes:
    data = door.read(size)
    if len(data) < size:
        raise _broken_off()
    return data


def _broken_off() -> OSError:
    return ConnectionResetError("it closed the connection before its answer was complete")


def _reason(error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "it is not running (start it: systemctl start sandboxd, or sandboxd daemon as root)"
        case PermissionError():
            return "permission denied (be root or in the group sandboxd)"
        case TimeoutError():
            return "it does not answer"
        case _:
            return error.strerror or str(error)
