"""An HTTP server on a unix socket that answers what a test tells it to, in shapes that the daemon was seen to give.

The command line against the real daemon is tests/end_to_end's; here it meets answers that a daemon gives rarely.
"""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sandboxd.cli import cli


@dataclass
class Request:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Daemon:
    """What the server answers: per method and path, a list of answers of which the last one repeats."""

    config_file: Path
    socket: Path
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)

    def answer(self, route: str, body: Any = b"", status: int = 200, **headers: str) -> None:
        """Add an answer for "METHOD /path"; header names with underscores."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.setdefault(route, []).append((status, named, content))

    def refuse(self, route: str, code: str, message: str, status: int = 400) -> None:
        """Add a refusal in AWS's shape."""
        self.answer(route, {"Type": "User", "Message": message}, status, x_amzn_errortype=code)

    def next_answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(request)
        queue = self.answers.get(f"{request.method} {request.target.partition('?')[0]}")
        if not queue:
            return 404, {"x-amzn-errortype": "UnknownOperation"}, b'{"Message": "no such route"}'
        return queue.pop(0) if len(queue) > 1 else queue[0]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    daemon: Daemon


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65_537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        status, headers, content = self.server.daemon.next_answer(request)
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content:  # a peer that has heard all may be gone
            self.wfile.write(content)
        self.close_connection = True


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """The server, and the configuration file that leads to it."""
    config_file = tmp_path / "sandboxd.toml"
    config_file.write_text(f'run_dir = "{tmp_path}"\naccount_id = "123456789012"\n')
    with _Server(str(tmp_path / "api.sock"), _Handler) as server:
        server.daemon = Daemon(config_file, tmp_path / "api.sock")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.daemon
        server.shutdown()
        thread.join()


Run = Callable[..., Result]


@pytest.fixture
def run(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command against the server."""
    monkeypatch.setenv("SANDBOXD_CONFIG", str(daemon.config_file))

    def invoke(*arguments: str, **options: Any) -> Result:
        result = CliRunner().invoke(cli, arguments, prog_name="sandboxd", **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
