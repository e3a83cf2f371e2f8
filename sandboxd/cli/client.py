"""The daemon's door for the command line: HTTP/1.1 over run_dir/api.sock on a plain socket.

Room: command line. May: connect to the daemon. May not: import http.client, which costs as much as the interpreter.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
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
    """Asks the daemon, one connection for each request. Raises Unreachable where it cannot be reached."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Answer:
        """One request as it is; `timeout` in seconds for each wait on the socket."""
        lines = [f"{method} {target} HTTP/1.1", "Host: sandboxd", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(timeout)
                door.connect(str(self._path))
                _send(door, head + body)
                return _receive(door)
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

    def every(self, operation: str, path: str, member: str) -> list[dict[str, Any]]:
        """Every item of an operation that answers in pages; `member` holds a page's."""
        items: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        while True:
            page = self.call(operation, "GET", path, query=query)
            items += page.get(member, [])
            if not page.get("NextMarker"):
                return items
            query = {"Marker": page["NextMarker"]}


def function_path(name: str, rest: str = "") -> str:
    """The path of a function's resource; the name may carry a qualifier or be an ARN."""
    return f"{FUNCTIONS}/{quote(name, safe='')}{rest}"


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


def _receive(door: socket.socket) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > _HEAD_LIMIT:
            raise ValueError(f"headers of more than {_HEAD_LIMIT} bytes")
        data += _some(door)
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = first.split(" ", 2)[1] if first.startswith("HTTP/1.1 ") else ""
    if not status.isdigit():
        raise ValueError(f"status line {first[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise ValueError(f"Content-Length {length[:80]!r}")
    left = int(length) - len(rest)
    parts = [rest]
    while left > 0:
        parts.append(_some(door))
        left -= len(parts[-1])
    return Answer(int(status), headers, b"".join(parts))


def _some(door: socket.socket) -> bytes:
    data = door.recv(262_144)
    if not data:
        raise ConnectionResetError("it closed the connection before its answer was complete")
    return data


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
